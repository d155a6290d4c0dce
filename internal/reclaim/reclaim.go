// Package reclaim gives memory back to the operating system when a burst of
// work is over: a start, a load.
//
// The runtime collects when the heap has doubled, or after two minutes, and
// returns what it does not need at a hundredth of a processor. A process that
// has come to rest holds several times what it uses until then. Here the end of
// a collection is the event: from then on it is looked at how much is allocated
// until that is little, and one more collection is worth its price. At rest
// nothing is looked at.
package reclaim

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// In quiet, no more than calm bytes are allocated by a process at rest.
	quiet = 2 * time.Second
	calm  = 4 << 20
	// worth is what there must be to give back, in bytes.
	worth = 8 << 20
	// price is the part of the time that giving back may take, at most: one in so
	// many.
	price = 30
)

// Keeper gives memory back. Its only method is Stop.
type Keeper struct {
	host  host
	clock clock.WithDelayedExecution

	mu      sync.Mutex
	stopped bool
	timer   clock.Timer // until the next look
	seen    uint64      // allocated until the last look
	gave    bool        // at least once
	rested  time.Time   // before which nothing is given back again
}

// host is the runtime and the kernel.
type host interface {
	// collected has f called at the end of the next collection.
	collected(f func())
	// allocated is what has been in all, in bytes.
	allocated() uint64
	// reclaimable is what a collection now would free or give back, in bytes.
	reclaimable() uint64
	// reclaim gives it back.
	reclaim()
}

// Start gives memory back from now on: once when the work that goes on now is
// over, and after that whenever it is worth it. Those that forget are called
// before that: they let go of what can be made again.
func Start(clk clock.WithDelayedExecution, forget ...func()) *Keeper {
	return start(clk, process{forget})
}

func start(clk clock.WithDelayedExecution, h host) *Keeper {
	k := &Keeper{host: h, clock: clk}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.arm()
	h.collected(k.collected)
	return k
}

// Stop ends it.
func (k *Keeper) Stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	k.timer.Stop()
}

func (k *Keeper) collected() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		return
	}
	k.arm()
	k.host.collected(k.collected)
}

// arm lets the time run anew. k.mu is held.
func (k *Keeper) arm() {
	if k.timer != nil {
		k.timer.Stop()
	}
	k.seen = k.host.allocated()
	k.timer = k.clock.AfterFunc(max(quiet, k.rested.Sub(k.clock.Now())), k.look)
}

// look gives back what is worth it, once the process is at rest. The collection
// that this takes arms the timer once more, which then finds nothing.
func (k *Keeper) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stopped:
		return
	case k.host.allocated()-k.seen > calm:
		k.arm()
		return
	case k.gave && k.host.reclaimable() < worth:
		return
	}
	began := k.clock.Now()
	k.host.reclaim()
	now := k.clock.Now()
	k.gave, k.rested = true, now.Add(price*now.Sub(began))
}

// process is this process.
type process struct{ forget []func() }

// mark is collected as soon as anything is. It has a pointer, since what has
// none may share its memory with others.
type mark struct{ _ *mark }

func (process) collected(f func()) {
	runtime.AddCleanup(&mark{}, func(f func()) { f() }, f)
}

func (process) allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func (process) reclaimable() uint64 {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, // live or not collected yet
		{Name: "/memory/classes/heap/free:bytes"},    // not given back
		{Name: "/gc/heap/live:bytes"},                // by the last collection
	}
	metrics.Read(s)
	objects, free, live := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()
	return max(objects, live) - live + free
}

func (p process) reclaim() {
	for _, forget := range p.forget {
		forget()
	}
	debug.FreeOSMemory()
	unmapFiles()
}
