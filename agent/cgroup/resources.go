package cgroup

import (
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"
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

// Quota is the bandwidth in µs per Period for a limit in thousandths of a core;
// 0 for no limit.
func Quota(milli int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(milli*Period/1000, minQuota)
}

// PodsGroup is the group of all pods, below the base.
const PodsGroup = "pods"

// QOSGroup is the group of a quality of service class.
func QOSGroup(qos v1.PodQOSClass) string {
	return path.Join(PodsGroup, strings.ToLower(string(qos)))
}

// PodGroup is the group of one pod.
func PodGroup(qos v1.PodQOSClass, uid string) string { return path.Join(QOSGroup(qos), uid) }

// PodLimits is what a pod as a whole may use: the sum of its containers'
// limits, where every container has one; its weight is the sum of requests.
func PodLimits(p *v1.Pod, pids int64) Limits {
	requests := resource.PodRequests(p, resource.PodResourcesOptions{})
	limits := resource.PodLimits(p, resource.PodResourcesOptions{})
	l := Limits{CPUShares: Shares(requests.Cpu().MilliValue()), Pids: pids}
	cpu, memory := everyContainerLimits(p)
	if cpu {
		l.CPUQuota, l.CPUPeriod = Quota(limits.Cpu().MilliValue()), Period
	}
	if memory {
		l.Memory = limits.Memory().Value()
	}
	return l
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
