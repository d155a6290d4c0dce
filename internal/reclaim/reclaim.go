// Package reclaim gives memory back to the operating system when a burst of
// work is over: a start, a load.
//
// The runtime collects when the heap has doubled, or after two minutes, and
// returns what it does not need at a hundredth of a processor. A process that
// has come to rest holds several times what it uses until then. Here the end of
// a collection is the event: when none has followed for a while, little is
// being allocated, and one more is worth its price.
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
	// quiet is how long no collection must have ended before memory is given back.
	quiet = 3 * time.Second
	// worth is what there must be to give back, in bytes.
	worth = 8 << 20
	// price is the part of the time that giving back may take, at most: one in so
	// many.
	price = 100
)

// Keeper gives memory back. Its only method is Stop.
type Keeper struct {
	host  host
	clock clock.WithDelayedExecution

	mu      sync.Mutex
	stopped bool
	timer   clock.Timer // runs from the end of the last collection
	gave    bool        // at least once
	rested  time.Time   // before which nothing is given back again
}

// host is the runtime and the kernel.
type host interface {
	// collected has f called at the end of the next collection.
	collected(f func())
	// reclaimable is what a collection now would free or give back, in bytes.
	reclaimable() uint64
	// reclaim gives it back.
	reclaim()
}

// Start gives memory back from now on: once when the work that goes on now is
// over, and after that whenever it is worth it.
func Start(clk clock.WithDelayedExecution) *Keeper {
	return start(clk, process{})
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
	k.timer = k.clock.AfterFunc(max(quiet, k.rested.Sub(k.clock.Now())), k.rest)
}

// rest gives back what is worth it. The collection that this takes arms the
// timer once more, which then finds nothing.
func (k *Keeper) rest() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped || k.gave && k.host.reclaimable() < worth {
		return
	}
	began := k.clock.Now()
	k.host.reclaim()
	now := k.clock.Now()
	k.gave, k.rested = true, now.Add(price*now.Sub(began))
}

// process is this process.
type process struct{}

// mark is collected as soon as anything is. It has a pointer, since what has
// none may share its memory with others.
type mark struct{ _ *mark }

func (process) collected(f func()) {
	runtime.AddCleanup(&mark{}, func(f func()) { f() }, f)
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

func (process) reclaim() {
	debug.FreeOSMemory()
	unmapProgram()
}
