package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	e := s.snap.Load().tables[t.place].get(t.key(ref))
	if e == nil {
		return nil, errNotFound(ref)
	}
	return e.obj, nil
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
	case q.index >= 0 && !slices.Contains(q.table.indexes[q.index].Values(e.obj), q.Value):
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
		return v.scanIndex(q.index, q.Value, max(from, q.prefix))
	}
	return v.scan(q.prefix, from)
}

// List reads the objects of a query from one consistent state.
func (s *Store) List(ctx context.Context, q Query, o ListOptions) (List, error) {
	sel, err := s.selector(q)
	if err != nil {
		return List{}, err
	}
	if o.Continue != "" {
		return s.listMore(ctx, sel, o)
	}
	exact, err := s.listMode(o)
	if err != nil {
		return List{}, err
	}
	if exact != 0 {
		if err := s.await(ctx, exact); err != nil {
			return List{}, err
		}
		return s.listAt(ctx, sel, exact/slots, "", o.Limit)
	}
	if err := s.notOlder(ctx, o.ResourceVersion); err != nil {
		return List{}, err
	}
	snap := s.snap.Load()
	return page(sel, sel.scan(&snap.tables[sel.table.place], ""), snap.revision, o.Limit,
		func(e *entry) int64 { return countAfter(&snap.tables[sel.table.place], sel, e.key) }), nil
}

// listMode checks the options by the table in Kubernetes' API concepts
// ("Resource versions", semantics for get and list) and answers the version
// that is wanted exactly, or 0.
func (s *Store) listMode(o ListOptions) (exact int64, err error) {
	rv, err := parseVersion(o.ResourceVersion)
	if err != nil {
		return 0, err
	}
	switch o.ResourceVersionMatch {
	case "":
		if o.Limit > 0 {
			return rv, nil
		}
		return 0, nil
	case metav1.ResourceVersionMatchNotOlderThan:
		if o.ResourceVersion == "" {
			return 0, apierrors.NewBadRequest("resourceVersionMatch is forbidden unless resourceVersion is provided")
		}
		return 0, nil
	case metav1.ResourceVersionMatchExact:
		if rv == 0 {
			return 0, apierrors.NewBadRequest(`resourceVersionMatch "Exact" is forbidden for resourceVersion "" and "0"`)
		}
		return rv, nil
	}
	return 0, apierrors.NewBadRequest(fmt.Sprintf("unknown resourceVersionMatch %q", o.ResourceVersionMatch))
}

// countAfter is how many entries of a query that counts come behind a key.
func countAfter(v *tableView, sel *selector, key string) (n int64) {
	for range sel.scan(v, key+"\x00") {
		n++
	}
	return n
}

// page takes the entries that match, up to the limit.
func page(sel *selector, from iter.Seq[*entry], revision, limit int64, after func(*entry) int64) List {
	list := List{ResourceVersion: formatVersion(lastOf(revision))}
	var last *entry
	for e := range from {
		if !sel.matches(e) {
			continue
		}
		if limit > 0 && int64(len(list.Items)) == limit {
			list.Continue = token{Revision: lastOf(revision), Start: last.key + "\x00"}.String()
			if sel.counts() {
				n := after(last)
				list.Remaining = &n
			}
			break
		}
		list.Items = append(list.Items, e.obj)
		last = e
	}
	return list
}

// token is where the next page begins, in Kubernetes' own form.
type token struct {
	APIVersion string `json:"v"`
	Revision   int64  `json:"rv"` // a resource version; -1: whatever is newest
	Start      string `json:"start"`
}

const tokenVersion = "meta.k8s.io/v1"

func (t token) String() string {
	t.APIVersion = tokenVersion
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(s string) (t token, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil || t.APIVersion != tokenVersion || t.Start == "" || t.Revision == 0 || t.Revision < -1 {
		return t, apierrors.NewBadRequest("continue key is not valid")
	}
	return t, nil
}

// listMore answers a later page from the state of the first one.
func (s *Store) listMore(ctx context.Context, sel *selector, o ListOptions) (List, error) {
	if o.ResourceVersion != "" || o.ResourceVersionMatch != "" {
		return List{}, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	t, err := parseToken(o.Continue)
	if err != nil {
		return List{}, err
	}
	if t.Revision < 0 {
		if err := s.sync(ctx); err != nil {
			return List{}, err
		}
		return s.listAt(ctx, sel, s.snap.Load().revision, t.Start, o.Limit)
	}
	if err := s.await(ctx, t.Revision); err != nil {
		return List{}, err
	}
	list, err := s.listAt(ctx, sel, t.Revision/slots, t.Start, o.Limit)
	if apierrors.IsResourceExpired(err) {
		return List{}, errTokenExpired(t)
	}
	return list, err
}

// errTokenExpired comes with a token that goes on from the newest state
// instead, as Kubernetes' does.
func errTokenExpired(t token) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to retrieve " +
		"the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that " +
		"were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = token{Revision: -1, Start: t.Start}.String()
	return err
}

// listAt reads as of one revision, from a key on: from the copy if the resource
// has not changed since, else from the engine's history.
func (s *Store) listAt(ctx context.Context, sel *selector, revision int64, from string, limit int64) (List, error) {
	snap := s.snap.Load()
	view := &snap.tables[sel.table.place]
	if view.newest <= revision && revision <= snap.revision {
		return page(sel, sel.scan(view, from), revision, limit,
			func(e *entry) int64 { return countAfter(view, sel, e.key) }), nil
	}
	h := &historicList{ctx: ctx, store: s, sel: sel, revision: revision}
	list := page(sel, h.scan(from), revision, limit, h.countAfter)
	if h.err == nil {
		return list, nil
	}
	var gone *CompactedError
	if errors.As(h.err, &gone) {
		return List{}, errTooOld(lastOf(revision), lastOf(gone.Compacted))
	}
	if ctx.Err() != nil {
		return List{}, ctx.Err()
	}
	return List{}, errRead(fmt.Sprintf("list %s at revision %d", sel.Resource.Plural, revision), h.err)
}

// historicList reads entries of a past revision from the engine.
type historicList struct {
	ctx      context.Context
	store    *Store
	sel      *selector
	revision int64
	err      error
}

// scan decodes the entries from a key on, page by page.
func (h *historicList) scan(from string) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		t := h.sel.table
		h.raw(from, func(kv KV) bool {
			key := strings.TrimPrefix(kv.Key, t.prefix)
			if !t.owns(key) {
				return true
			}
			e, err := t.entry(key, kv)
			if err != nil {
				h.err = err
				return false
			}
			return yield(e)
		})
	}
}

func (h *historicList) raw(from string, f func(KV) bool) {
	t := h.sel.table
	start, end := t.prefix+max(from, h.sel.prefix), prefixEnd(t.prefix+h.sel.prefix)
	for h.err == nil {
		resp, err := h.store.engine.Range(h.ctx, RangeRequest{Start: start, End: end, Revision: h.revision, Limit: loadPage})
		if err != nil {
			h.err = err
			return
		}
		for _, kv := range resp.KVs {
			if !f(kv) {
				return
			}
		}
		if !resp.More {
			return
		}
		start = resp.KVs[len(resp.KVs)-1].Key + "\x00"
	}
}

func (h *historicList) countAfter(e *entry) (n int64) {
	t := h.sel.table
	h.raw(e.key+"\x00", func(kv KV) bool {
		if t.owns(strings.TrimPrefix(kv.Key, t.prefix)) {
			n++
		}
		return true
	})
	return n
}
