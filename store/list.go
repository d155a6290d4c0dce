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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
)

// List reads the objects of a query from one consistent state.
func (s *Store) List(ctx context.Context, q Query, o ListOptions) (List, error) {
	p, err := s.Scan(ctx, q, o)
	if err != nil {
		return List{}, err
	}
	items := slices.Collect(p.Objects)
	if err := p.Failed(); err != nil {
		return List{}, err
	}
	return List{Items: items, ResourceVersion: p.ResourceVersion, Continue: p.Continue, Remaining: p.Remaining}, nil
}

// Failed is Err where there is one.
func (p *Page) Failed() error {
	if p.Err == nil {
		return nil
	}
	return p.Err()
}

// Scan is List for who goes through the objects once: however many there are,
// they take no memory, unless there is a limit.
func (s *Store) Scan(ctx context.Context, q Query, o ListOptions) (Page, error) {
	sel, err := s.selector(q)
	if err != nil {
		return Page{}, err
	}
	if o.Continue != "" {
		return s.listMore(ctx, sel, o)
	}
	exact, err := s.listMode(o)
	if err != nil {
		return Page{}, err
	}
	if exact != 0 {
		if err := s.await(ctx, exact); err != nil {
			return Page{}, err
		}
		return s.listAt(ctx, sel, exact, "", o.Limit)
	}
	if err := s.notOlder(ctx, o.ResourceVersion); err != nil {
		return Page{}, err
	}
	snap := s.snap.Load()
	return sel.page(snap.of(sel.table), "", lastOf(snap.revision), o.Limit), nil
}

