// Package encryption keeps the values of chosen resources encrypted in the
// engine: it lies between the store and the engine, so that the store, its copy
// and its history know plain values only. Configuration and stored form are
// those of Kubernetes, and a value is bound to its key: under another one it
// cannot be read.
//
// Values are written with the first provider and its first key. One that was
// written with another is read all the same, and is marked stale: its next write
// is carried out even if it changes nothing.
package encryption

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// root is where Kubernetes keeps its objects. What lies elsewhere is ours and
// never encrypted.
const root = "/registry/"

// claims are the prefixes of what is stored beside the objects of the registry,
// by the name under which Kubernetes encrypts it.
var claims = map[string]schema.GroupResource{
	"ipaddresses":             {Group: "networking.k8s.io", Resource: "ipaddresses"},
	"ranges/serviceips":       {Resource: "serviceipallocations"},
	"ranges/servicenodeports": {Resource: "servicenodeportallocations"},
}

// Engine transforms values on their way to another engine and back.
//
// Invariant: whatever is in the other engine can be read with the configuration
// of now, and what is still on its way from there with that or the one before.
type Engine struct {
	store.Engine
	reg *api.Registry

	now atomic.Pointer[generation]
	// writing is held by writes, and alone while another configuration takes over.
	writing sync.RWMutex
}

var _ store.Outdater = (*Engine)(nil)

// generation is one configuration in use.
type generation struct {
	config   *Config
	byPrefix map[string]value.Transformer
	before   *generation // nil: the first one
	since    int64       // revision of the last write of the one before
}

// Wrap puts encryption before an engine, which belongs to the result.
func Wrap(e store.Engine, reg *api.Registry, c *Config) *Engine {
	w := &Engine{Engine: e, reg: reg}
	w.now.Store(&generation{config: c, byPrefix: byPrefix(reg, c)})
	return w
}

func byPrefix(reg *api.Registry, c *Config) map[string]value.Transformer {
	all := map[string]value.Transformer{}
	for prefix, gr := range claims {
		all[prefix] = c.of(gr)
	}
	for _, row := range reg.Resources() {
		if row.Prefix != "" {
			all[row.Prefix] = c.of(row.GroupResource())
		}
	}
	return all
}

// page is how many values are read at once.
const page = 500

// Reload goes on with another configuration. One that cannot read all that is
// stored is refused, and everything stays as it was. No write is carried out
// meanwhile.
func (e *Engine) Reload(ctx context.Context, c *Config) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	was := e.now.Load()
	next := &generation{config: c, byPrefix: byPrefix(e.reg, c), before: &generation{config: was.config, byPrefix: was.byPrefix}}
	for _, prefix := range slices.Sorted(maps.Keys(next.byPrefix)) {
		if next.byPrefix[prefix] == plain && was.byPrefix[prefix] == plain {
			continue
		}
		if err := e.readable(ctx, next, prefix); err != nil {
			return err
		}
	}
	revision, err := e.Engine.CurrentRevision(ctx)
	if err != nil {
		return err
	}
	next.since = revision
	e.now.Store(next)
	return nil
}

// readable is an error when a value below a prefix cannot be read.
func (e *Engine) readable(ctx context.Context, g *generation, prefix string) error {
	alone := &generation{config: g.config, byPrefix: g.byPrefix}
	r := store.RangeRequest{Start: root + prefix, End: root + prefix + "0", Limit: page} // "0" follows "/"
	for resp, err := range store.Pages(ctx, e.Engine, r) {
		if err != nil {
			return fmt.Errorf("read what is stored: %w", err)
		}
		for _, kv := range resp.KVs {
			if err := alone.open(ctx, &kv); err != nil {
				return err
			}
		}
	}
	return nil
}

// Outdated implements store.Outdater.
func (e *Engine) Outdated(key string) int64 {
	g := e.now.Load()
	if g.before == nil || g.transformer(key) == plain && g.before.transformer(key) == plain {
		return 0
	}
	return g.since
}

// Unknown are the resources that a configuration names and no row has, sorted.
func (c *Config) Unknown(reg *api.Registry) []string {
	var unknown []string
	for gr := range c.byResource {
		known := gr == everything || !slices.ContainsFunc(reg.Resources(), func(r *api.Resource) bool { return r.Group == gr.Group }) && defined(gr.Group) ||
			slices.ContainsFunc(reg.Resources(), func(r *api.Resource) bool {
				return r.GroupResource() == gr || wholeGroup(r.Group) == gr
			})
		if !known {
			unknown = append(unknown, written(gr))
		}
	}
	slices.Sort(unknown)
	return unknown
}

