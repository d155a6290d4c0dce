package gc_test

import (
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

// Images go in the order in which they were last used, but not those in use,
// pinned, or younger than the minimum age.
func TestImageOrder(t *testing.T) {
	var m gc.Memory
	used := func(on bool) []gc.Image {
		return []gc.Image{{ID: "late", Size: 10, Used: on}, {ID: "never", Size: 10}, {ID: "pinned", Size: 10, Pinned: true}, {ID: "busy", Size: 10, Used: true}}
	}
	m.Look(used(true), start)
	now := start.Add(3 * time.Minute)
	images := append(used(false), gc.Image{ID: "new", Size: 10})
	m.Look(images, now)
	p := gc.Policy{Min: 2 * time.Minute}
	if got := ids(m.Free(images, p, 1<<60, now)); got != "never late" {
		t.Errorf("all: %s", got)
	}
	if got := ids(m.Free(images, p, 1, now)); got != "never" {
		t.Errorf("a little: %s", got)
	}
	if got := ids(m.Free(images, p, 0, now)); got != "" {
		t.Errorf("nothing: %s", got)
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
