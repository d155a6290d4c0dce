package pod

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateResize says what is wrong with a change of the cpu and memory of a
// pod while it runs. p must differ from old in resources and resize policies
// only (PrepareResize sees to it).
func ValidateResize(p, old *corev1.Pod) field.ErrorList {
	switch {
	case hasMirrorAnnotation(&old.ObjectMeta):
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	case old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows:
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	c := updateChecker(old)
	c.podMetadataAndSpec(p)
	at := field.NewPath("spec")
	class := old.Status.QOSClass
	if class == "" {
		class = QOS(old)
	}
	if class != QOS(p) {
		c.invalid(at, p.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	if !nodeCanResize(&old.Status) {
		c.forbidden(at, "Pod running on node without support for resize")
	}
	rest := p.Spec.DeepCopy()
	c.podLevelResize(at, rest, &old.Spec)
	if len(old.Status.NodeAllocatableResourceClaimStatuses) > 0 {
		c.forbidden(at, "pods with node allocatable resource claims cannot be resized")
	}
	if !c.sameOrder(at, "containers", p.Spec.Containers, old.Spec.Containers) ||
		!c.sameOrder(at, "initContainers", p.Spec.InitContainers, old.Spec.InitContainers) {
		return c.errs
	}
	c.containersResize(at, rest, &old.Spec)
	c.initContainersResize(at, rest, &old.Spec)
	if len(c.errs) == 0 && !apiequality.Semantic.DeepEqual(*rest, old.Spec) {
		c.forbidden(at, "only cpu and memory resources are mutable")
	}
	return c.errs
}

// nodeCanResize: a node that can reports the resources that a running container
// has. Before anything runs we cannot know, and assume that it can.
func nodeCanResize(s *corev1.PodStatus) bool {
	for i := range s.ContainerStatuses {
		if s.ContainerStatuses[i].State.Running != nil {
			return s.ContainerStatuses[i].Resources != nil
		}
	}
	return true
}

func (c *checker) sameOrder(at *field.Path, list string, ctrs, old []corev1.Container) bool {
	p := at.Child(list)
	if len(ctrs) != len(old) {
		c.forbidden(p, list+" may not be added or removed on resize")
		return false
	}
	same := true
	for i := range old {
		if ctrs[i].Name != old[i].Name {
			c.forbidden(p.Index(i).Child("name"), list+" may not be renamed or reordered on resize")
			same = false
		}
	}
	return same
}

// podLevelResize checks the resources of the pod as a whole, and sets what may
// change back in rest.
func (c *checker) podLevelResize(at *field.Path, rest, old *corev1.PodSpec) {
	stated := func(s *corev1.PodSpec) bool {
		return s.Resources != nil && len(s.Resources.Requests)+len(s.Resources.Limits) > 0
	}
	if !stated(rest) && !stated(old) {
		return
	}
	p := at.Child("resources")
	if old.Resources != nil {
		if rest.Resources == nil {
			c.forbidden(p, "pod-level resources cannot be removed")
			return
		}
		if removes(rest.Resources.Requests, old.Resources.Requests) {
			c.forbidden(p.Child("requests"), "pod-level resource requests cannot be removed")
		}
		if removes(rest.Resources.Limits, old.Resources.Limits) {
			c.forbidden(p.Child("limits"), "pod-level resource limits cannot be removed")
		}
	}
	was := deref(old.Resources)
	rest.Resources.Requests = takeCompute(rest.Resources.Requests, was.Requests)
	rest.Resources.Limits = takeCompute(rest.Resources.Limits, was.Limits)
	if r := rest.Resources; old.Resources == nil && len(r.Requests)+len(r.Limits)+len(r.Claims) == 0 {
		rest.Resources = nil
	}
	if !apiequality.Semantic.DeepEqual(rest.Resources, old.Resources) {
		c.forbidden(at, "only cpu and memory resources are mutable at pod-level")
	}
}

func (c *checker) containersResize(at *field.Path, rest, old *corev1.PodSpec) {
	for i := range old.Containers {
		ctr, was := &rest.Containers[i], &old.Containers[i]
		c.nothingRemoved(at.Child("containers").Index(i).Child("resources"), ctr, was)
		takeContainerCompute(ctr, was)
		if !apiequality.Semantic.DeepEqual(*ctr, *was) {
			c.forbidden(at, "only cpu and memory resources are mutable")
		}
	}
}

// initContainersResize: an init container that ends cannot be restarted for its
// new resources.
func (c *checker) initContainersResize(at *field.Path, rest, old *corev1.PodSpec) {
	for i := range old.InitContainers {
		ctr, was := &rest.InitContainers[i], &old.InitContainers[i]
		p := at.Child("initContainers").Index(i)
		changed := !apiequality.Semantic.DeepEqual(*ctr, *was)
		c.nothingRemoved(p.Child("resources"), ctr, was)
		takeContainerCompute(ctr, was)
		if !apiequality.Semantic.DeepEqual(*ctr, *was) {
			c.forbidden(p, "only cpu and memory resources for init or sidecar containers are mutable")
		}
		for _, policy := range ctr.ResizePolicy {
			if changed && !isSidecar(ctr) && policy.RestartPolicy == corev1.RestartContainer {
				c.forbidden(p, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized")
			}
		}
	}
}

func (c *checker) nothingRemoved(at *field.Path, ctr, old *corev1.Container) {
	if removes(ctr.Resources.Requests, old.Resources.Requests) {
		c.forbidden(at.Child("requests"), "resource requests cannot be removed")
	}
	if removes(ctr.Resources.Limits, old.Resources.Limits) {
		c.forbidden(at.Child("limits"), "resource limits cannot be removed")
	}
}

func removes(list, old corev1.ResourceList) bool {
	for name := range old {
		if _, ok := list[name]; !ok {
			return true
		}
	}
	return false
}

func takeContainerCompute(to, from *corev1.Container) {
	to.Resources = corev1.ResourceRequirements{
		Limits:   takeCompute(to.Resources.Limits, from.Resources.Limits),
		Requests: takeCompute(to.Resources.Requests, from.Resources.Requests),
		Claims:   to.Resources.Claims,
	}
}

// takeCompute is to with the cpu and memory of from.
func takeCompute(to, from corev1.ResourceList) corev1.ResourceList {
	if to == nil && from == nil {
		return nil
	}
	result := maps.Clone(to)
	if result == nil {
		result = corev1.ResourceList{}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		delete(result, name)
		if q, ok := from[name]; ok {
			result[name] = q
		}
	}
	return result
}
