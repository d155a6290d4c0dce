package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// roundUp brings quantities to the finest unit that the API keeps, a thousandth.
func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(resource.Milli)
		list[name] = q
	}
}

// defaultRequestsFromLimits: what a container limits and does not request, it
// requests up to the limit.
func defaultRequestsFromLimits(containers []corev1.Container) {
	for i := range containers {
		r := &containers[i].Resources
		if r.Limits == nil {
			continue
		}
		if r.Requests == nil {
			r.Requests = make(corev1.ResourceList, len(r.Limits))
		}
		for name, limit := range r.Limits {
			if _, ok := r.Requests[name]; !ok {
				r.Requests[name] = limit.DeepCopy()
			}
		}
	}
}

// defaultPodHugePageLimits: a pod that states resources as a whole limits its
// huge pages to what its containers together may use. Nothing is added for a
// page size that the pod requests explicitly.
func defaultPodHugePageLimits(spec *corev1.PodSpec) {
	r := spec.Resources
	if r == nil || len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	for name, q := range effectiveResources(spec, limitsOf) {
		_, requested := r.Requests[name]
		_, limited := r.Limits[name]
		if !isHugePage(name) || requested || limited {
			continue
		}
		if r.Limits == nil {
			r.Limits = corev1.ResourceList{}
		}
		r.Limits[name] = q.DeepCopy()
	}
}

// defaultPodRequests: a pod that has limits as a whole requests what its
// containers request together, or else its limit.
func defaultPodRequests(spec *corev1.PodSpec) {
	r := spec.Resources
	if r == nil || len(r.Limits) == 0 {
		return
	}
	requests := corev1.ResourceList{}
	for name, q := range effectiveResources(spec, requestsOf) {
		if isPodLevelResource(name) && overcommitAllowed(name) {
			requests[name] = q.DeepCopy()
		}
	}
	for name, limit := range r.Limits {
		if _, ok := requests[name]; !ok && isPodLevelResource(name) {
			requests[name] = limit.DeepCopy()
		}
	}
	for name, q := range r.Requests {
		requests[name] = q
	}
	if len(requests) > 0 {
		r.Requests = requests
	}
}

func requestsOf(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests }
func limitsOf(c *corev1.Container) corev1.ResourceList   { return c.Resources.Limits }

// effectiveResources is what the containers of a pod use at most at one time:
// the regular ones and the sidecars together, or, while starting, one init
// container beside the sidecars started before it, whichever is more.
func effectiveResources(spec *corev1.PodSpec, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	running, sidecars, starting := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range spec.Containers {
		sum(running, of(&spec.Containers[i]))
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if isSidecar(c) {
			sum(running, of(c))
			sum(sidecars, of(c))
			maximum(starting, sidecars)
			continue
		}
		now := sidecars.DeepCopy()
		sum(now, of(c))
		maximum(starting, now)
	}
	maximum(running, starting)
	return running
}

func sum(total, list corev1.ResourceList) {
	for name, q := range list {
		t := total[name].DeepCopy()
		t.Add(q)
		total[name] = t
	}
}

func maximum(total, list corev1.ResourceList) {
	for name, q := range list {
		if t, ok := total[name]; !ok || q.Cmp(t) > 0 {
			total[name] = q.DeepCopy()
		}
	}
}

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// isPodLevelResource says which resources a pod may state as a whole.
func isPodLevelResource(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || isHugePage(name)
}

// overcommitAllowed says whether a request may be below the limit.
func overcommitAllowed(name corev1.ResourceName) bool {
	return IsNativeResource(name) && !isHugePage(name)
}

// IsNativeResource: names without a domain, and those of kubernetes.io.
func IsNativeResource(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}
