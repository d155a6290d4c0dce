package rollback

import (
	"cmp"
	"encoding/json"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
	"hansa.dev/hansa/internal/podstate"
	revisions "hansa.dev/hansa/internal/revision"
)

// StatefulSets and DaemonSets keep their revisions as ControllerRevisions, and
// have no field that pauses them: update strategy OnDelete is their pause.

// NewStatefulSets makes the loop of StatefulSets.
func NewStatefulSets(c client.Interface, recorder events.Recorder) *Loop {
	l := newRevised(c, recorder, "statefulsets", "StatefulSet")
	l.look = func(w api.Object, s *snapshot) (map[*revision]api.Object, error) {
		set := w.(*appsv1.StatefulSet)
		s.observed = set.Status.ObservedGeneration >= set.Generation
		s.suspended = set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
		s.minReady = time.Duration(set.Spec.MinReadySeconds) * time.Second
		replicas := ptr.Deref(set.Spec.Replicas, 1)
		s.desired = replicas
		if r := set.Spec.UpdateStrategy.RollingUpdate; r != nil {
			s.desired = max(0, replicas-ptr.Deref(r.Partition, 0))
		}
		o := revisions.Owner{Object: set, Kind: l.kind, Template: &set.Spec.Template, HashLabel: revisions.HashLabel, Default: pod.DefaultTemplate}
		return l.revisions(o, s, replicas, func(r *appsv1.ControllerRevision) string { return r.Name })
	}
	l.undo = undoRevision(func(w api.Object) *corev1.PodTemplateSpec { return &w.(*appsv1.StatefulSet).Spec.Template })
	onDelete := appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
	l.suspend, l.resume = pause(onDelete,
		func(w api.Object) *appsv1.StatefulSetUpdateStrategy {
			return &w.(*appsv1.StatefulSet).Spec.UpdateStrategy
		},
		func(s *appsv1.StatefulSetUpdateStrategy) bool { return s.Type == onDelete.Type })
	l.conditionOf, l.setCondition = conditions(
		func(w api.Object) *[]appsv1.StatefulSetCondition { return &w.(*appsv1.StatefulSet).Status.Conditions },
		func(c appsv1.StatefulSetCondition) (appsv1.StatefulSetConditionType, condition) {
			return c.Type, condition{c.Status, c.Reason, c.Message, c.LastTransitionTime.Time}
		},
		func(c condition) appsv1.StatefulSetCondition {
			return appsv1.StatefulSetCondition{Type: onfailure.ConditionType, Status: c.status, Reason: c.reason, Message: c.message, LastTransitionTime: metav1.NewTime(c.since)}
		})
	return l
}

// NewDaemonSets makes the loop of DaemonSets.
func NewDaemonSets(c client.Interface, recorder events.Recorder) *Loop {
	l := newRevised(c, recorder, "daemonsets", "DaemonSet")
	l.look = func(w api.Object, s *snapshot) (map[*revision]api.Object, error) {
		set := w.(*appsv1.DaemonSet)
		s.observed = set.Status.ObservedGeneration >= set.Generation
		s.suspended = set.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType
		s.minReady = time.Duration(set.Spec.MinReadySeconds) * time.Second
		s.desired = set.Status.DesiredNumberScheduled
		o := revisions.Owner{Object: set, Kind: l.kind, Template: &set.Spec.Template, HashLabel: revisions.PodHashLabel, Default: pod.DefaultTemplate}
		return l.revisions(o, s, s.desired, func(r *appsv1.ControllerRevision) string {
			return cmp.Or(r.Labels[revisions.PodHashLabel], r.Name)
		})
	}
	l.undo = undoRevision(func(w api.Object) *corev1.PodTemplateSpec { return &w.(*appsv1.DaemonSet).Spec.Template })
	onDelete := appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
	l.suspend, l.resume = pause(onDelete,
		func(w api.Object) *appsv1.DaemonSetUpdateStrategy { return &w.(*appsv1.DaemonSet).Spec.UpdateStrategy },
		func(s *appsv1.DaemonSetUpdateStrategy) bool { return s.Type == onDelete.Type })
	l.conditionOf, l.setCondition = conditions(
		func(w api.Object) *[]appsv1.DaemonSetCondition { return &w.(*appsv1.DaemonSet).Status.Conditions },
		func(c appsv1.DaemonSetCondition) (appsv1.DaemonSetConditionType, condition) {
			return c.Type, condition{c.Status, c.Reason, c.Message, c.LastTransitionTime.Time}
		},
		func(c condition) appsv1.DaemonSetCondition {
			return appsv1.DaemonSetCondition{Type: onfailure.ConditionType, Status: c.status, Reason: c.reason, Message: c.message, LastTransitionTime: metav1.NewTime(c.since)}
		})
	return l
}

