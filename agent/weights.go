package agent

import (
	"context"
	"fmt"
	"reflect"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/client/events"
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
			if reflect.DeepEqual(last[group], l) {
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
	kept := map[v1.PodQOSClass]int64{}
	for _, p := range a.pods() {
		if pod.Terminal(p) {
			continue
		}
		requests := pod.Requests(p)
		kept[pod.QOS(p)] += requests.Memory().Value()
		if pod.QOS(p) == v1.PodQOSBurstable {
			burstable += requests.Cpu().MilliValue()
		}
	}
	all, middle := a.podsLimits(), cgroup.Limits{CPUShares: cgroup.Shares(burstable)}
	if a.node.Rules.Reserve {
		// A group's protection counts no more than its parents'.
		all.MemoryMin, all.MemoryLow = orNone(kept[v1.PodQOSGuaranteed]+kept[v1.PodQOSBurstable]), orNone(kept[v1.PodQOSBurstable])
		middle.MemoryLow = all.MemoryLow
	}
	return map[string]cgroup.Limits{
		cgroup.PodsGroup:                     all,
		cgroup.QOSGroup(v1.PodQOSBurstable):  middle,
		cgroup.QOSGroup(v1.PodQOSBestEffort): {CPUShares: cgroup.Shares(0)},
	}
}

// orNone takes a protection away rather than leave it as it was.
func orNone(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// podsLimits is what all pods together may use: what is not reserved, or all
// there is where that is not enforced ("Reserve Compute Resources for System
// Daemons"). What has to stay free for eviction is not taken off.
func (a *Agent) podsLimits() cgroup.Limits {
	list := a.node.Capacity().DeepCopy()
	if limit, _, err := a.Host.PIDs(); err == nil {
		list[settings.PIDs] = *apiresource.NewQuantity(limit, apiresource.DecimalSI)
	}
	if a.Settings.EnforcesPods() {
		for name, q := range a.Settings.Reserved {
			if left, ok := list[name]; ok {
				left.Sub(q)
				list[name] = left
			}
		}
	}
	return limitsOf(list)
}

// limitsOf is a list of resources as a group's limits.
func limitsOf(list v1.ResourceList) cgroup.Limits {
	var l cgroup.Limits
	if q, ok := list[v1.ResourceCPU]; ok {
		l.CPUShares = cgroup.Shares(q.MilliValue())
	}
	if q, ok := list[v1.ResourceMemory]; ok {
		l.Memory = q.Value()
	}
	if q, ok := list[settings.PIDs]; ok {
		l.Pids = q.Value()
	}
	if huge := cgroup.HugePages(list); len(huge) > 0 {
		l.HugePages = huge
	}
	return l
}

// enforceOthers limits the groups of others to what is reserved for them. A node that
// cannot does not start, as the kubelet does not.
func (a *Agent) enforceOthers() error {
	for _, e := range a.Settings.Enforces() {
		l := limitsOf(e.Reserved)
		if a.Settings.MemoryQoS {
			l.MemoryMin = l.Memory
		}
		if err := a.Groups.SetOther(e.Group, l); err != nil {
			return fmt.Errorf("%s, for %s of enforceNodeAllocatable: %w", e.Setting, e.Level, err)
		}
		a.nodeEvent(events.Normal, "NodeAllocatableEnforced", "Updated limits on reserved cgroup "+e.Group)
	}
	return nil
}
