package work

import (
	"math"
	"strings"

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
	if quota := cgroup.Quota(limit(p, c, v1.ResourceCPU).MilliValue()); quota > 0 {
		out.CpuQuota, out.CpuPeriod = quota, cgroup.Period
	}
	for name, q := range c.Resources.Limits {
		if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
			out.HugepageLimits = append(out.HugepageLimits, &cri.HugepageLimit{PageSize: pageSize(size), Limit: uint64(q.Value())})
		}
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

// pageSize is the kernel's name of a page size: 2Mi is 2MB.
func pageSize(size string) string {
	q, err := apiresource.ParseQuantity(size)
	if err != nil {
		return size
	}
	q.Format = apiresource.BinarySI
	return strings.Replace(q.String(), "i", "", 1) + "B"
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

func sandboxResources(p *v1.Pod) *cri.LinuxContainerResources {
	requests := resource.PodRequests(p, resource.PodResourcesOptions{ExcludeOverhead: true})
	limits := resource.PodLimits(p, resource.PodResourcesOptions{ExcludeOverhead: true})
	out := &cri.LinuxContainerResources{
		CpuShares:          int64(cgroup.Shares(requests.Cpu().MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if quota := cgroup.Quota(limits.Cpu().MilliValue()); quota > 0 {
		out.CpuQuota, out.CpuPeriod = quota, cgroup.Period
	}
	return out
}
