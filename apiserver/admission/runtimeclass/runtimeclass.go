// Package runtimeclass gives pods what their runtime class says: the overhead
// of the runtime, and on which nodes it is. A pod cannot name a class that is
// not there, nor say an overhead of its own.
package runtimeclass

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Plugin is both a mutator and a validator.
type Plugin struct {
	view          View
	pods, classes *api.Resource
}

// New is the plugin over a view.
func New(reg *api.Registry, view View) *Plugin {
	return &Plugin{view: view, pods: reg.Must("", "pods"), classes: reg.Must(nodev1.GroupName, "runtimeclasses")}
}

// Admit implements admission.Mutator.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	pod, class, err := p.objects(a)
	if err != nil || class == nil {
		return err
	}
	if class.Overhead != nil {
		fixed := class.Overhead.DeepCopy().PodFixed
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(fixed, pod.Spec.Overhead) {
			return mismatch(a)
		}
		pod.Spec.Overhead = fixed
	}
	if class.Scheduling != nil {
		return place(a, pod, class.Scheduling.DeepCopy())
	}
	return nil
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	pod, class, err := p.objects(a)
	switch {
	case err != nil || pod == nil:
		return err
	case class == nil || class.Overhead == nil:
		if pod.Spec.Overhead != nil {
			return refusal.Forbidden(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
		}
	case !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead):
		return mismatch(a)
	}
	return nil
}

func mismatch(a *admission.Attributes) error {
	return refusal.Forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
}

// objects are the pod that is created and its class, nil where there is none.
func (p *Plugin) objects(a *admission.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	if a.Resource != p.pods || a.Subresource != "" || a.Operation != admission.Create {
		return nil, nil, nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	name := *pod.Spec.RuntimeClassName
	class, _ := p.view.Get(p.classes, api.Key{Name: name}).(*nodev1.RuntimeClass)
	if class == nil {
		return nil, nil, refusal.Forbidden(a, "pod rejected: RuntimeClass %q not found", name)
	}
	return pod, class, nil
}

// place narrows the pod to the nodes that have the runtime. s is the pod's own.
func place(a *admission.Attributes, pod *corev1.Pod, s *nodev1.Scheduling) error {
	for key, value := range s.NodeSelector {
		if own, ok := pod.Spec.NodeSelector[key]; ok && own != value {
			return refusal.Forbidden(a, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, value, key, own)
		}
	}
	if pod.Spec.NodeSelector == nil {
		pod.Spec.NodeSelector = s.NodeSelector
	} else {
		for key, value := range s.NodeSelector {
			pod.Spec.NodeSelector[key] = value
		}
	}
	pod.Spec.Tolerations = merge(slices.Concat(pod.Spec.Tolerations, s.Tolerations))
	return nil
}

// merge leaves out what another toleration covers; of equal ones the first stays.
func merge(all []corev1.Toleration) []corev1.Toleration {
	var merged []corev1.Toleration
	for i, t := range all {
		redundant := slices.ContainsFunc(merged, func(other corev1.Toleration) bool { return covers(&other, &t) }) ||
			slices.ContainsFunc(all[i+1:], func(other corev1.Toleration) bool {
				return !equality.Semantic.DeepEqual(other, t) && covers(&other, &t)
			})
		if !redundant {
			merged = append(merged, t)
		}
	}
	return merged
}

// covers says whether what t tolerates is tolerated by wide as well.
func covers(wide, t *corev1.Toleration) bool {
	anyKey := wide.Key == "" && wide.Operator == corev1.TolerationOpExists
	switch {
	case equality.Semantic.DeepEqual(wide, t):
		return true
	case t.Key != wide.Key && !anyKey, wide.Effect != "" && t.Effect != wide.Effect:
		return false
	}
	if most := wide.TolerationSeconds; wide.Effect == corev1.TaintEffectNoExecute && most != nil && (t.TolerationSeconds == nil || *t.TolerationSeconds > *most) {
		return false
	}
	switch wide.Operator {
	case corev1.TolerationOpEqual, "":
		return t.Operator == corev1.TolerationOpEqual && t.Value == wide.Value
	}
	return wide.Operator == corev1.TolerationOpExists
}
