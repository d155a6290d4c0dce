package scheduler

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
)

// owners knows which pods belong together: those of one service, and those of
// one replica set. Such pods are spread over hosts and zones without asking.
type owners struct {
	services    map[string]map[string]labels.Selector // namespace → name
	replicaSets map[types.UID]labels.Selector         // their selectors never change
}

// replicaSetsKept bounds what is remembered of replica sets.
const replicaSetsKept = 1024

func newOwners() owners {
	return owners{services: map[string]map[string]labels.Selector{}, replicaSets: map[types.UID]labels.Selector{}}
}

func (o *owners) setService(key api.Key, s *corev1.Service) {
	if s == nil || len(s.Spec.Selector) == 0 {
		delete(o.services[key.Namespace], key.Name)
		if len(o.services[key.Namespace]) == 0 {
			delete(o.services, key.Namespace)
		}
		return
	}
	if o.services[key.Namespace] == nil {
		o.services[key.Namespace] = map[string]labels.Selector{}
	}
	o.services[key.Namespace][key.Name] = labels.SelectorFromSet(s.Spec.Selector)
}

// defaultSpread selects the pods that one is spread against: those that all its
// services and its replica set select. Nil when it has none.
func (s *Scheduler) defaultSpread(p *corev1.Pod) labels.Selector {
	if len(p.Spec.TopologySpreadConstraints) > 0 {
		return nil
	}
	var all []labels.Requirement
	add := func(selector labels.Selector) {
		requirements, _ := selector.Requirements()
		for _, r := range requirements {
			if !slices.ContainsFunc(all, r.Equal) {
				all = append(all, r)
			}
		}
	}
	for _, selector := range s.owners.services[p.Namespace] {
		if selector.Matches(labels.Set(p.Labels)) {
			add(selector)
		}
	}
	if owner := metav1.GetControllerOf(p); owner != nil && owner.Kind == "ReplicaSet" {
		if selector := s.replicaSet(p.Namespace, owner); selector != nil {
			add(selector)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return labels.NewSelector().Add(all...)
}

func (s *Scheduler) replicaSet(namespace string, owner *metav1.OwnerReference) labels.Selector {
	known := s.owners.replicaSets
	if selector, ok := known[owner.UID]; ok {
		return selector
	}
	rs, ok := s.view.Get(s.replicaSets, api.Key{Namespace: namespace, Name: owner.Name}).(*appsv1.ReplicaSet)
	if !ok || rs.UID != owner.UID {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		return nil
	}
	if len(known) >= replicaSetsKept {
		clear(known)
	}
	known[owner.UID] = selector
	return selector
}
