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
