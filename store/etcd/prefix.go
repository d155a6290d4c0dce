package etcd

import (
	"context"
	"strings"

	"hansa.dev/hansa/store"
)

const (
	// registry is where the store has Kubernetes' objects: DefaultPrefix, with what
	// divides it from the rest.
	registry = DefaultPrefix + "/"
	// afterRegistry is the end of the range of all of them.
	afterRegistry = DefaultPrefix + "0"
	// elsewhere begins the names that the store has for keys of etcd that lie where
	// it expects its objects and are those of another prefix.
	elsewhere = "/hansa.dev/elsewhere"
)

// DefaultPrefix is kube-apiserver's default of --etcd-prefix.
const DefaultPrefix = "/registry"

// Prefixed is an engine whose objects lie below another prefix than
// DefaultPrefix in etcd (kube-apiserver's --etcd-prefix), so that several API
// servers can share one. Every key has exactly one name on either side, and the
// store still hears of every revision: it waits for those of others, too.
//
// prefix begins with a slash and does not end with one. The caller goes on to
// use the engine given as before.
func Prefixed(e store.Engine, prefix string) store.Engine {
	if prefix == "" || prefix == DefaultPrefix {
		return e
	}
	return prefixed{e, prefix}
}

type prefixed struct {
	store.Engine
	prefix string
}

// out is the name in etcd of a key of the store, or of the end of a range.
func (e prefixed) out(key string) string {
	switch {
	case strings.HasPrefix(key, registry):
		return e.prefix + "/" + key[len(registry):]
	case key == afterRegistry:
		return e.prefix + "0"
	case strings.HasPrefix(key, elsewhere):
		return key[len(elsewhere):]
	}
	return key
}

// in is the store's name of a key in etcd.
func (e prefixed) in(kv store.KV) store.KV {
	switch {
	case strings.HasPrefix(kv.Key, e.prefix+"/"):
		kv.Key = registry + kv.Key[len(e.prefix)+1:]
	case strings.HasPrefix(kv.Key, registry):
		kv.Key = elsewhere + kv.Key
	}
	return kv
}

// Range implements store.Engine.
func (e prefixed) Range(ctx context.Context, r store.RangeRequest) (store.RangeResponse, error) {
	r.Start = e.out(r.Start)
	if r.End != "" {
		r.End = e.out(r.End)
	}
	resp, err := e.Engine.Range(ctx, r)
	for i := range resp.KVs {
		resp.KVs[i] = e.in(resp.KVs[i])
	}
	return resp, err
}

// Txn implements store.Engine.
func (e prefixed) Txn(ctx context.Context, steps []store.Step) (store.TxnResponse, error) {
	renamed := make([]store.Step, len(steps))
	for i, s := range steps {
		renamed[i] = store.Step{If: make([]store.Condition, len(s.If)), Then: make([]store.Put, len(s.Then))}
		for j, c := range s.If {
			c.Key = e.out(c.Key)
			renamed[i].If[j] = c
		}
		for j, p := range s.Then {
			p.Key = e.out(p.Key)
			renamed[i].Then[j] = p
		}
	}
	resp, err := e.Engine.Txn(ctx, renamed)
	for _, step := range resp.Steps {
		for i := range step.Found {
			step.Found[i] = e.in(step.Found[i])
		}
	}
	return resp, err
}

// Watch implements store.Engine.
func (e prefixed) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	s, err := e.Engine.Watch(ctx, from, prev)
	if err != nil {
		return nil, err
	}
	return prefixedStream{s, e}, nil
}

type prefixedStream struct {
	store.Stream
	engine prefixed
}

// Next implements store.Stream.
func (s prefixedStream) Next(ctx context.Context) ([]store.RawEvent, error) {
	events, err := s.Stream.Next(ctx)
	for i := range events {
		events[i].KV = s.engine.in(events[i].KV)
		if prev := events[i].Prev; prev != nil {
			kv := s.engine.in(*prev)
			events[i].Prev = &kv
		}
	}
	return events, err
}
