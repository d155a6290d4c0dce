package core

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"
)

// Budget is a disruption budget as far as preemption goes by it: best effort,
// since priorities matter more (documentation: "PodDisruptionBudget is supported,
// but not guaranteed").
type Budget struct {
	Namespace string
	Selector  labels.Selector
	Allowed   int32           // how many of its pods may go
	Counted   map[string]bool // pods that are counted as gone already, by name
}

// beyond tells which of some pods, were all of them to go, a budget could not
// spare; those that come first are spared first.
func beyond(pods []*Pod, budgets []Budget) map[*Pod]bool {
	if len(budgets) == 0 {
		return nil
	}
	left := make([]int32, len(budgets))
	for i, b := range budgets {
		left[i] = b.Allowed
	}
	out := map[*Pod]bool{}
	for _, p := range pods {
		if len(p.Object.Labels) == 0 {
			continue
		}
		for i, b := range budgets {
			if b.Namespace != p.Object.Namespace || b.Selector.Empty() || !b.Selector.Matches(labels.Set(p.Object.Labels)) || b.Counted[p.Object.Name] {
				continue
			}
			if left[i]--; left[i] < 0 {
				out[p] = true
			}
		}
	}
	return out
}

// guardedFirst orders pods of decreasing importance such that those beyond a
// budget come first: they are the first that may stay.
func guardedFirst(pods []*Pod, beyond map[*Pod]bool) {
	slices.SortStableFunc(pods, func(a, b *Pod) int {
		switch {
		case beyond[a] == beyond[b]:
			return 0
		case beyond[a]:
			return -1
		}
		return 1
	})
}
