package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/bench/internal/rig"
)

// load asks a server from many connections.
type load struct {
	*rig.Rig
	target  rig.Target
	cluster *rig.Cluster // nil: the bare server
	clients []*rig.Client
	made    atomic.Int64 // how many objects there are in namespace "load"
}

func newLoad(r *rig.Rig, target rig.Target, c *rig.Cluster) *load {
	l := &load{Rig: r, target: target, cluster: c}
	for range *connections {
		l.clients = append(l.clients, target.Connect())
	}
	return l
}

func (l *load) close() {
	for _, c := range l.clients {
		c.Close()
	}
}

// payload makes an object of 512 bytes of data.
var payload = strings.Repeat("x", 512)

func collection(namespace string) string { return "/api/v1/namespaces/" + namespace + "/configmaps" }

func nameOf(i int64) string { return fmt.Sprintf("cm-%08d", i) }

func body(i int64) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%s","labels":{"group":"g%d"}},"data":{"payload":"%s"}}`, nameOf(i), i%100, payload)
}

// warm is how long a phase runs before it counts.
const warm = 2 * time.Second

// job is one request of a phase, on a connection; false: there is nothing left
// to do.
type job func(ctx context.Context, c *rig.Client) (more bool, err error)

// phase has all connections do a job again and again. It prints and returns
// the rate.
func (l *load) phase(ctx context.Context, prefix, name string, do job) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	from, to := began.Add(warm), began.Add(warm+*phase)
	took := make([][]time.Duration, len(l.clients))
	errs := make([]error, len(l.clients))
	var finished sync.WaitGroup
	for i, c := range l.clients {
		finished.Go(func() {
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
	cpu, own, err := l.during(ctx, prefix+name)
	finished.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	counted := min(time.Since(began)-warm, *phase)
	all := slices.Concat(took...)
	slices.Sort(all)
	rate := float64(len(all)) / counted.Seconds()
	ms := func(share float64) float64 {
		return float64(rig.Quantile(all, share)) / float64(time.Millisecond)
	}
	l.Figure(prefix+name, rate, "1/s")
	l.Figure(prefix+name+"_p50", ms(0.5), "ms")
	l.Figure(prefix+name+"_p99", ms(0.99), "ms")
	each := func(d time.Duration) float64 {
		return float64(d) / float64(time.Microsecond) / float64(max(len(all), 1))
	}
	if cpu > 0 {
		l.Figure(prefix+name+"_cpu", each(cpu), "us")
	}
	l.Figure(prefix+name+"_cpu_client", each(own), "us")
	return rate, nil
}

// during waits for the part of a phase that counts, and says what processor
// time the cluster took in it and what this program did.
func (l *load) during(ctx context.Context, name string) (cluster, own time.Duration, err error) {
	if err := rig.Wait(ctx, warm); err != nil {
		return 0, 0, err
	}
	before, ownBefore, err := l.used()
	if err != nil {
		return 0, 0, err
	}
	profile := make(chan error, 1)
	go func() { profile <- l.Profile(ctx, l.cluster, name, "cpu", *phase*3/4) }()
	if err := rig.Wait(ctx, *phase); err != nil {
		return 0, 0, err
	}
	after, ownAfter, err := l.used()
	if err != nil {
		return 0, 0, err
	}
	return after - before, ownAfter - ownBefore, <-profile
}

// used is the processor time taken so far, by the cluster (none for the bare
// server) and by this program.
func (l *load) used() (cluster, own time.Duration, err error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, 0, err
	}
	if l.cluster != nil {
		cluster, err = l.cluster.CPU()
	}
	return cluster, time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// writes are the phases that the bare server has as well.
func (l *load) writes(ctx context.Context, prefix string) (rates, error) {
	path := collection("load")
	var next atomic.Int64
	random := func() string { return path + "/" + nameOf(rand.Int64N(l.made.Load())) }
	jobs := []struct {
		name string
		do   job
	}{
		{"create", func(ctx context.Context, c *rig.Client) (bool, error) {
			_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, body(l.made.Add(1)-1))
			return true, err
		}},
		{"get", func(ctx context.Context, c *rig.Client) (bool, error) {
			_, err := c.Discard(ctx, http.MethodGet, random(), "", nil)
			return true, err
		}},
		{"patch", func(ctx context.Context, c *rig.Client) (bool, error) {
			patch := fmt.Appendf(nil, `{"data":{"patched":"%d"}}`, next.Add(1))
			_, err := c.Discard(ctx, http.MethodPatch, random(), "application/merge-patch+json", patch)
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
	}
	got := rates{}
	for _, j := range jobs {
		if j.name != "create" && !wanted(j.name) {
			continue
		}
		rate, err := l.phase(ctx, prefix, j.name, j.do)
		if err != nil {
			return nil, err
		}
		got[j.name] = rate
	}
	return got, nil
}

// each hands out 0 to n-1 to the connections.
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

// together is how many lists are asked for at once, and listRounds how often.
const together, listRounds = 20, 5

// lists measures lists of everything and lists by label.
func (l *load) lists(ctx context.Context) error {
	path := collection("list")
	if err := l.each(int64(*objects), func(c *rig.Client, i int64) error {
		_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, body(i))
		return err
	}); err != nil {
		return err
	}
	some := &load{Rig: l.Rig, clients: l.clients[:min(together, len(l.clients))]}
	measure := func(name string, n int64, query string) (took []time.Duration, size int64, all time.Duration, err error) {
		took = make([]time.Duration, n)
		var bytes atomic.Int64
		profile := make(chan error, 1)
		go func() { profile <- l.Profile(ctx, l.cluster, name, "cpu", time.Second) }()
		began := time.Now()
		err = some.each(n, func(c *rig.Client, i int64) error {
			start := time.Now()
			read, err := c.Discard(ctx, http.MethodGet, path+query, "", nil)
			took[i] = time.Since(start)
			bytes.Store(read)
			return err
		})
		all = time.Since(began)
		return took, bytes.Load(), all, errors.Join(err, <-profile)
	}
	took, size, all, err := measure("list", together*listRounds, "")
	if err != nil {
		return err
	}
	l.Spread("list", took)
	l.Figure("list_size", float64(size)/(1<<20), "MiB")
	l.Figure("list_rate", float64(len(took))/all.Seconds(), "1/s")
	took, _, all, err = measure("list_label", together*100, "?labelSelector=group%3Dg7")
	if err != nil {
		return err
	}
	l.Figure("list_label", float64(len(took))/all.Seconds(), "1/s")
	return nil
}

// watchers is how many there are, watched how many objects they see made.
const watchers, watched = 100, 4000

// watches measures how fast events reach watchers, each on a connection of its
// own, from the first create to the last event at the last watcher.
func (l *load) watches(ctx context.Context) error {
	path := collection("watch")
	done := make(chan error, watchers)
	var standing sync.WaitGroup
	standing.Add(watchers)
	for range watchers {
		c := l.target.Connect()
		defer c.Close()
		go func() {
			answer, err := c.Open(ctx, http.MethodGet, path+"?watch=true", "", nil)
			standing.Done()
			if err != nil {
				done <- err
				return
			}
			defer answer.Close()
			done <- countLines(answer, watched)
		}()
	}
	standing.Wait()
	began := time.Now()
	if err := l.each(watched, func(c *rig.Client, i int64) error {
		_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, body(i))
		return err
	}); err != nil {
		return err
	}
	for range watchers {
		if err := <-done; err != nil {
			return err
		}
	}
	l.Figure("watch", watched*watchers/time.Since(began).Seconds(), "1/s")
	return nil
}
