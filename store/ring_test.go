package store

import (
	"testing"

	"k8s.io/apimachinery/pkg/watch"
)

// Only the newest records keep their encodings; an older one is encoded again
// for who asks, and all that is kept is counted.
func TestRingEncodings(t *testing.T) {
	tab := &table{}
	tab.recent.init()
	const each, more = 100, 10
	ask := func(r *record) (again bool) {
		_, err := r.enc.get(encodingKey{watch.Added, "json"}, func() ([]byte, error) {
			again = true
			return make([]byte, each), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	var recs []*record
	for i := range ringEncoded + more {
		r := &record{rv: int64(i + 1), cur: &entry{key: "default/a"}, size: 1}
		recs = append(recs, r)
		tab.publish([]*record{r})
		if !ask(r) || ask(r) {
			t.Fatalf("record %d: not encoded once", i)
		}
	}
	count := func(encoded int) {
		t.Helper()
		if got, want := tab.recent.bytes.Load(), int64(len(recs)+encoded*each); got != want {
			t.Errorf("%d bytes are counted, not %d", got, want)
		}
	}
	count(ringEncoded)
	if ask(recs[more]) || !ask(recs[0]) {
		t.Error("the oldest are not those that have to be encoded again")
	}
	count(ringEncoded + 1)
	tab.dropUntil(int64(len(recs)))
	recs = nil
	count(0)
}

// TestRelax: at rest the newest records stay, and all that a watcher has yet to
// be told of.
func TestRelax(t *testing.T) {
	tab := &table{}
	tab.recent.init()
	const all = ringEncoded + 100
	lost := laneKey{-1, "default/7"} // concerned by record 7 alone
	reader := func(key laneKey, passed int64) *Watcher {
		w := &Watcher{}
		w.passed.Store(passed)
		w.lane = tab.enter(key, w)
		return w
	}
	slow, one := reader(mainLane, 10), reader(lost, 3)
	for i := range all {
		key := "default/a"
		if i+1 == 7 {
			key = "default/7"
		}
		tab.publish([]*record{{rv: int64(i + 1), cur: &entry{key: key}, size: 1}})
	}
	floor := func(want int64) {
		t.Helper()
		tab.relax()
		if got := tab.recent.main.floor; got != want || int64(len(tab.recent.main.recs)) != all-want {
			t.Errorf("%d records from %d on, want those from %d on", len(tab.recent.main.recs), got, want)
		}
	}
	floor(6) // the next is awaited by the one lane
	one.passed.Store(7)
	floor(10)
	slow.passed.Store(20)
	floor(20)
	slow.passed.Store(0) // has still to be told of what there was
	floor(20)
	tab.leave(mainLane, slow.lane, slow)
	floor(100)
	tab.leave(lost, one.lane, one)
	if len(tab.recent.lanes) != 0 {
		t.Error("a lane without users is kept")
	}
}
