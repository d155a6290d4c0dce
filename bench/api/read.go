package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
)

// fill creates objects 0 to n-1.
func (l *load) fill(ctx context.Context, namespace string, n int64) error {
	return l.each(n, func(c *rig.Client, i int64) error {
		_, err := c.Discard(ctx, http.MethodPost, l.kind.collection(namespace), rig.JSON, l.kind.body(i))
		return err
	})
}

// together is how many lists are asked for at once; byLabel selects some.
const (
	together = 20
	byLabel  = "?labelSelector=group%3Dg7"
)

// lists measures lists of everything and lists by label.
func (l *load) lists(ctx context.Context) error {
	if err := l.fill(ctx, "list", int64(*objects)); err != nil {
		return err
	}
	path, some := l.kind.collection("list"), l.clients[:min(together, len(l.clients))]
	var size atomic.Int64
	name := l.subject.prefix + "list"
	all, err := l.measure(ctx, name, some, func(ctx context.Context, c *rig.Client) (bool, error) {
		read, err := c.Discard(ctx, http.MethodGet, path, "", nil)
		size.Store(read)
		return true, err
	})
	if err != nil {
		return err
	}
	l.Spread(name, all.took)
	l.Figure(name+"_size", mib(size.Load()), "MiB")
	l.Figure(name+"_rate", all.rate(), "1/s")
	if !l.subject.watches {
		return nil // and it knows no labels
	}
	labelled, err := l.measure(ctx, name+"_label", some, func(ctx context.Context, c *rig.Client) (bool, error) {
		_, err := c.Discard(ctx, http.MethodGet, path+byLabel, "", nil)
		return true, err
	})
	if err != nil {
		return err
	}
	l.Figure(name+"_label", labelled.rate(), "1/s")
	return nil
}

// lastObject is created when all others have been: whoever has seen it has to
// have seen them. patience is how long watchers have for it.
const (
	lastObject = 99_999_999
	patience   = 3 * time.Minute
)

// watches measures how fast events reach watchers, each on a connection of its
// own, from the first create to the last event at the last watcher.
func (l *load) watches(ctx context.Context) error {
	path := l.kind.collection("watch")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var now metav1.PartialObjectMetadataList
	if err := l.clients[0].Call(ctx, http.MethodGet, path, nil, &now); err != nil {
		return err
	}
	ws := make([]*watcher, *watchers)
	ended := make(chan error, len(ws))
	var standing sync.WaitGroup
	for i := range ws {
		c := l.target.Connect()
		defer c.Close()
		ws[i] = &watcher{client: c, path: path, version: now.ResourceVersion}
		standing.Add(1)
		stands := sync.OnceFunc(standing.Done)
		go func() {
			defer stands()
			ended <- ws[i].follow(ctx, stands)
		}()
	}
	standing.Wait()
	began := time.Now()
	var made atomic.Int64
	if _, err := l.measure(ctx, l.subject.prefix+"watch", l.clients, func(ctx context.Context, c *rig.Client) (bool, error) {
		_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, l.kind.body(made.Add(1)-1))
		return true, err
	}); err != nil {
		return err
	}
	if _, err := l.clients[0].Discard(ctx, http.MethodPost, path, rig.JSON, l.kind.body(lastObject)); err != nil {
		return err
	}
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	for range ws {
		if err := <-ended; err != nil {
			return err
		}
	}
	took, resumed := time.Since(began), 0
	for i, w := range ws {
		if int64(w.n) != made.Load() {
			return fmt.Errorf("watcher %d saw %d of %d objects", i, w.n, made.Load())
		}
		resumed += w.resumed
	}
	l.Figure(l.subject.prefix+"watch", float64(made.Load()+1)*float64(len(ws))/took.Seconds(), "1/s")
	l.Figure(l.subject.prefix+"watch_resumed", float64(resumed), "watches")
	return nil
}

// watcher follows the objects of a collection as they are created.
type watcher struct {
	client  *rig.Client
	path    string
	version string // from which on it watches: that of the last object
	seen    []bool
	n       int // how many were
	resumed int
}

// follow returns when it has seen lastObject. A watch that ends before is taken
// up where it ended, as clients do. stands is called when the first one stands.
func (w *watcher) follow(ctx context.Context, stands func()) error {
	for {
		answer, err := w.client.Open(ctx, http.MethodGet, w.path+"?watch=true&resourceVersion="+w.version, "", nil)
		if err != nil {
			return err
		}
		stands()
		done, err := w.read(answer)
		answer.Close()
		if done || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("the last event did not come")
		}
		w.resumed++
	}
}

// read reads a watch until the last object or until the watch ends, which is no
// error.
func (w *watcher) read(r io.Reader) (done bool, err error) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return false, errors.New("an event has more than 64 KiB")
		}
		if err != nil {
			return false, nil //nolint:nilerr // it ended, in whichever way
		}
		i, err := w.note(line)
		if i == lastObject || err != nil {
			return i == lastObject, err
		}
	}
}

// note takes one event. To decode it would take longer than the server took.
func (w *watcher) note(line []byte) (int, error) {
	name, version := field(line, `"name":"cm-`), field(line, `"resourceVersion":"`)
	i, err := strconv.Atoi(name)
	if !bytes.HasPrefix(line, []byte(`{"type":"ADDED"`)) || err != nil || version == "" {
		return 0, fmt.Errorf("an event is %.300q", line)
	}
	w.version = version
	if i == lastObject {
		return i, nil
	}
	for i >= len(w.seen) {
		w.seen = append(w.seen, make([]bool, 1024)...)
	}
	if w.seen[i] {
		return 0, fmt.Errorf("object %d came twice", i)
	}
	w.seen[i] = true
	w.n++
	return i, nil
}

// field is what stands between the text before it and a quotation mark.
func field(line []byte, before string) string {
	_, rest, _ := bytes.Cut(line, []byte(before))
	value, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return ""
	}
	return string(value)
}
