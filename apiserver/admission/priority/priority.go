// Package priority resolves the priority class that a pod names, or the
// cluster's default class, into the pod's priority and preemption policy.
package priority

import (
	"context"
	"iter"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Plugin is both a mutator and a validator.
type Plugin struct {
	view          View
	pods, classes *api.Resource
}

// New is the plugin over a view.
func New(reg *api.Registry, view View) *Plugin {
	return &Plugin{view: view, pods: reg.Must("", "pods"), classes: reg.Must(schedulingv1.GroupName, "priorityclasses")}
}

// Admit implements admission.Mutator.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != p.pods || a.Subresource != "" {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	switch a.Operation {
	case admission.Create:
		return p.resolve(a, pod)
	case admission.Update:
		// Who replaces a pod need not repeat what was filled in; a change is
		// for validation to refuse.
		old := a.Old.(*corev1.Pod)
		if pod.Spec.Priority == nil {
			pod.Spec.Priority = old.Spec.Priority
		}
		if pod.Spec.PreemptionPolicy == nil {
			pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
		}
	}
	return nil
}

func (p *Plugin) resolve(a *admission.Attributes, pod *corev1.Pod) error {
	var value int32
	policy := ptr.To(corev1.PreemptLowerPriority)
	class := p.defaultClass()
	if name := pod.Spec.PriorityClassName; name != "" {
		class, _ = p.view.Get(p.classes, api.Key{Name: name}).(*schedulingv1.PriorityClass)
		if class == nil {
			return refusal.Forbidden(a, "no PriorityClass with name %v was found", name)
		}
	}
	if class != nil {
		pod.Spec.PriorityClassName = class.Name
		value, policy = class.Value, class.PreemptionPolicy
	}
	if given := pod.Spec.Priority; given != nil && *given != value {
		return refusal.Forbidden(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *given, value)
	}
	pod.Spec.Priority = &value
	if policy == nil {
		return nil
	}
	if given := pod.Spec.PreemptionPolicy; given != nil && *given != *policy {
		return refusal.Forbidden(a, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *given, *policy)
	}
	pod.Spec.PreemptionPolicy = ptr.To(*policy)
	return nil
}

// Validate implements admission.Validator: there is one default class at most.
func (p *Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Resource != p.classes || a.Subresource != "" {
		return nil
	}
	class, ok := a.Object.(*schedulingv1.PriorityClass)
	if !ok || !class.GlobalDefault {
		return nil
	}
	other := p.defaultClass()
	if other == nil || a.Operation == admission.Update && other.Name == class.Name {
		return nil
	}
	return refusal.Forbidden(a, "PriorityClass %v is already marked as default. Only one default can exist", other.Name)
}

// defaultClass is the one for pods that name none: of several, which only a
// race can make, the lowest.
func (p *Plugin) defaultClass() *schedulingv1.PriorityClass {
	var lowest *schedulingv1.PriorityClass
	for obj := range p.view.List(p.classes, "") {
		class := obj.(*schedulingv1.PriorityClass)
		if class.GlobalDefault && (lowest == nil || class.Value < lowest.Value) {
			lowest = class
		}
	}
	return lowest
}