// transformer finds what a key's value goes through; nil: nothing.
func (g *generation) transformer(key string) value.Transformer {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return nil
	}
	// Storage prefixes have one segment (pods) or two (services/specs), and a
	// claim may have nothing behind its prefix.
	first, more, _ := strings.Cut(rest, "/")
	second, _, _ := strings.Cut(more, "/")
	if t := g.byPrefix[first+"/"+second]; t != nil {
		return t
	}
	if t := g.byPrefix[first]; t != nil || !defined(first) {
		return t
	}
	return g.config.of(schema.GroupResource{Group: first, Resource: second})
}

// defined says whether a group may be one of a definition, which is not known when
// its objects are read: all of those have a dot. Objects are then below the group
// and the resource.
func defined(group string) bool { return strings.Contains(group, ".") }

// open makes the value of kv plain.
func (g *generation) open(ctx context.Context, kv *store.KV) error {
	t := g.transformer(kv.Key)
	if t == nil || len(kv.Value) == 0 {
		return nil
	}
	opened, stale, err := t.TransformFromStorage(ctx, kv.Value, value.DefaultContext(kv.Key))
	if err != nil {
		if g.before != nil && g.before.open(ctx, kv) == nil {
			kv.Stale = true
			return nil
		}
		return &store.ValueError{Key: kv.Key, Err: fmt.Errorf("decrypt it: %w; "+
			"--encryption-provider-config must have the key that it was written with until it has been rewritten", err)}
	}
	kv.Value, kv.Stale = opened, stale
	return nil
}

func (e *Engine) open(ctx context.Context, kv *store.KV) error { return e.now.Load().open(ctx, kv) }

// Range implements store.Engine.
func (e *Engine) Range(ctx context.Context, r store.RangeRequest) (store.RangeResponse, error) {
	resp, err := e.Engine.Range(ctx, r)
	if err != nil {
		return resp, err
	}
	resp.KVs = slices.Clone(resp.KVs)
	for i := range resp.KVs {
		if err := e.open(ctx, &resp.KVs[i]); err != nil {
			return store.RangeResponse{}, err
		}
	}
	return resp, nil
}

// Txn implements store.Engine.
func (e *Engine) Txn(ctx context.Context, steps []store.Step) (store.TxnResponse, error) {
	e.writing.RLock()
	defer e.writing.RUnlock()
	g := e.now.Load()
	sealed := slices.Clone(steps)
	for i := range sealed {
		sealed[i].Then = slices.Clone(sealed[i].Then)
		for j := range sealed[i].Then {
			put := &sealed[i].Then[j]
			t := g.transformer(put.Key)
			if t == nil || put.Delete {
				continue
			}
			sealedValue, err := t.TransformToStorage(ctx, put.Value, value.DefaultContext(put.Key))
			if err != nil {
				return store.TxnResponse{}, &store.ValueError{Key: put.Key, Err: fmt.Errorf("encrypt it: %w", err)}
			}
			put.Value = sealedValue
		}
	}
	return e.Engine.Txn(ctx, sealed)
}

// Watch implements store.Engine.
func (e *Engine) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	s, err := e.Engine.Watch(ctx, from, prev)
	if err != nil {
		return nil, err
	}
	return &stream{Stream: s, engine: e}, nil
}

type stream struct {
	store.Stream
	engine *Engine
}

// Next implements store.Stream. Events are shared between streams, so those with
// a value are copied.
func (s *stream) Next(ctx context.Context) ([]store.RawEvent, error) {
	events, err := s.Stream.Next(ctx)
	if err != nil {
		return nil, err
	}
	events = slices.Clone(events)
	for i := range events {
		ev := &events[i]
		if ev.Prev != nil {
			prev := *ev.Prev
			if err := s.engine.open(ctx, &prev); err != nil {
				return nil, err
			}
			ev.Prev = &prev
		}
		if ev.Delete {
			continue
		}
		if err := s.engine.open(ctx, &ev.KV); err != nil {
			return nil, err
		}
	}
	return events, nil
}
