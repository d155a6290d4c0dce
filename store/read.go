package store

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hansa.dev/hansa/api"
)

// patience is how long a read waits for a version that is yet to come.
const patience = 3 * time.Second

// sync waits until the copy shows every write that was answered before.
func (s *Store) sync(ctx context.Context) error {
	revision, err := s.engine.CurrentRevision(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errRead("find the newest revision", err)
	}
	return s.reached.wait(ctx, revision)
}

// await waits until the copy has reached a client's version.
func (s *Store) await(ctx context.Context, rv int64) error {
	revision := rv / slots
	if s.snap.Load().revision >= revision {
		return s.reached.err()
	}
	timer := s.opts.Clock.NewTimer(patience)
	defer timer.Stop()
	late, err := s.reached.waitUntil(ctx, revision, timer.C())
	if late {
		return errTooLarge(rv, lastOf(s.snap.Load().revision))
	}
	return err
}

// notOlder waits as a read of that resource version has to.
func (s *Store) notOlder(ctx context.Context, version string) error {
	rv, err := parseVersion(version)
	if err != nil {
		return err
	}
	switch version {
	case "":
		return s.sync(ctx)
	case "0":
		return s.reached.err()
	}
	return s.await(ctx, rv)
}

// Get reads one object: the newest state for resourceVersion "", the copy as
// it is for "0", and a state not older than any other version.
func (s *Store) Get(ctx context.Context, ref api.Ref, resourceVersion string) (api.Object, error) {
	t := s.table(ref.Resource)
	if err := s.notOlder(ctx, resourceVersion); err != nil {
		return nil, err
	}
	e := s.snap.Load().of(t).get(t.key(ref))
	if e == nil {
		return nil, errNotFound(ref)
	}
	return e.obj, nil
}

// Reread gives an object as it would be read back if it were stored: an encoding
// tells no list that is empty from one that is not there. The object belongs to
// the store then; the version of what is given back is that of the object.
func (s *Store) Reread(r *api.Resource, obj api.Object) (api.Object, error) {
	if _, ok := obj.(selfStored); ok {
		return obj, nil
	}
	version, c := obj.GetResourceVersion(), s.table(r).codec
	value, err := c.encode(obj, 0)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", api.RefTo(r, obj), err)
	}
	read, _, _, err := c.decode(value)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", api.RefTo(r, obj), err)
	}
	read.SetResourceVersion(version)
	return read, nil
}

// Raw reads a raw key (below /registry/), newest state. An absent key has
// modification revision 0.
func (s *Store) Raw(ctx context.Context, key string) (value []byte, modRevision int64, err error) {
	resp, err := s.engine.Range(ctx, RangeRequest{Start: root + key})
	if err != nil {
		return nil, 0, errRead("read key "+key, err)
	}
	if len(resp.KVs) == 0 {
		return nil, 0, nil
	}
	return resp.KVs[0].Value, resp.KVs[0].ModRevision, nil
}

// selector is a Query made ready for its table.
type selector struct {
	Query
	table  *table
	prefix string // of keys
	key    string // of the one object asked for, or ""
	index  int    // place of the index, or -1
}

func (s *Store) selector(q Query) (*selector, error) {
	sel := &selector{Query: q, table: s.table(q.Resource), index: -1}
	if q.Resource.Namespaced && q.Namespace != "" {
		sel.prefix = q.Namespace + "/"
	}
	if q.Name != "" && (q.Namespace != "" || !q.Resource.Namespaced) {
		sel.key = sel.prefix + q.Name
	}
	if q.Index != "" {
		if sel.index = sel.table.indexNamed(q.Index); sel.index < 0 {
			return nil, apierrors.NewInternalError(fmt.Errorf("%s have no index %q", q.Resource.Plural, q.Index))
		}
	}
	return sel, nil
}

// matches asks every condition of the query.
func (q *selector) matches(e *entry) bool {
	switch {
	case q.key != "" && e.key != q.key, !strings.HasPrefix(e.key, q.prefix):
		return false
	case q.Name != "" && q.key == "" && !strings.HasSuffix(e.key, "/"+q.Name):
		return false
	case q.index >= 0 && !q.table.has(q.index, e.obj, q.Value):
		return false
	}
	return q.Match == nil || q.Match(e.obj)
}

// counts says that how many objects match is known without asking each.
func (q *selector) counts() bool { return q.Match == nil && q.index < 0 && q.Name == "" }

// scan goes through what may match, from a key on.
func (q *selector) scan(v *tableView, from string) iter.Seq[*entry] {
	switch {
	case q.key != "":
		return func(yield func(*entry) bool) {
			if e := v.get(q.key); e != nil && q.key >= from {
				yield(e)
			}
		}
	case q.index >= 0:
		return v.scanIndex(q.index, q.Value, q.prefix, from)
	}
	return v.scan(q.prefix, from)
}
