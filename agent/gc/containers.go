package gc

import (
	"cmp"
	"slices"
	"time"
)

// Run is an ended run of a container that may be removed.
type Run struct {
	ID string
	// Of is the container, of one pod.
	Of      string
	Created time.Time
}

// Excess are the runs that go so that not more than most stay on the node;
// negative is no bound. Of each container the same number stays, but one at
// least, the newest; if those are still too many, the oldest of all go
// ("Configuring container garbage collection", MaxContainers). Those younger
// than minAge neither count nor go.
func Excess(runs []Run, most int, minAge time.Duration, now time.Time) (gone []string) {
	runs = slices.DeleteFunc(slices.Clone(runs), func(r Run) bool { return r.Created.Add(minAge).After(now) })
	if most < 0 || len(runs) <= most {
		return nil
	}
	slices.SortFunc(runs, func(a, b Run) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	containers, seen := map[string]bool{}, map[string]int{}
	for _, r := range runs {
		containers[r.Of] = true
	}
	each := max(most/len(containers), 1)
	var left []Run
	for _, r := range runs {
		if seen[r.Of]++; seen[r.Of] > each {
			gone = append(gone, r.ID)
		} else {
			left = append(left, r)
		}
	}
	for _, r := range left[min(most, len(left)):] {
		gone = append(gone, r.ID)
	}
	return gone
}