// newRevised makes what the two have in common.
func newRevised(c client.Interface, recorder events.Recorder, plural, kind string) *Loop {
	r := c.Registry()
	l := &Loop{client: c, events: recorder, workloads: r.Must("apps", plural), carriers: r.Must("apps", "controllerrevisions"), pods: r.Must("", "pods")}
	l.kind, l.pausesFirst = appsv1.SchemeGroupVersion.WithKind(kind), true
	l.ownersOfPod = func(old, new api.Object) []api.Key {
		return controller.KeysOfOwners(old, new, kind, func(api.Object) []api.Key { return nil })
	}
	return l
}

func numberOfRevision(r *appsv1.ControllerRevision) int64 { return r.Revision }

// revisions fills in an owner's revisions and their pods, which are labelled with
// what labelOf says. Where pods are replaced by hand those that were count.
func (l *Loop) revisions(o revisions.Owner, s *snapshot, all int32, labelOf func(*appsv1.ControllerRevision) string) (map[*revision]api.Object, error) {
	view := l.client.View()
	history := controller.OwnRevisions(view, l.carriers, o.Object)
	asked, last, err := revisions.Asked(o, history)
	if err != nil {
		return nil, err
	}
	pods := map[string][]*corev1.Pod{}
	for p := range view.ByIndex(l.pods, api.IndexOwner, string(o.Object.GetUID())) {
		label := p.GetLabels()[revisions.PodHashLabel]
		pods[label] = append(pods[label], p.(*corev1.Pod))
	}
	good, _ := onfailure.LastGood(history, numberOfRevision)
	carriers := map[*revision]api.Object{}
	for _, cr := range history {
		r := revisionOf(cr, cr.Revision)
		r.pods, carriers[r] = pods[labelOf(cr)], cr
		switch {
		case cr != asked:
			s.old = append(s.old, r)
			if cr == good {
				s.lastGood = r
			}
		case last || r.failed != nil: // else it is about to get a new number
			s.asked = r
		}
	}
	if s.suspended && s.asked != nil {
		s.desired = 0
		for _, p := range s.asked.pods {
			if podstate.Active(p) {
				s.desired++
			}
		}
	}
	s.whole = s.desired == all
	return carriers, nil
}

// undoRevision puts the template of a ControllerRevision back to where a workload
// has its own.
func undoRevision(template func(w api.Object) *corev1.PodTemplateSpec) func(w, carrier api.Object) error {
	return func(w, carrier api.Object) error {
		t, err := revisions.Template(carrier.(*appsv1.ControllerRevision))
		if err == nil {
			*template(w) = *t
		}
		return err
	}
}

// pause replaces a workload's strategy by that which replaces no pods, and takes
// that back.
func pause[T any](onDelete T, strategy func(w api.Object) *T, paused func(*T) bool) (suspend, resume func(w api.Object)) {
	suspend = func(w api.Object) {
		noteStrategy(w, strategy(w))
		*strategy(w) = onDelete
	}
	resume = func(w api.Object) {
		if paused(strategy(w)) {
			notedStrategy(w, strategy(w))
		}
	}
	return suspend, resume
}

// noteStrategy keeps what a pause takes away.
func noteStrategy(w api.Object, strategy any) {
	b, err := json.Marshal(strategy)
	if err != nil {
		panic(err) // not possible: it came as JSON
	}
	annotations := w.GetAnnotations()
	annotations[onfailure.StrategyMark] = string(b)
	w.SetAnnotations(annotations)
}

// notedStrategy brings it back, if there is any.
func notedStrategy[T any](w api.Object, strategy *T) {
	var was T
	if text := w.GetAnnotations()[onfailure.StrategyMark]; text != "" && json.Unmarshal([]byte(text), &was) == nil {
		*strategy = was
	}
}
