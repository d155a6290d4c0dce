package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
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

// defaultPodResources completes what a pod states of its resources as a whole by
// what its containers use together; a pod that states nothing is left alone. The
// limits of huge pages come first, since they become requests, and the other
// limits last, since they cover the requests.
func defaultPodResources(spec *corev1.PodSpec) {
	r := spec.Resources
	if r == nil || len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	limits := effectiveResources(spec, limitsOf)
	defaultPodHugePageLimits(r, limits)
	defaultPodRequests(r, effectiveResources(spec, requestsOf))
	defaultPodLimits(r, limits, spec)
}

// defaultPodHugePageLimits adds nothing for a page size that the pod requests
// explicitly.
func defaultPodHugePageLimits(r *corev1.ResourceRequirements, together corev1.ResourceList) {
	for name, q := range together {
		if _, requested := r.Requests[name]; isHugePage(name) && !requested {
			setIfAbsent(&r.Limits, name, q)
		}
	}
}

// defaultPodRequests: a pod requests what its containers request together, or
// else its limit.
func defaultPodRequests(r *corev1.ResourceRequirements, together corev1.ResourceList) {
	for name, q := range together {
		if isPodLevelResource(name) && overcommitAllowed(name) {
			setIfAbsent(&r.Requests, name, q)
		}
	}
	for name, limit := range r.Limits {
		if isPodLevelResource(name) {
			setIfAbsent(&r.Requests, name, limit)
		}
	}
}

// defaultPodLimits: a pod is limited in what it requests and each of its
// containers is limited in, to what they may use together; never below its
// request.
func defaultPodLimits(r *corev1.ResourceRequirements, together corev1.ResourceList, spec *corev1.PodSpec) {
	for name, request := range r.Requests {
		limit, ok := together[name]
		if !ok || !isPodLevelResource(name) || !allLimit(spec, name) {
			continue
		}
		if request.Cmp(limit) > 0 {
			limit = request
		}
		setIfAbsent(&r.Limits, name, limit)
	}
}

// allLimit says whether every container has a limit of the resource. Ephemeral
// ones have none.
func allLimit(spec *corev1.PodSpec, name corev1.ResourceName) bool {
	all := true
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) {
		if _, ok := c.Resources.Limits[name]; !ok {
			all = false
		}
	})
	return all
}

func setIfAbsent(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	if _, ok := (*list)[name]; !ok {
		(*list)[name] = q.DeepCopy()
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
