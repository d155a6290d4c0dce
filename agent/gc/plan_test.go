package gc_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hansa.dev/hansa/agent/evict"
	"hansa.dev/hansa/agent/gc"
)

var start = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func ids(images []gc.Image) string {
	var out []string
	for _, i := range images {
		out = append(out, i.ID)
	}
	return strings.Join(out, " ")
}

// "Garbage collection", "Container image lifecycle": the thresholds are of the
// disk in use.
func TestImageThresholds(t *testing.T) {
	p := gc.Policy{High: 85, Low: 80}
	for _, c := range []struct{ available, want int64 }{{1000, 0}, {160, 0}, {159, 41}, {150, 50}, {100, 100}, {0, 200}} {
		if got := p.Missing(evict.Observation{Available: c.available, Capacity: 1000}); got != c.want {
			t.Errorf("%d free: %d to remove, want %d", c.available, got, c.want)
		}
	}
	if got := (gc.Policy{High: 100, Low: 80}).Missing(evict.Observation{Capacity: 1000}); got != 0 {
		t.Errorf("switched off: %d", got)
	}
}

// Images go in the order in which they were last used, those never used first, and
// no more than are needed.
func TestImageOrder(t *testing.T) {
	var m gc.Memory
	of := func(used ...string) (out []gc.Image) {
		for _, id := range []string{"late", "never", "early"} {
			out = append(out, gc.Image{ID: id, Size: 10, Used: slices.Contains(used, id)})
		}
		return out
	}
	m.Look(of("early", "late"), start)
	m.Look(of("late"), start.Add(time.Minute))
	now := start.Add(3 * time.Minute)
	m.Look(of(), now)
	for bytes, want := range map[int64]string{1 << 60: "never early late", 11: "never early", 10: "never", 1: "never", 0: ""} {
		if got := ids(m.Free(of(), gc.Policy{}, bytes, now)); got != want {
			t.Errorf("for %d bytes: %s, want %s", bytes, got, want)
		}
	}
}

// Images in use stay, by either way of collection, however long ago they came.
func TestImageInUse(t *testing.T) {
	stays(t, gc.Image{ID: "busy", Used: true})
}

// Pinned images stay: those of the runtime, and imported ones, which nobody could
// pull again.
func TestImagePinned(t *testing.T) {
	stays(t, gc.Image{ID: "imported", Pinned: true})
}

// stays says that an image is never collected where a like one is.
func stays(t *testing.T, i gc.Image) {
	t.Helper()
	var m gc.Memory
	images := []gc.Image{i, {ID: "other"}}
	now := start
	for range 2 {
		m.Look(images, now)
		now = now.Add(48 * time.Hour)
	}
	p := gc.Policy{Min: time.Minute, Max: time.Hour}
	if free, old := ids(m.Free(images, p, 1<<60, now)), ids(m.Old(images, p, now)); free != "other" || old != "other" {
		t.Errorf("for room %q, for age %q", free, old)
	}
}

// imageMinimumGCAge: an image that was seen later stays until it is as old, for it
// may be about to be used; the age is reckoned from when it was seen first.
func TestImageMinimumAge(t *testing.T) {
	var m gc.Memory
	p := gc.Policy{Min: 2 * time.Minute}
	old, young := gc.Image{ID: "old", Size: 1}, gc.Image{ID: "young", Size: 1}
	m.Look([]gc.Image{old}, start)
	images := []gc.Image{old, young}
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{time.Minute, ""}, {2*time.Minute - 1, ""}, {2 * time.Minute, "old"}, {3*time.Minute - 1, "old"}, {3 * time.Minute, "old young"}} {
		now := start.Add(c.after)
		m.Look(images, now)
		if got := ids(m.Free(images, p, 1<<60, now)); got != c.want {
			t.Errorf("after %v: %q, want %q", c.after, got, c.want)
		}
	}
	// One that went and came again is young.
	m.Look([]gc.Image{old}, start.Add(4*time.Minute))
	now := start.Add(5 * time.Minute)
	m.Look(images, now)
	if got := ids(m.Free(images, p, 1<<60, now)); got != "old" {
		t.Errorf("after it came again: %q", got)
	}
}

// imageMaximumGCAge: what nobody has used for so long goes, but not right after
// the agent began, which does not know what was used before.
func TestImageMaximumAge(t *testing.T) {
	var m gc.Memory
	images := []gc.Image{{ID: "a"}, {ID: "b", Used: true}}
	m.Look(images, start)
	p := gc.Policy{Max: time.Hour}
	if got := ids(m.Old(images, p, start.Add(time.Hour))); got != "" {
		t.Errorf("after an hour: %s", got)
	}
	later := start.Add(time.Hour + time.Second)
	m.Look(images, later)
	if got := ids(m.Old(images, p, later)); got != "a" {
		t.Errorf("after more: %s", got)
	}
	images[1].Used = false
	if got := ids(m.Old(images, p, later.Add(time.Hour))); got != "a" {
		t.Errorf("b was used an hour ago: %s", got)
	}
	if got := ids(m.Old(images, gc.Policy{}, later)); got != "" {
		t.Errorf("no maximum: %s", got)
	}
}

// Nothing is removed that is used, pinned or young, and nothing more than needed.
func TestImageProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m gc.Memory
		now := start
		images := make([]gc.Image, rapid.IntRange(0, 8).Draw(t, "images"))
		born := map[string]time.Time{}
		for range rapid.IntRange(1, 5).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "seconds")) * time.Second)
			for i := range images {
				images[i] = gc.Image{ID: string(rune('a' + i)), Size: rapid.Int64Range(0, 100).Draw(t, "size"), Pinned: i%3 == 2, Used: rapid.Bool().Draw(t, "used")}
				if _, ok := born[images[i].ID]; !ok {
					born[images[i].ID] = now
				}
			}
			m.Look(images, now)
		}
		p := gc.Policy{Min: 2 * time.Minute}
		need := rapid.Int64Range(0, 300).Draw(t, "need")
		var freed int64
		for _, i := range m.Free(images, p, need, now) {
			if i.Used || i.Pinned || now.Sub(born[i.ID]) < p.Min {
				t.Fatalf("%+v removed", i)
			}
			if freed >= need {
				t.Fatalf("%+v removed, %d of %d were free", i, freed, need)
			}
			freed += i.Size
		}
	})
}
