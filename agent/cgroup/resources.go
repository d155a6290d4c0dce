package cgroup

import (
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"

	"hansa.dev/hansa/agent/pod"
)

// Conversions of the API's quantities, as the documentation of resource
// management gives them.
const (
	// Period is the cpu bandwidth period in µs.
	Period = 100_000
	// minShares is the weight of who asks for nothing.
	minShares = 2
	maxShares = 262144
	// minQuota is the smallest bandwidth the kernel takes, in µs.
	minQuota = 1000
)

// Shares is the cpu weight for a request in thousandths of a core.
func Shares(milli int64) uint64 {
	if milli <= 0 {
		return minShares
	}
	return uint64(min(max(milli*1024/1000, minShares), maxShares))
}

// CPU is how limits of cpu are enforced. The zero value is Kubernetes' default.
type CPU struct {
	Unlimited bool   // limits are for the scheduler only
	Period    uint64 // µs; 0 is Period
}

// Quota is the bandwidth in µs per period (in µs, too) for a limit in
// thousandths of a core; 0 for no limit.
func (c CPU) Quota(milli int64) (quota int64, period uint64) {
	if milli <= 0 || c.Unlimited {
		return 0, 0
	}
	period = c.Period
	if period == 0 {
		period = Period
	}
	return max(milli*int64(period)/1000, minQuota), period
}

// Groups below the base: of the runtime with its shims, and of all pods.
const (
	SystemGroup = "system"
	PodsGroup   = "pods"
)

// QOSGroup is the group of a quality of service class.
func QOSGroup(qos v1.PodQOSClass) string {
	return path.Join(PodsGroup, strings.ToLower(string(qos)))
}

// PodGroup is the group of one pod.
func PodGroup(qos v1.PodQOSClass, uid string) string { return path.Join(QOSGroup(qos), uid) }

// Rules are those by which the node limits its pods. The zero value is
// Kubernetes' default.
type Rules struct {
	CPU  CPU
	Pids int64 // of each pod; 0 for no bound
	// Reserve protects what pods request of memory from reclaim
	// (memoryReservationPolicy TieredReservation).
	Reserve bool
}

// PodLimits is what a pod as a whole may use: the sum of its containers'
// limits, where every container has one, and the overhead; its weight is the sum
// of requests.
func PodLimits(p *v1.Pod, rules Rules) Limits {
	requests := resource.PodRequests(p, resource.PodResourcesOptions{})
	limits := resource.PodLimits(p, resource.PodResourcesOptions{})
	l := Limits{CPUShares: Shares(requests.Cpu().MilliValue()), Pids: rules.Pids, HugePages: HugePages(requests)}
	cpu, memory := everyContainerLimits(p)
	if cpu {
		l.CPUQuota, l.CPUPeriod = rules.CPU.Quota(limits.Cpu().MilliValue())
	}
	if memory {
		l.Memory = limits.Memory().Value()
	}
	if rules.Reserve {
		l.MemoryMin, l.MemoryLow = Reservation(pod.QOS(p), requests.Memory().Value())
	}
	return l
}

// Reservation is how memory that is requested is kept from reclaim: for certain
// in guaranteed pods, as long as there is other memory in burstable ones
// ("Memory QoS").
func Reservation(qos v1.PodQOSClass, requested int64) (min, low int64) {
	switch {
	case requested <= 0:
		return 0, 0
	case qos == v1.PodQOSGuaranteed:
		return requested, 0
	}
	return 0, requested
}

// HugePages are the bytes of huge pages in a list, by the kernel's name of their
// size. It is never nil.
func HugePages(list v1.ResourceList) map[string]int64 {
	out := map[string]int64{}
	for name, q := range list {
		if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
			out[PageSize(size)] += q.Value()
		}
	}
	return out
}

// PageSize is the kernel's name of a page size: 2Mi is 2MB.
func PageSize(size string) string {
	q, err := apiresource.ParseQuantity(size)
	if err != nil {
		return size
	}
	q.Format = apiresource.BinarySI
	return strings.Replace(q.String(), "i", "", 1) + "B"
}

// everyContainerLimits says whether cpu and memory of the pod are bounded.
func everyContainerLimits(p *v1.Pod) (cpu, memory bool) {
	if r := p.Spec.Resources; r != nil {
		cpu, memory = !r.Limits.Cpu().IsZero(), !r.Limits.Memory().IsZero()
		if cpu && memory {
			return cpu, memory
		}
	}
	allCPU, allMemory := true, true
	for c := range pod.Containers(&p.Spec) {
		allCPU = allCPU && !c.Resources.Limits.Cpu().IsZero()
		allMemory = allMemory && !c.Resources.Limits.Memory().IsZero()
	}
	return cpu || allCPU, memory || allMemory
}
