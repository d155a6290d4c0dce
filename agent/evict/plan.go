package evict

import (
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Observation is how much there is of a signal, and how much of it is left.
type Observation struct{ Available, Capacity int64 }

// Observations are those of one moment. A signal that is not in it was not
// observed, and counts for nothing.
type Observations map[Signal]Observation

// State is what is remembered between observations. The zero State remembers
// nothing.
type State struct {
	// since is when a threshold was first found passed, without a pause.
	since map[Threshold]time.Time
	// seen is when a condition was last called for.
	seen map[v1.NodeConditionType]time.Time
	// due are the thresholds that pods were to be evicted for: they hold until
	// the minimum reclaim is free, too.
	due []Threshold
}

// Finding is what follows of an observation.
type Finding struct {
	// Conditions are those that hold: called for now, or less than the
	// transition period ago.
	Conditions []v1.NodeConditionType
	// Due are the thresholds that have been passed for their grace period,
	// memory first.
	Due []Threshold
}

// Observe takes what is observed at now.
func (s *State) Observe(thresholds []Threshold, o Observations, transition time.Duration, now time.Time) Finding {
	met := passed(thresholds, o, false)
	for _, t := range passed(s.due, o, true) {
		if !slices.Contains(met, t) {
			met = append(met, t)
		}
	}
	since := map[Threshold]time.Time{}
	seen := maps.Clone(s.seen)
	if seen == nil {
		seen = map[v1.NodeConditionType]time.Time{}
	}
	var f Finding
	for _, t := range met {
		first, ok := s.since[t]
		if !ok || now.Before(first) { // a clock that was set back begins anew
			first = now
		}
		since[t], seen[t.Signal.Condition()] = first, now
		if now.Sub(first) >= t.Grace {
			f.Due = append(f.Due, t)
		}
	}
	for _, c := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		at, ok := seen[c]
		switch {
		case !ok:
		case now.Sub(at) < transition || now.Equal(at):
			f.Conditions = append(f.Conditions, c)
		default:
			delete(seen, c)
		}
	}
	slices.SortStableFunc(f.Due, func(a, b Threshold) int { return rank(a) - rank(b) })
	s.since, s.seen, s.due = since, seen, f.Due
	return f
}

// rank puts memory first, for its shortage ends in the kernel's killing.
func rank(t Threshold) int {
	if t.Signal.Resource() == v1.ResourceMemory {
		return 0
	}
	return 1
}

// passed are the thresholds below which there is less left; with reclaim, than
// is to be free again.
func passed(thresholds []Threshold, o Observations, reclaim bool) []Threshold {
	var out []Threshold
	for _, t := range thresholds {
		is, ok := o[t.Signal]
		if !ok {
			continue
		}
		min := t.Min.of(is.Capacity)
		if reclaim {
			min += t.Reclaim.of(is.Capacity)
		}
		if is.Available < min {
			out = append(out, t)
		}
	}
	return out
}

// Relieved says that no threshold is passed, minimum reclaim included: so that
// nobody has to be evicted after something else was taken back.
func Relieved(thresholds []Threshold, o Observations) bool {
	return len(passed(thresholds, o, true)) == 0
}

// WithAllocatable adds, for each hard threshold of memory, the same below the
// limit of all pods together, where that is enforced.
func WithAllocatable(thresholds []Threshold) []Threshold {
	out := slices.Clone(thresholds)
	for _, t := range thresholds {
		if t.Signal == Memory && t.Hard() {
			t.Signal = Allocatable
			out = append(out, t)
		}
	}
	return out
}

// Reserved is what has to stay free of memory and local storage by the hard
// thresholds, where there is so much in all; pods cannot ask for it.
func Reserved(thresholds []Threshold, capacity v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for _, t := range thresholds {
		if !t.Hard() || t.Signal != Memory && t.Signal != NodeFS {
			continue
		}
		have, ok := capacity[t.Signal.Resource()]
		if ok {
			out[t.Signal.Resource()] = *t.Signal.quantity(t.Min.of(have.Value()))
		}
	}
	return out
}
