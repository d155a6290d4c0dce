package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"hansa.dev/hansa/bench/internal/rig"
)

// Of lists100k: how many lists are asked for at once, how much of one a slow
// reader takes each time and how often, and the size of a chunk.
const (
	manyLists = 50
	slowTakes = 32 << 10
	slowEvery = 50 * time.Millisecond
	chunk     = 500
)

// listsOfMany measures by how much the server grows while all objects are listed
// many times at once: by slow readers that go after a phase, by ones that ask for it
// in chunks, and by ones that take all as it comes.
func listsOfMany(ctx context.Context, l *load) error {
	if err := l.fill(ctx, "list", int64(*podCount)); err != nil {
		return err
	}
	path := l.kind.collection("list")
	for _, sort := range []struct {
		name string
		read func(context.Context, *rig.Client) error
	}{
		{"lists100k_slow", func(ctx context.Context, c *rig.Client) error { return readSlowly(ctx, c, path) }},
		{"lists100k_chunks", func(ctx context.Context, c *rig.Client) error { return readChunks(ctx, c, path) }},
		{"lists100k_fast", func(ctx context.Context, c *rig.Client) error {
			_, err := c.Discard(ctx, http.MethodGet, path, "", nil)
			return err
		}},
	} {
		rest, err := l.memory(ctx)
		if err != nil {
			return err
		}
		peak, stop := l.peak()
		began := time.Now()
		clients := &load{clients: make([]*rig.Client, manyLists)}
		for i := range clients.clients {
			clients.clients[i] = l.target.Connect()
			defer clients.clients[i].Close()
		}
		profile := make(chan error, 1)
		go func() { profile <- l.Profile(ctx, l.cluster, sort.name, "cpu", *phase/2) }()
		err = clients.each(manyLists, func(c *rig.Client, _ int64) error { return sort.read(ctx, c) })
		took := time.Since(began)
		if err := errors.Join(err, stop(), <-profile, l.Profile(ctx, l.cluster, sort.name, "heap", 0)); err != nil {
			return fmt.Errorf("%s: %w", sort.name, err)
		}
		l.Seconds(sort.name, took)
		l.Figure(sort.name+"_rest", mib(rest.Private-rest.Database), "MiB")
		l.Figure(sort.name+"_growth", mib(*peak-rest.Private+rest.Database), "MiB")
	}
	return nil
}

// sampled is how often memory is looked at while it matters.
const sampled = 100 * time.Millisecond

// peak is the most private memory without the database's file that the server
// has until stop.
func (l *load) peak() (most *int64, stop func() error) {
	most = new(int64)
	over := make(chan struct{})
	var err error
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			var m rig.Memory
			if m, err = rig.MemoryOf(l.server.pid()); err != nil {
				return
			}
			*most = max(*most, m.Private-m.Database)
			select {
			case <-over:
				return
			case <-time.After(sampled):
			}
		}
	})
	return most, func() error {
		close(over)
		looking.Wait()
		return err
	}
}

// readSlowly reads a list little by little for as long as a phase is.
func readSlowly(ctx context.Context, c *rig.Client, path string) error {
	ctx, cancel := context.WithTimeout(ctx, *phase)
	defer cancel()
	answer, err := c.Open(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	for {
		if _, err := io.CopyN(io.Discard, answer, slowTakes); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		if rig.Wait(ctx, slowEvery) != nil {
			return nil //nolint:nilerr // the phase is over
		}
	}
}

// readChunks reads a list chunk by chunk to its end.
func readChunks(ctx context.Context, c *rig.Client, path string) error {
	for next := ""; ; {
		answer, err := c.Open(ctx, http.MethodGet, fmt.Sprintf("%s?limit=%d&continue=%s", path, chunk, next), "", nil)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer)
		answer.Close()
		if err != nil {
			return err
		}
		// Metadata comes first.
		if next = field(text[:min(len(text), 1<<10)], `"continue":"`); next == "" {
			return nil
		}
	}
}
