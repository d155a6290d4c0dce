package work

import (
	"maps"
	"math"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
)

// containerResources are a container's requests and limits in the kernel's
// units.
func (n *Node) containerResources(p *v1.Pod, c *v1.Container) *cri.LinuxContainerResources {
	capacity := n.Capacity()
	cpu := c.Resources.Requests.Cpu()
	if _, ok := c.Resources.Requests[v1.ResourceCPU]; !ok {
		cpu = c.Resources.Limits.Cpu() // a limit alone is the request, too
	}
	out := &cri.LinuxContainerResources{
		CpuShares:          int64(cgroup.Shares(cpu.MilliValue())),
		MemoryLimitInBytes: limit(p, c, v1.ResourceMemory).Value(),
		OomScoreAdj:        oomScore(p, c, capacity.Memory().Value()),
		Unified:            n.Groups.Inside(cgroup.PodGroup(pod.QOS(p), string(p.UID))),
	}
	quota, period := n.Rules.CPU.Quota(limit(p, c, v1.ResourceCPU).MilliValue())
	out.CpuQuota, out.CpuPeriod = quota, int64(period)
	out.HugepageLimits = hugePages(capacity, c.Resources.Limits)
	if n.OneProcessOOM {
		delete(out.Unified, "memory.oom.group")
	}
	if out.Unified != nil {
		maps.Copy(out.Unified, n.memoryQoS(p, c))
	}
	return out
}

// hugePages limits pages of each size that the machine has: to nothing, if the
// container does not ask for them.
func hugePages(capacity, limits v1.ResourceList) []*cri.HugepageLimit {
	own := cgroup.HugePages(limits)
	for size := range cgroup.HugePages(capacity) {
		own[size] += 0
	}
	var out []*cri.HugepageLimit
	for _, size := range slices.Sorted(maps.Keys(own)) {
		out = append(out, &cri.HugepageLimit{PageSize: size, Limit: uint64(own[size])})
	}
	return out
}

// page is what memory.high is a multiple of.
const page = 4096

// memoryQoS are the files by which a container's memory is protected and
// throttled on version 2 ("Memory QoS"): what it requests is kept, if the node
// reserves it, and it is slowed down on its way from there to its limit, or to
// what the node has, if the node has a factor for that.
func (n *Node) memoryQoS(p *v1.Pod, c *v1.Container) map[string]string {
	if !n.MemoryQoS {
		return nil
	}
	request, own := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	var min, low int64
	if n.Rules.Reserve {
		min, low = cgroup.Reservation(pod.QOS(p), request)
	}
	out := map[string]string{"memory.min": strconv.FormatInt(min, 10), "memory.low": strconv.FormatInt(low, 10)}
	podLimits := p.Spec.Resources != nil && !p.Spec.Resources.Limits.Memory().IsZero()
	if n.MemoryThrottling == 0 || own == 0 && podLimits || request == own && request != 0 {
		return out
	}
	top := own
	if top == 0 {
		allocatable := n.Allocatable()
		top = allocatable.Memory().Value()
	}
	high := int64((float64(request)+float64(top-request)*n.MemoryThrottling)/page) * page
	if high > request {
		out["memory.high"] = strconv.FormatInt(high, 10)
	}
	return out
}

// limit is a container's own limit, or the pod's where it has none.
func limit(p *v1.Pod, c *v1.Container, name v1.ResourceName) *apiresource.Quantity {
	q := c.Resources.Limits[name]
	if q.IsZero() && p.Spec.Resources != nil {
		q = p.Spec.Resources.Limits[name]
	}
	return &q
}

// OOM scores: what the kernel kills first when memory is short ("Node
// out-of-memory behavior").
const (
	guaranteedScore = -997
	bestEffortScore = 1000
)

func oomScore(p *v1.Pod, c *v1.Container, memoryCapacity int64) int64 {
	if p.Spec.Priority != nil && *p.Spec.Priority >= pod.NodeCritical {
		return guaranteedScore
	}
	switch pod.QOS(p) {
	case v1.PodQOSGuaranteed:
		return guaranteedScore
	case v1.PodQOSBestEffort:
		return bestEffortScore
	}
	if memoryCapacity <= 0 {
		return bestEffortScore - 1
	}
	request := c.Resources.Requests.Memory().Value()
	if pod.IsSidecar(c) {
		// It lives as long as those that it helps.
		request = max(request, leastRequest(p))
	}
	score := 1000 - 1000*(request+unshared(p))/memoryCapacity
	return min(max(score, 1000+guaranteedScore), bestEffortScore-1)
}

// leastRequest is the memory that the most modest regular container requests.
func leastRequest(p *v1.Pod) int64 {
	least := int64(math.MaxInt64)
	for i := range p.Spec.Containers {
		least = min(least, p.Spec.Containers[i].Resources.Requests.Memory().Value())
	}
	return least
}

// unshared is each container's part of the memory that the pod requests beyond
// what its containers do.
func unshared(p *v1.Pod) int64 {
	if p.Spec.Resources == nil {
		return 0
	}
	whole, ok := p.Spec.Resources.Requests[v1.ResourceMemory]
	if !ok {
		return 0
	}
	parts := resource.PodRequests(p, resource.PodResourcesOptions{SkipPodLevelResources: true, ExcludeOverhead: true})
	sharers := int64(len(p.Spec.Containers))
	for i := range p.Spec.InitContainers {
		if pod.IsSidecar(&p.Spec.InitContainers[i]) {
			sharers++
		}
	}
	return max(whole.Value()-parts.Memory().Value(), 0) / sharers
}

func (n *Node) sandboxResources(p *v1.Pod) *cri.LinuxContainerResources {
	requests := resource.PodRequests(p, resource.PodResourcesOptions{ExcludeOverhead: true})
	limits := resource.PodLimits(p, resource.PodResourcesOptions{ExcludeOverhead: true})
	out := &cri.LinuxContainerResources{
		CpuShares:          int64(cgroup.Shares(requests.Cpu().MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	quota, period := n.Rules.CPU.Quota(limits.Cpu().MilliValue())
	out.CpuQuota, out.CpuPeriod = quota, int64(period)
	return out
}

// overhead is what the runtime itself needs for a pod, by its class.
func overhead(p *v1.Pod) *cri.LinuxContainerResources {
	out := &cri.LinuxContainerResources{}
	if q, ok := p.Spec.Overhead[v1.ResourceCPU]; ok {
		out.CpuShares = int64(cgroup.Shares(q.MilliValue()))
	}
	if q, ok := p.Spec.Overhead[v1.ResourceMemory]; ok {
		out.MemoryLimitInBytes = q.Value()
	}
	return out
}