// listMode checks the options by the table in Kubernetes' API concepts
// ("Resource versions", semantics for get and list) and answers the version
// that is wanted exactly, or 0.
func (s *Store) listMode(o ListOptions) (exact int64, err error) {
	rv, err := parseVersion(o.ResourceVersion)
	if err != nil {
		return 0, apierrors.NewBadRequest("invalid resource version: " + err.Error())
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

// page is what matches of a view, from a key on. It holds the view and not the
// snapshot, which has all other resources in it.
func (q *selector) page(v *tableView, from string, version, limit int64) Page {
	if limit > 0 {
		return page(q, q.scan(v, from), version, limit, func(e *entry) int64 { return countAfter(v, q, e.key) })
	}
	return Page{ResourceVersion: formatVersion(version), Objects: func(yield func(api.Object) bool) {
		for e := range q.scan(v, from) {
			if q.matches(e) && !yield(e.obj) {
				return
			}
		}
	}}
}

// page takes the entries that match, up to the limit. They are of this version.
func page(sel *selector, from iter.Seq[*entry], version, limit int64, after func(*entry) int64) Page {
	p := Page{ResourceVersion: formatVersion(version)}
	var items []api.Object
	var last *entry
	for e := range from {
		if !sel.matches(e) {
			continue
		}
		if limit > 0 && int64(len(items)) == limit {
			p.Continue = token{Revision: version, Start: last.key + "\x00"}.String()
			if sel.counts() {
				n := after(last)
				p.Remaining = &n
			}
			break
		}
		items = append(items, e.obj)
		last = e
	}
	p.Objects = slices.Values(items)
	return p
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
	why := ""
	switch {
	case err != nil:
		why = err.Error()
	case t.APIVersion != tokenVersion:
		why = "server does not recognize this encoded version " + t.APIVersion
	case t.Revision == 0 || t.Revision < -1:
		why = "incorrect encoded start resourceVersion (version " + tokenVersion + ")"
	case t.Start == "":
		why = "encoded start key empty (version " + tokenVersion + ")"
	default:
		return t, nil
	}
	return t, apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + why)
}

// listMore answers a later page from the state of the first one.
func (s *Store) listMore(ctx context.Context, sel *selector, o ListOptions) (Page, error) {
	if o.ResourceVersion != "" || o.ResourceVersionMatch != "" {
		return Page{}, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	t, err := parseToken(o.Continue)
	if err != nil {
		return Page{}, err
	}
	if t.Revision < 0 {
		if err := s.sync(ctx); err != nil {
			return Page{}, err
		}
		return s.listAt(ctx, sel, lastOf(s.snap.Load().revision), t.Start, o.Limit)
	}
	if err := s.await(ctx, t.Revision); err != nil {
		return Page{}, err
	}
	list, err := s.listAt(ctx, sel, t.Revision, t.Start, o.Limit)
	if apierrors.IsResourceExpired(err) {
		return Page{}, errTokenExpired(t)
	}
	if late := list.Err; late != nil {
		list.Err = func() error {
			err := late()
			if apierrors.IsResourceExpired(err) {
				return errTokenExpired(t)
			}
			return err
		}
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

// listAt reads as of one version, from a key on: from the copy if the resource
// has not changed since, else from the engine's history. What one transaction
// wrote is there together, whichever of its versions is asked for; who watches
// from that version hears again of what came behind it.
func (s *Store) listAt(ctx context.Context, sel *selector, version int64, from string, limit int64) (Page, error) {
	snap, revision := s.snap.Load(), version/slots
	view := snap.of(sel.table)
	if view.newest <= revision && revision <= snap.revision {
		return sel.page(view, from, version, limit), nil
	}
	if revision == 0 { // before the first; to the engine it means the newest
		return Page{}, errTooOld(version, lastOf(revision))
	}
	h := &historicList{ctx: ctx, store: s, sel: sel, revision: revision}
	if limit > 0 {
		list := page(sel, h.scan(from), version, limit, h.countAfter)
		return list, h.failure(version)
	}
	// What is gone already is refused before an answer has begun.
	if _, h.err = s.engine.Range(ctx, RangeRequest{Start: sel.table.prefix, Revision: revision}); h.err != nil {
		return Page{}, h.failure(version)
	}
	return Page{
		ResourceVersion: formatVersion(version),
		Err:             func() error { return h.failure(version) },
		Objects: func(yield func(api.Object) bool) {
			h.err = nil
			for e := range h.scan(from) {
				if sel.matches(e) && !yield(e.obj) {
					return
				}
			}
		},
	}, nil
}

// failure explains why the history could not be read, nil if it could.
func (h *historicList) failure(version int64) error {
	if h.err == nil {
		return nil
	}
	var gone *CompactedError
	if errors.As(h.err, &gone) {
		return errTooOld(version, lastOf(gone.Compacted))
	}
	var value *ValueError
	if errors.As(h.err, &value) {
		// Written with a key that is not in use any more: gone, like what is
		// compacted.
		return errTooOld(version, lastOf(h.store.snap.Load().revision))
	}
	if h.ctx.Err() != nil {
		return h.ctx.Err()
	}
	return errRead(fmt.Sprintf("list %s at revision %d", h.sel.Resource.Plural, h.revision), h.err)
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
	t := h.sel.table
	start, end := t.prefix+max(from, h.sel.prefix), prefixEnd(t.prefix+h.sel.prefix)
	return func(yield func(*entry) bool) {
		for resp, err := range Pages(h.ctx, h.store.engine, RangeRequest{Start: start, End: end, Revision: h.revision, Limit: loadPage}) {
			if err != nil {
				h.err = err
				return
			}
			for _, kv := range resp.KVs {
				key := strings.TrimPrefix(kv.Key, t.prefix)
				if !t.owns(key) {
					continue
				}
				e, err := t.entry(key, kv)
				if err != nil {
					h.err = err
					return
				}
				if !yield(e) {
					return
				}
			}
		}
	}
}

func (h *historicList) countAfter(e *entry) int64 {
	t := h.sel.table
	resp, err := h.store.engine.Range(h.ctx, RangeRequest{
		Start:     t.prefix + e.key + "\x00",
		End:       prefixEnd(t.prefix + h.sel.prefix),
		Revision:  h.revision,
		CountOnly: true,
	})
	if err != nil {
		h.err = err
	}
	return resp.Count
}
