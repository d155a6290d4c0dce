package pod

import (
	corev1 "k8s.io/api/core/v1"
)

// QOS is the quality of service that a pod's resources amount to, whatever its
// status says. Only cpu and memory count, and amounts of zero count as absent:
//
//   - Guaranteed: everything limited, and requested up to the limit;
//   - BestEffort: nothing requested, nothing limited;
//   - Burstable: all others.
//
// Resources of the pod as a whole, where stated, replace those of its
// containers. Ephemeral containers have none.
func QOS(p *corev1.Pod) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	guaranteed := true
	if r := p.Spec.Resources; r != nil && statesPodLevel(r) {
		addCompute(requests, r.Requests)
		if addCompute(limits, r.Limits); len(r.Limits) > 0 {
			guaranteed = len(limits) == 2
		}
	} else {
		for _, ctrs := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range ctrs {
				addCompute(requests, ctrs[i].Resources.Requests)
				own := corev1.ResourceList{}
				addCompute(own, ctrs[i].Resources.Limits)
				guaranteed = guaranteed && len(own) == 2
				sum(limits, own)
			}
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	guaranteed = guaranteed && len(requests) == len(limits)
	for name, q := range requests {
		limit, ok := limits[name]
		guaranteed = guaranteed && ok && limit.Cmp(q) == 0
	}
	if guaranteed {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// statesPodLevel says whether r names a resource that a pod may state as a whole.
func statesPodLevel(r *corev1.ResourceRequirements) bool {
	for _, list := range []corev1.ResourceList{r.Requests, r.Limits} {
		for name := range list {
			if isPodLevelResource(name) {
				return true
			}
		}
	}
	return false
}

// addCompute adds the cpu and memory of list, if more than zero, to total.
func addCompute(total, list corev1.ResourceList) {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q, ok := list[name]; ok && q.Sign() > 0 {
			sum(total, corev1.ResourceList{name: q})
		}
	}
}
