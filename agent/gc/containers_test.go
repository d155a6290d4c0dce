package gc_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hansa.dev/hansa/agent/gc"
)

// "Configuring container garbage collection", MaxContainers: each container
// keeps as many, the oldest of all go when one each is too much.
func TestMaximumDeadContainers(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)
	runs := func(text string) (out []gc.Run) { // CONTAINER:AGE in seconds
		for _, f := range strings.Fields(text) {
			of, age, _ := strings.Cut(f, ":")
			d, _ := time.ParseDuration(age + "s")
			out = append(out, gc.Run{ID: f, Of: of, Created: now.Add(-d)})
		}
		return out
	}
	for _, c := range []struct {
		runs   string
		most   int
		minAge time.Duration
		gone   string
	}{
		{"a:1 a:2 b:3", -1, 0, ""},
		{"a:1 a:2 b:3", 3, 0, ""},
		{"a:1 a:2 b:3", 2, 0, "a:2"},
		{"a:1 a:2 a:3 a:4 b:5 b:6", 4, 0, "a:3 a:4"},
		{"a:1 a:2 b:9 c:5", 1, 0, "a:2 b:9 c:5"},
		{"a:1 b:2 c:3", 2, 0, "c:3"},
		{"a:1 b:2", 0, 0, "a:1 b:2"},
		{"a:10 a:20 b:30", 0, 15 * time.Second, "a:20 b:30"},
		{"a:10 a:20 b:30", 2, 15 * time.Second, ""},
	} {
		got := gc.Excess(runs(c.runs), c.most, c.minAge, now)
		slices.Sort(got)
		if strings.Join(got, " ") != c.gone {
			t.Errorf("%q, at most %d, younger than %v stay: %v go, want %q", c.runs, c.most, c.minAge, got, c.gone)
		}
	}
}

// Not more go than have to, beyond what fairness costs; never one twice; of one
// container the older before the newer.
func TestMaximumDeadContainersProperties(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var runs []gc.Run
		for i := range rapid.IntRange(0, 30).Draw(t, "runs") {
			runs = append(runs, gc.Run{ID: fmt.Sprint(i), Of: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "of"),
				Created: now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "age")) * time.Second)})
		}
		most := rapid.IntRange(-1, 35).Draw(t, "most")
		gone := map[string]bool{}
		for _, id := range gc.Excess(runs, most, 0, now) {
			if gone[id] {
				t.Fatalf("%s goes twice", id)
			}
			gone[id] = true
		}
		if left := len(runs) - len(gone); most >= 0 && left > most {
			t.Fatalf("%d stay of at most %d", left, most)
		}
		if (most < 0 || len(runs) <= most) && len(gone) > 0 {
			t.Fatalf("%d go of %d, at most %d", len(gone), len(runs), most)
		}
		for _, a := range runs {
			for _, b := range runs {
				if a.Of == b.Of && a.Created.After(b.Created) && gone[a.ID] && !gone[b.ID] {
					t.Fatalf("%v goes before %v", a, b)
				}
			}
		}
	})
}
