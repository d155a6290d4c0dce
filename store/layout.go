package store

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hansa.dev/hansa/api"
)

// layout is which tables there are. Immutable: another one takes its place when
// kinds are defined or gone.
type layout struct {
	reg      *api.Registry
	pool     *pool
	fixed    int      // how many of tables are those that the store was opened with
	tables   []*table // by place; nil where one is gone
	byPrefix map[string]*table
	byRow    map[*api.Resource]*table
}

func newLayout(reg *api.Registry) (*layout, error) {
	l := &layout{reg: reg, pool: &pool{}, byPrefix: map[string]*table{}, byRow: map[*api.Resource]*table{}}
	for _, row := range reg.Resources() {
		if row.Prefix == "" {
			continue
		}
		t, err := newTable(reg, row, len(l.tables), l.pool)
		if err != nil {
			return nil, err
		}
		l.place(t)
	}
	l.fixed = len(l.tables)
	return l, nil
}

func (l *layout) place(t *table) {
	if t.place == len(l.tables) {
		l.tables = append(l.tables, t)
	} else {
		l.tables[t.place] = t
	}
	l.byPrefix[t.row.Prefix], l.byRow[t.row] = t, t
}

// free is a place for one more table.
func (l *layout) free() int {
	if i := slices.Index(l.tables[l.fixed:], nil); i >= 0 {
		return l.fixed + i
	}
	return len(l.tables)
}

// extended is the layout with the tables of rows beside the fixed ones. A table
// is known by its prefix: another row for the same objects changes nothing. It
// names the tables that are new.
func (l *layout) extended(rows []*api.Resource) (next *layout, added []*table, err error) {
	next = &layout{
		reg: l.reg, pool: l.pool, fixed: l.fixed,
		tables:   slices.Clone(l.tables[:l.fixed]),
		byPrefix: make(map[string]*table, l.fixed+len(rows)),
		byRow:    make(map[*api.Resource]*table, l.fixed+len(rows)),
	}
	for _, t := range next.tables {
		next.place(t)
	}
	next.tables = append(next.tables, make([]*table, len(l.tables)-l.fixed)...)
	var fresh []*api.Resource
	for _, row := range rows {
		t := l.byPrefix[row.Prefix]
		switch {
		case t == nil, t.place >= l.fixed && !t.keeps(row):
			fresh = append(fresh, row)
			continue
		case t.place < l.fixed:
			continue // it would show other kinds' objects
		}
		next.tables[t.place], next.byPrefix[row.Prefix] = t, t
		next.name(row, t)
	}
	for _, row := range fresh {
		t, err := newTable(l.reg, row, next.free(), l.pool)
		if err != nil {
			return nil, nil, err
		}
		next.place(t)
		next.name(row, t)
		added = append(added, t)
	}
	return next, added, nil
}

// keeps says whether a table can go on with another row. One that is defined anew
// may have another kind or scope.
func (t *table) keeps(row *api.Resource) bool {
	return t.row.Kind == row.Kind && t.row.Namespaced == row.Namespaced
}

// has says whether a table is one of the layout.
func (l *layout) has(t *table) bool {
	return t.place >= 0 && t.place < len(l.tables) && l.tables[t.place] == t
}

// table finds the table of a row. Whoever still works with the row of a kind whose
// definition was changed has the same objects; one whose definition is gone has an
// empty table of its own.
func (l *layout) table(r *api.Resource) *table {
	if t := l.byRow[r]; t != nil {
		return t
	}
	if r.View == nil {
		panic(fmt.Sprintf("store: resource %s has no storage in this store", r.Plural))
	}
	if t := l.byPrefix[r.Prefix]; t != nil && t.place >= l.fixed {
		return t
	}
	t, err := newTable(l.reg, r, -1, l.pool)
	if err != nil {
		panic(fmt.Sprintf("store: %v", err)) // it was once, and worked
	}
	return t
}

// name lets the table be found by all rows of its kind.
func (l *layout) name(row *api.Resource, t *table) {
	l.byRow[row] = t
	for _, view := range row.Views {
		l.byRow[view] = t
	}
}

// all are the tables that there are.
func (l *layout) all() []*table {
	return slices.DeleteFunc(slices.Clone(l.tables), func(t *table) bool { return t == nil })
}

// Extend makes rows those whose objects are kept beside the ones that the store
// was opened with, instead of whatever was. What is in the database of a new one
// is read before it returns. The objects of one that is left out are no longer
// shown, and stay in the database.
func (s *Store) Extend(ctx context.Context, rows []*api.Resource) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	was := s.layout.Load()
	next, added, err := was.extended(rows)
	if err != nil {
		return fmt.Errorf("extend the store: %w", err)
	}
	revision := s.snap.Load().revision
	for _, t := range added {
		if err := s.fill(ctx, t, revision); err != nil {
			return fmt.Errorf("extend the store: read %s: %w", t.row.Plural, err)
		}
		t.reset(lastOf(revision))
	}
	s.layout.Store(next)
	s.expose(revision)
	return nil
}

// fill reads the objects of a new table as of a revision that the copy has. If
// that is compacted meanwhile, the copy is so old that it will be read anew.
func (s *Store) fill(ctx context.Context, t *table, revision int64) error {
	for page, err := range Pages(ctx, s.engine, RangeRequest{Start: t.prefix, End: prefixEnd(t.prefix), Limit: loadPage, Revision: revision}) {
		if err != nil {
			return err
		}
		for _, kv := range page.KVs {
			key := kv.Key[len(t.prefix):]
			if !t.owns(key) {
				continue
			}
			e, err := t.entry(key, kv)
			if err != nil {
				return err
			}
			s.guard(t, e)
			t.put(e)
		}
	}
	return nil
}

// errGone answers for a resource that is no longer defined.
func errGone(r *api.Resource) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", r.GroupResource(), "", "", 0, true)
}
