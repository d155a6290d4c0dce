package reclaim

import (
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// scripted is a host whose collections are those of the test.
type scripted struct {
	next  []func()
	room  uint64
	total uint64
	takes time.Duration
	given int
}

func (s *scripted) collected(f func())  { s.next = append(s.next, f) }
func (s *scripted) allocated() uint64   { return s.total }
func (s *scripted) reclaimable() uint64 { return s.room }
func (s *scripted) reclaim() {
	s.given++
	s.room = 0
	<-time.After(s.takes)
}

// collect is the end of a collection.
func (s *scripted) collect() {
	now := s.next
	s.next = nil
	for _, f := range now {
		f()
	}
}

func (s *scripted) expect(t *testing.T, given int, when string) {
	t.Helper()
	if s.given != given {
		t.Errorf("%s: memory was given back %d times, not %d", when, s.given, given)
	}
}

// step lets the bubble's time go on.
func step(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestQuiet(t *testing.T) { synctest.Test(t, testQuiet) }

func testQuiet(t *testing.T) {
	s := &scripted{}
	k := start(clock.RealClock{}, s)
	for range 10 {
		step(quiet - 1)
		s.collect()
	}
	s.expect(t, 0, "while collections follow each other")
	for range 10 {
		s.total += calm + 1
		step(quiet)
	}
	s.expect(t, 0, "while much is allocated")
	step(quiet)
	s.expect(t, 1, "after the start")
	s.collect() // its own
	step(quiet)
	s.expect(t, 1, "with nothing to give")
	s.room = worth
	s.collect()
	step(quiet - 1)
	s.expect(t, 1, "too early")
	step(1)
	s.expect(t, 2, "after a load")
	s.room = worth
	s.collect()
	k.Stop()
	step(time.Hour)
	s.collect()
	s.expect(t, 2, "after Stop")
	if len(s.next) > 0 {
		t.Error("collections are still listened to after Stop")
	}
}

// What takes long is done less often.
func TestPrice(t *testing.T) { synctest.Test(t, testPrice) }

func testPrice(t *testing.T) {
	s := &scripted{takes: time.Second}
	defer start(clock.RealClock{}, s).Stop()
	step(quiet + s.takes)
	s.room = worth
	s.collect()
	step(price*s.takes - 1)
	s.expect(t, 1, "before its time")
	step(1 + s.takes)
	s.expect(t, 2, "in its time")
}

// The real runtime says when it has collected, and what there is to give back.
func TestProcess(t *testing.T) {
	done := make(chan struct{})
	process{}.collected(func() { close(done) })
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // nobody else collects
	for range 64 {
		runtime.KeepAlive(make([]byte, 1<<20))
	}
	if got := (process{}).reclaimable(); got < 63<<20 {
		t.Errorf("%d bytes can be given back after 64 MiB were allocated", got)
	}
	forgotten := false
	process{[]func(){func() { forgotten = true }}}.reclaim()
	if !forgotten {
		t.Error("nobody was told to forget")
	}
	if got := (process{}).reclaimable(); got > 16<<20 {
		t.Errorf("%d bytes can be given back after it was done", got)
	}
	<-done
}

// Only what is as it is in the file is let go.
func TestClean(t *testing.T) {
	smaps := `00400000-01a00000 r-xp 00000000 fe:00 42                                 /opt/my hansa
Size:              22528 kB
Rss:               20000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
01a00000-02c00000 r--p 01600000 fe:00 42                                 /opt/my hansa
Rss:               10000 kB
Anonymous:             0 kB
02c00000-02c80000 r--p 02800000 fe:00 42                                 /opt/my hansa
Anonymous:             4 kB
02c80000-02d00000 rw-p 02880000 fe:00 42                                 /opt/my hansa
Anonymous:             0 kB
7f0000000000-7f0000100000 r--s 00000000 fe:00 43                         /var/lib/hansa/etcd/db
Anonymous:             0 kB
7f0000100000-7f0000200000 rw-p 00000000 00:00 0 
Anonymous:          1024 kB
7ffc00000000-7ffc00021000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`
	want := []span{{0x400000, 0x1a00000}, {0x1a00000, 0x2c00000}, {0x7f0000000000, 0x7f0000100000}}
	if got := clean(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("%x, not %x", got, want)
	}
}
