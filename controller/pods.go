package controller

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/podstate"
)

// PodFromTemplate is a new pod that owner controls; it shares nothing with the
// template.
func PodFromTemplate(t *corev1.PodTemplateSpec, owner api.Object, gvk schema.GroupVersionKind) *corev1.Pod {
	prefix := owner.GetName() + "-"
	if len(validation.NameIsDNSSubdomain(prefix, true)) > 0 {
		prefix = owner.GetName()
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			GenerateName:    prefix,
			Labels:          map[string]string{},
			Annotations:     map[string]string{},
			Finalizers:      append([]string(nil), t.Finalizers...),
			OwnerReferences: []metav1.OwnerReference{*OwnerRef(owner, gvk)},
		},
		Spec: *t.Spec.DeepCopy(),
	}
	for k, v := range t.Labels {
		p.Labels[k] = v
	}
	for k, v := range t.Annotations {
		p.Annotations[k] = v
	}
	return p
}

// KeysOfOwners answers which owners of a kind a change to a dependant concerns:
// its controller before and after, or, when it has none, those that orphan says
// might adopt it.
func KeysOfOwners(old, new api.Object, kind string, orphan func(api.Object) []api.Key) []api.Key {
	var keys []api.Key
	if old != nil {
		if ref := metav1.GetControllerOfNoCopy(old); ref != nil && ref.Kind == kind {
			keys = append(keys, api.Key{Namespace: old.GetNamespace(), Name: ref.Name})
		}
	}
	if new == nil {
		return keys
	}
	if ref := metav1.GetControllerOfNoCopy(new); ref != nil {
		if key := (api.Key{Namespace: new.GetNamespace(), Name: ref.Name}); ref.Kind == kind && (len(keys) == 0 || keys[0] != key) {
			keys = append(keys, key)
		}
		return keys
	}
	return append(keys, orphan(new)...)
}

// KeysThatSelect are the owners in the object's namespace whose selector
// matches its labels.
func KeysThatSelect(view client.View, owners *api.Resource, obj api.Object, selectorOf func(api.Object) *metav1.LabelSelector) []api.Key {
	var keys []api.Key
	for o := range view.List(owners, obj.GetNamespace()) {
		s, err := metav1.LabelSelectorAsSelector(selectorOf(o))
		if err != nil || s.Empty() || !s.Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
	}
	return keys
}

// First compares two objects of which those that have a property come first.
func First(a, b bool) int {
	switch {
	case a && !b:
		return -1
	case b && !a:
		return 1
	}
	return 0
}

// ReadySince is since when a pod has been ready, or zero when it is not.
func ReadySince(p *corev1.Pod) time.Time {
	if c := podstate.Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// MoreRestarts compares two pods of which the one whose containers were restarted
// more often comes first; of sidecars only if the others do not tell them apart.
func MoreRestarts(a, b *corev1.Pod) int {
	mainA, sidecarA := restarts(a)
	mainB, sidecarB := restarts(b)
	return cmp.Or(cmp.Compare(mainB, mainA), cmp.Compare(sidecarB, sidecarA))
}

// restarts is how often the container and the sidecar that were restarted most
// were.
func restarts(p *corev1.Pod) (main, sidecar int32) {
	for _, c := range p.Status.ContainerStatuses {
		main = max(main, c.RestartCount)
	}
	for _, s := range p.Status.InitContainerStatuses {
		for _, c := range p.Spec.InitContainers {
			if c.Name == s.Name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				sidecar = max(sidecar, s.RestartCount)
			}
		}
	}
	return main, sidecar
}
