package work

import (
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
func containerResources(p *v1.Pod, c *v1.Container, memoryCapacity int64) *cri.LinuxContainerResources {
	requests, limits := c.Resources.Requests, c.Resources.Limits
	cpu := requests.Cpu()
	if _, ok := requests[v1.ResourceCPU]; !ok {
		cpu = limits.Cpu() // a limit alone is the request, too
	}
	out := &cri.LinuxContainerResources{
		CpuShares:          int64(cgroup.Shares(cpu.MilliValue())),
		MemoryLimitInBytes: limits.Memory().Value(),
		OomScoreAdj:        oomScore(p, c, memoryCapacity),
	}
	if quota := cgroup.Quota(limits.Cpu().MilliValue()); quota > 0 {
		out.CpuQuota, out.CpuPeriod = quota, cgroup.Period
	}
	for name, q := range limits {
		if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
			out.HugepageLimits = append(out.HugepageLimits, &cri.HugepageLimit{PageSize: pageSize(size), Limit: uint64(q.Value())})
		}
	}
	return out
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
	if p.Spec.Priority != nil && *p.Spec.Priority >= nodeCritical {
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
	score := 1000 - 1000*c.Resources.Requests.Memory().Value()/memoryCapacity
	return min(max(score, 1000+guaranteedScore), bestEffortScore-1)
}

// nodeCritical is the priority of system-node-critical.
const nodeCritical = 2000001000

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
