package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"hansa.dev/hansa/bench/internal/rig"
)

func memoryFigure() string { return fmt.Sprintf("memory_private_%d", *objects) }

// memory is what a fresh server has for itself after objects have been created,
// watched, read, patched and listed.
func memory(ctx context.Context, l *load) error {
	n := int64(*objects)
	if err := l.watched(ctx, func() error { return l.fill(ctx, "memory", n) }); err != nil {
		return err
	}
	path := l.kind.collection("memory")
	for _, p := range []struct {
		n  int64
		do func(c *rig.Client, i int64) error
	}{
		{n, func(c *rig.Client, i int64) error {
			_, err := c.Discard(ctx, http.MethodGet, path+"/"+nameOf(i), "", nil)
			return err
		}},
		{n, func(c *rig.Client, i int64) error {
			_, err := c.Discard(ctx, http.MethodPatch, path+"/"+nameOf(i), mergePatch, patch(i))
			return err
		}},
		{together, func(c *rig.Client, _ int64) error {
			_, err := c.Discard(ctx, http.MethodGet, path, "", nil)
			return err
		}},
	} {
		part := &load{clients: l.clients}
		if p.n == together {
			part.clients = l.clients[:min(together, len(l.clients))]
		}
		if err := part.each(p.n, p.do); err != nil {
			return err
		}
	}
	m, err := l.memory(ctx)
	if err != nil {
		return err
	}
	name := l.subject.prefix + memoryFigure()
	l.Figure(name, mib(m.Private), "MiB")
	l.Figure(name+"_database", mib(m.Database), "MiB")
	return l.Profile(ctx, l.cluster, memoryFigure(), "heap", 0)
}

// watched does something while watchers stand, where the server can be watched.
// They see what they see: that nothing is lost is another phase.
func (l *load) watched(ctx context.Context, do func() error) error {
	if !l.subject.watches {
		return do()
	}
	for range *watchers {
		c := l.target.Connect()
		defer c.Close()
		answer, err := c.Open(ctx, http.MethodGet, l.kind.collection("memory")+"?watch=true", "", nil)
		if err != nil {
			return err
		}
		var reading sync.WaitGroup
		reading.Go(func() { discard(answer) })
		defer reading.Wait()
		defer answer.Close()
	}
	return do()
}

// memory is that of the server's process when it has settled.
func (l *load) memory(ctx context.Context) (rig.Memory, error) {
	if err := rig.Wait(ctx, *settle); err != nil {
		return rig.Memory{}, err
	}
	return rig.MemoryOf(l.server.pid())
}

// discard reads a watch that nobody looks at, until it ends.
func discard(r io.Reader) {
	io.Copy(io.Discard, r) //nolint:errcheck // it ends when we end it
}

// idleEach is how many idle watches each of the connections has.
const idleConnections, idleEach = 100, 100

// idleWatches measures what watches cost that see nothing: each of one object,
// as a node's agent has one for each object that its pods use. What the
// connections cost is among it.
func idleWatches(ctx context.Context, l *load) error {
	before, err := l.memory(ctx)
	if err != nil {
		return err
	}
	path := l.kind.collection("idle") + "?watch=true&fieldSelector=metadata.name%3D"
	clients := make([]*rig.Client, idleConnections)
	for i := range clients {
		clients[i] = l.target.Connect()
		defer clients[i].Close()
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	opened := &load{clients: clients}
	if err := opened.each(idleConnections, func(c *rig.Client, i int64) error {
		for j := range int64(idleEach) {
			answer, err := c.Open(ctx, http.MethodGet, path+nameOf(i*idleEach+j), "", nil)
			if err != nil {
				return err
			}
			reading.Go(func() {
				defer answer.Close()
				discard(answer)
			})
		}
		return nil
	}); err != nil {
		return err
	}
	l.Seconds("idlewatches_opened", time.Since(began))
	after, err := l.memory(ctx)
	if err != nil {
		return err
	}
	more := after.Private - after.Database - before.Private + before.Database
	l.Figure("idlewatches", float64(more)/(idleConnections*idleEach)/1024, "KiB")
	return l.Profile(ctx, l.cluster, "idlewatches", "heap", 0)
}
