package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/bench/internal/rig"
)

// load asks a server from many connections.
type load struct {
	*rig.Rig
	*server
	subject subject
	clients []*rig.Client
	made    atomic.Int64 // how many objects there are in namespace "load"
}

func newLoad(r *rig.Rig, subject subject, s *server) *load {
	l := &load{Rig: r, server: s, subject: subject}
	for range *connections {
		l.clients = append(l.clients, s.target.Connect())
	}
	return l
}

func (l *load) close() {
	for _, c := range l.clients {
		c.Close()
	}
}

// warm is how long a phase runs before it counts.
func warm() time.Duration { return min(2*time.Second, *phase/2) }

// job is one request of a phase, on a connection; false: there is nothing left
// to do.
type job func(ctx context.Context, c *rig.Client) (more bool, err error)

// outcome is what a phase came to.
type outcome struct {
	took        []time.Duration // of each request that counts, sorted
	span        time.Duration   // in which they ended
	server, own time.Duration   // processor time meanwhile, of the server's processes and of this program
}

func (o outcome) rate() float64 { return float64(len(o.took)) / o.span.Seconds() }

// measure has clients do a job again and again, for as long as a phase is or
// until there is nothing left to do.
func (l *load) measure(ctx context.Context, name string, clients []*rig.Client, do job) (outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	from, to := began.Add(warm()), began.Add(warm()+*phase)
	took := make([][]time.Duration, len(clients))
	errs := make([]error, len(clients))
	var working sync.WaitGroup
	for i, c := range clients {
		working.Go(func() {
			for {
				start := time.Now()
				if start.After(to) {
					return
				}
				more, err := do(ctx, c)
				if err != nil {
					errs[i] = err
					cancel()
					return
				}
				if end := time.Now(); end.After(from) && end.Before(to) {
					took[i] = append(took[i], end.Sub(start))
				}
				if !more {
					return
				}
			}
		})
	}
	finished := make(chan struct{})
	var ended time.Time
	go func() {
		working.Wait()
		ended = time.Now()
		close(finished)
	}()
	o, err := l.during(ctx, name, finished)
	<-finished
	if err := errors.Join(append(errs, err)...); err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	o.took, o.span = slices.Concat(took...), min(ended.Sub(from), *phase)
	slices.Sort(o.took)
	if len(o.took) == 0 {
		return o, fmt.Errorf("%s: nothing was done in %v that counts", name, *phase)
	}
	return o, nil
}

// during waits for the part of a phase that counts, or until the work is
// finished, and says what processor time went meanwhile.
func (l *load) during(ctx context.Context, name string, finished <-chan struct{}) (o outcome, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-finished:
		case <-ctx.Done():
		}
	}
	wait(warm())
	before, ownBefore, err := l.used()
	if err != nil {
		return o, err
	}
	profile := make(chan error, 1)
	go func() { profile <- l.Profile(ctx, l.cluster, name, "cpu", *phase*3/4) }()
	wait(*phase)
	after, ownAfter, err := l.used()
	if err != nil {
		return o, err
	}
	o.server, o.own = after-before, ownAfter-ownBefore
	return o, <-profile
}

// used is the processor time taken so far, by the server and by this program.
func (l *load) used() (server, own time.Duration, err error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, 0, err
	}
	if l.cluster != nil {
		server, err = l.cluster.CPU()
	} else {
		server, err = rig.CPU(l.process)
	}
	return server, time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// phase has all connections do a job, and prints how fast.
func (l *load) phase(ctx context.Context, name string, do job) error {
	name = l.subject.prefix + name
	o, err := l.measure(ctx, name, l.clients, do)
	if err != nil {
		return err
	}
	ms := func(share float64) float64 {
		return float64(rig.Quantile(o.took, share)) / float64(time.Millisecond)
	}
	each := func(d time.Duration) float64 {
		return float64(d) / float64(time.Microsecond) / float64(len(o.took))
	}
	l.Figure(name, o.rate(), "1/s")
	l.Figure(name+"_p50", ms(0.5), "ms")
	l.Figure(name+"_p99", ms(0.99), "ms")
	l.Figure(name+"_cpu", each(o.server), "us")
	l.Figure(name+"_cpu_client", each(o.own), "us")
	return nil
}

// writes are the phases of single objects.
func (l *load) writes(ctx context.Context) error {
	path := l.kind.collection("load")
	var next atomic.Int64
	random := func() string { return path + "/" + nameOf(rand.Int64N(l.made.Load())) }
	for _, j := range []struct {
		name string
		do   job
	}{
		{"create", func(ctx context.Context, c *rig.Client) (bool, error) {
			_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, l.kind.body(l.made.Add(1)-1))
			return true, err
		}},
		{"get", func(ctx context.Context, c *rig.Client) (bool, error) {
			_, err := c.Discard(ctx, http.MethodGet, random(), "", nil)
			return true, err
		}},
		{"patch", func(ctx context.Context, c *rig.Client) (bool, error) {
			_, err := c.Discard(ctx, http.MethodPatch, random(), mergePatch, patch(next.Add(1)))
			return true, err
		}},
		{"delete", func(ctx context.Context, c *rig.Client) (bool, error) {
			i := l.made.Add(-1)
			if i < 0 {
				return false, nil
			}
			_, err := c.Discard(ctx, http.MethodDelete, path+"/"+nameOf(i), "", nil)
			return i > 0, err
		}},
	} {
		if j.name != "create" && !wanted(j.name) {
			continue
		}
		if err := l.phase(ctx, j.name, j.do); err != nil {
			return err
		}
	}
	return nil
}

const mergePatch = "application/merge-patch+json"

func patch(i int64) []byte { return fmt.Appendf(nil, `{"data":{"patched":"%d"}}`, i) }

// each hands out 0 to n-1 to the connections, once.
func (l *load) each(n int64, do func(c *rig.Client, i int64) error) error {
	var next atomic.Int64
	errs := make([]error, len(l.clients))
	var finished sync.WaitGroup
	for w, c := range l.clients {
		finished.Go(func() {
			for i := next.Add(1) - 1; i < n && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = do(c, i)
			}
		})
	}
	finished.Wait()
	return errors.Join(errs...)
}
