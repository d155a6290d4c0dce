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
	"slices"
	"strings"

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

// engine transforms values on their way to another engine and back.
type engine struct {
	store.Engine
	byPrefix map[string]value.Transformer
}

// Wrap puts encryption before an engine, which belongs to the result.
func Wrap(e store.Engine, reg *api.Registry, c *Config) store.Engine {
	w := &engine{Engine: e, byPrefix: map[string]value.Transformer{}}
	for prefix, gr := range claims {
		w.byPrefix[prefix] = c.of(gr)
	}
	for _, row := range reg.Resources() {
		if row.Prefix != "" {
			w.byPrefix[row.Prefix] = c.of(row.GroupResource())
		}
	}
	return w
}

// Unknown are the resources that a configuration names and no row has, sorted.
func (c *Config) Unknown(reg *api.Registry) []string {
	var unknown []string
	for gr := range c.byResource {
		known := gr == everything || slices.ContainsFunc(reg.Resources(), func(r *api.Resource) bool {
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
func (e *engine) transformer(key string) value.Transformer {
	rest, ok := strings.CutPrefix(key, root)
	if !ok {
		return nil
	}
	// Storage prefixes have one segment (pods) or two (services/specs), and a
	// claim may have nothing behind its prefix.
	first, more, _ := strings.Cut(rest, "/")
	second, _, _ := strings.Cut(more, "/")
	if t := e.byPrefix[first+"/"+second]; t != nil {
		return t
	}
	return e.byPrefix[first]
}

// open makes the value of kv plain.
func (e *engine) open(ctx context.Context, kv *store.KV) error {
	t := e.transformer(kv.Key)
	if t == nil || len(kv.Value) == 0 {
		return nil
	}
	opened, stale, err := t.TransformFromStorage(ctx, kv.Value, value.DefaultContext(kv.Key))
	if err != nil {
		return &store.ValueError{Key: kv.Key, Err: fmt.Errorf("decrypt it: %w; "+
			"--encryption-provider-config must have the key that it was written with until it has been rewritten", err)}
	}
	kv.Value, kv.Stale = opened, stale
	return nil
}

// Range implements store.Engine.
func (e *engine) Range(ctx context.Context, r store.RangeRequest) (store.RangeResponse, error) {
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
func (e *engine) Txn(ctx context.Context, steps []store.Step) (store.TxnResponse, error) {
	sealed := slices.Clone(steps)
	for i := range sealed {
		sealed[i].Then = slices.Clone(sealed[i].Then)
		for j := range sealed[i].Then {
			put := &sealed[i].Then[j]
			t := e.transformer(put.Key)
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
func (e *engine) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	s, err := e.Engine.Watch(ctx, from, prev)
	if err != nil {
		return nil, err
	}
	return &stream{Stream: s, engine: e}, nil
}

type stream struct {
	store.Stream
	engine *engine
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
