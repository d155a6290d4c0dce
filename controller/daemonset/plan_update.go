package daemonset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// surges says whether an update may have two pods on a node.
func surges(ds *appsv1.DaemonSet) bool { return surge(ds, 1) > 0 }

// surge is on how many of a number of nodes.
func surge(ds *appsv1.DaemonSet, nodes int) int {
	if r := ds.Spec.UpdateStrategy.RollingUpdate; ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType && r != nil {
		return share(r.MaxSurge, nodes)
	}
	return 0
}

// unavailable is how many of a number of nodes an update may leave without an
// available pod.
func unavailable(ds *appsv1.DaemonSet, nodes int) int {
	n := 0
	if r := ds.Spec.UpdateStrategy.RollingUpdate; r != nil {
		n = share(r.MaxUnavailable, nodes)
	}
	if n == 0 && surge(ds, nodes) == 0 {
		return 1 // the API refuses a set of which both are zero
	}
	return n
}

func share(v *intstr.IntOrString, of int) int {
	if v == nil {
		return 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, of, true)
	if err != nil {
		return 0 // the API refuses it
	}
	return n
}

// update replaces pods of other revisions, as far as the strategy lets it now.
// Every node that should have a pod has one by now, or had one that is ending.
func (s snapshot) update(d *decision) {
	desired := 0
	nodes := map[string]bool{}
	for _, n := range s.nodes {
		if s.needs.on(n).run {
			desired++
			nodes[n.Name] = true
		}
	}
	for name := range s.pods {
		nodes[name] = true
	}
	names := slices.Sorted(maps.Keys(nodes))
	if surges(s.ds) {
		s.updateSurging(d, names, desired)
	} else {
		s.updateInPlace(d, names, desired)
	}
}

// pair finds the pods of the present and of another revision on a node. Without
// ok there are several of one, which are being seen to.
func (s snapshot) pair(node string) (current, old *corev1.Pod, ok bool) {
	for _, p := range staying(s.pods[node]) {
		switch updated := s.updated(p); {
		case updated && current == nil:
			current = p
		case !updated && old == nil:
			old = p
		default:
			return nil, nil, false
		}
	}
	return current, old, true
}

// updateInPlace deletes old pods, for which new ones are made when they are gone:
// those that are not available anyway, and of the others as many as may be
// unavailable besides. A node whose pod is ending counts as unavailable.
func (s snapshot) updateInPlace(d *decision, nodes []string, desired int) {
	missing := 0
	var candidates []*corev1.Pod
	for _, name := range nodes {
		current, old, ok := s.pair(name)
		switch {
		case !ok || (current == nil) == (old == nil):
			missing++
		case current != nil:
			if !s.available(current) {
				missing++
			}
		case !s.available(old):
			missing++
			d.remove = append(d.remove, old)
		default:
			candidates = append(candidates, old)
		}
	}
	room := max(0, unavailable(s.ds, desired)-missing)
	d.remove = append(d.remove, candidates[:min(room, len(candidates))]...)
}

// updateSurging makes new pods beside old ones: wherever the old one is not
// available, and beside as many others as may have two pods at once. An old pod
// goes when the new one is available. One on a node that should not have it any
// more goes when enough others are available.
func (s snapshot) updateSurging(d *decision, nodes []string, desired int) {
	surging, available := 0, 0
	var candidates []string
	var leaving []*corev1.Pod
	for _, name := range nodes {
		current, old, ok := s.pair(name)
		if !ok {
			surging++
			continue
		}
		if old != nil && s.available(old) || old == nil && current != nil && s.available(current) {
			available++
		}
		switch runs := s.needs.on(s.byName[name]).run; {
		case old == nil:
		case current != nil && s.available(current):
			d.remove = append(d.remove, old)
		case current != nil:
			surging++
		case !runs && s.available(old):
			leaving = append(leaving, old)
		case !runs:
			d.remove = append(d.remove, old)
		case s.available(old):
			candidates = append(candidates, name)
		default:
			d.create = append(d.create, name)
		}
	}
	spare := max(0, available-desired)
	d.remove = append(d.remove, leaving[:min(spare, len(leaving))]...)
	room := max(0, surge(s.ds, desired)-surging)
	d.create = append(d.create, candidates[:min(room, len(candidates))]...)
}
