package agent

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
)

// podsChanged asks for new weights of the classes' cgroups, and for another try
// of resizes that did not fit.
func (a *Agent) podsChanged() {
	select {
	case a.weights <- struct{}{}:
	default:
	}
}

// keepWeights gives the classes of pods their share of the cpu: burstable pods
// together what they request, best-effort ones the least there is, all pods
// what the node has for them.
func (a *Agent) keepWeights(ctx context.Context) error {
	last := map[string]cgroup.Limits{}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.weights:
		}
		for group, l := range a.classLimits() {
			if last[group] == l {
				continue
			}
			if err := a.Groups.Ensure(group, l); err != nil {
				a.Log.Warn("cpu weight of a class of pods not set", "group", group, "err", err)
				continue
			}
			last[group] = l
		}
		a.workersMu.RLock()
		for _, w := range a.workers {
			w.Reconsider()
		}
		a.workersMu.RUnlock()
	}
}

func (a *Agent) classLimits() map[string]cgroup.Limits {
	var burstable int64
	for _, p := range a.pods() {
		if !pod.Terminal(p) && pod.QOS(p) == v1.PodQOSBurstable {
			requests := resource.PodRequests(p, resource.PodResourcesOptions{})
			burstable += requests.Cpu().MilliValue()
		}
	}
	allocatable := a.node.Allocatable()
	return map[string]cgroup.Limits{
		cgroup.PodsGroup:                     {CPUShares: cgroup.Shares(allocatable.Cpu().MilliValue())},
		cgroup.QOSGroup(v1.PodQOSBurstable):  {CPUShares: cgroup.Shares(burstable)},
		cgroup.QOSGroup(v1.PodQOSBestEffort): {CPUShares: cgroup.Shares(0)},
	}
}
