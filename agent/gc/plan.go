// Package gc decides which images leave the node: those that nobody has used
// for too long, and, when the disk is full, those unused for the longest; and
// which ended containers, when there are too many.
//
// It is pure: what there is comes in as values ("Garbage collection of unused
// containers and images").
package gc

import (
	"cmp"
	"slices"
	"time"

	"hansa.dev/hansa/agent/evict"
)

// Image is an image on the node.
type Image struct {
	ID   string
	Size int64
	// Pinned images stay whatever happens.
	Pinned bool
	// Used says that a container is made of it.
	Used bool
}

// Policy is when images go.
type Policy struct {
	// Min is how long an image stays at least; Max, if not 0, how long one does
	// that is not used.
	Min, Max time.Duration
	// High and Low are percent of the disk in use: above the one images are
	// removed until the other is reached. At 100 none are.
	High, Low int
}

// Memory is since when images are here, and when they were last used. The zero
// Memory has seen none.
type Memory struct {
	began time.Time
	seen  map[string]*record
}

type record struct{ first, used time.Time }

// Look notes what there is at now.
func (m *Memory) Look(images []Image, now time.Time) {
	if m.began.IsZero() {
		m.began, m.seen = now, map[string]*record{}
	}
	left := map[string]*record{}
	for _, i := range images {
		r := m.seen[i.ID]
		if r == nil {
			r = &record{first: now}
		}
		if i.Used {
			r.used = now
		}
		left[i.ID] = r
	}
	m.seen = left
}

// Old are the images to remove because nobody has used them for Max. How long
// they were unused before the agent began is not known, so none goes earlier
// than Max after that.
func (m *Memory) Old(images []Image, p Policy, now time.Time) []Image {
	if p.Max == 0 || now.Sub(m.began) <= p.Max {
		return nil
	}
	return slices.DeleteFunc(m.unused(images, p, now), func(i Image) bool {
		r := m.seen[i.ID]
		last := r.used
		if last.IsZero() {
			last = r.first
		}
		return now.Sub(last) <= p.Max
	})
}

// Missing is how many bytes have to be removed from a disk, by the policy.
func (p Policy) Missing(disk evict.Observation) int64 {
	if p.High >= 100 || disk.Capacity <= 0 {
		return 0
	}
	if 100-int(disk.Available*100/disk.Capacity) < p.High {
		return 0
	}
	return max(disk.Capacity*int64(100-p.Low)/100-disk.Available, 0)
}

// Free are the images to remove to get so many bytes, those unused for the
// longest first.
func (m *Memory) Free(images []Image, p Policy, bytes int64, now time.Time) []Image {
	var out []Image
	for _, i := range m.unused(images, p, now) {
		if bytes <= 0 {
			break
		}
		bytes -= i.Size
		out = append(out, i)
	}
	return out
}

// unused are the images that may go, in the order in which they do.
func (m *Memory) unused(images []Image, p Policy, now time.Time) []Image {
	out := slices.DeleteFunc(slices.Clone(images), func(i Image) bool {
		r := m.seen[i.ID]
		return i.Pinned || i.Used || r == nil || now.Sub(r.first) < p.Min
	})
	slices.SortStableFunc(out, func(a, b Image) int {
		x, y := m.seen[a.ID], m.seen[b.ID]
		return cmp.Or(x.used.Compare(y.used), x.first.Compare(y.first), cmp.Compare(a.ID, b.ID))
	})
	return out
}
