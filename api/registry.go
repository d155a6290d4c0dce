package api

import (
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Registry is the set of kinds that a process serves: those it was made with,
// which stay, and those of definitions, which come and go. It may be used from
// any goroutine. Reads take no lock: each sees one set of rows, which is replaced
// as a whole.
type Registry struct {
	scheme *runtime.Scheme
	base   []*Resource
	groups map[string]bool // that base is served in
	now    atomic.Pointer[rows]

	mu sync.Mutex // held by whoever replaces the set
}

// rows are one state of a registry. Immutable.
type rows struct {
	list      []*Resource
	served    []*Served
	byGVR     map[schema.GroupVersionResource]*Served
	byGVK     map[schema.GroupVersionKind]*Served
	byStorage map[string]*Resource // by storage prefix
	ended     chan struct{}        // closed when another state takes its place
}

// Served is one version of one row, which may also be the one it is stored in.
type Served struct {
	*Resource
	Version *Version
	// Memo keeps what a server derives from the version, for as long as it is
	// served.
	Memo sync.Map
}

// NewRegistry checks that no two rows claim the same name or storage prefix.
// scheme must know the Go types of all versions of all rows.
func NewRegistry(scheme *runtime.Scheme, list []*Resource) (*Registry, error) {
	r := &Registry{scheme: scheme, base: list, groups: map[string]bool{}}
	set := newRows(len(list))
	for _, row := range list {
		for i := range row.Versions {
			r.groups[row.Versions[i].Group] = true
		}
		if err := set.add(row); err != nil {
			return nil, err
		}
	}
	r.now.Store(set)
	return r, nil
}

func newRows(n int) *rows {
	return &rows{
		byGVR:     make(map[schema.GroupVersionResource]*Served, n),
		byGVK:     make(map[schema.GroupVersionKind]*Served, n),
		byStorage: make(map[string]*Resource, n),
		ended:     make(chan struct{}),
	}
}

// add takes a row in, all or nothing.
func (s *rows) add(row *Resource) error {
	if other := s.byStorage[row.Prefix]; other != nil && row.Prefix != "" {
		return fmt.Errorf("resources %s and %s are both stored below %q", other.Plural, row.Plural, row.Prefix)
	}
	all := append([]*Resource{row}, row.Views...)
	for _, r := range all {
		for i := range r.Versions {
			if gvr := r.Versions[i].WithResource(r.Plural); s.byGVR[gvr] != nil {
				return fmt.Errorf("resource %s is described twice", gvr)
			}
		}
	}
	s.list = append(s.list, row)
	if row.Prefix != "" {
		s.byStorage[row.Prefix] = row
	}
	for _, r := range all {
		for i := range r.Versions {
			v := &r.Versions[i]
			served := &Served{Resource: r, Version: v}
			s.served = append(s.served, served)
			s.byGVR[v.WithResource(r.Plural)] = served
			s.byGVK[v.WithKind(r.Kind)] = served
		}
	}
	if v := row.StoredAs; v != nil {
		s.byGVK[v.WithKind(row.Kind)] = &Served{Resource: row, Version: v}
	}
	return nil
}

// Define makes rows those that are served beside the ones that the registry was
// made with, instead of whatever was. Rows that are in it already keep what was
// derived from them. A row whose name is another's is left out and named in an
// error.
func (r *Registry) Define(defined []*Resource) (errs []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.now.Load()
	set := newRows(len(r.base) + len(defined))
	for _, row := range r.base {
		_ = set.add(row) // they went together before
	}
	for _, row := range defined {
		if err := set.add(row); err != nil {
			errs = append(errs, err)
		}
	}
	set.keep(was)
	r.now.Store(set)
	close(was.ended)
	return errs
}

// keep takes over the versions that are served already.
func (s *rows) keep(was *rows) {
	for i, served := range s.served {
		gvr := served.Version.WithResource(served.Plural)
		if old := was.byGVR[gvr]; old != nil && old.Version == served.Version {
			s.served[i], s.byGVR[gvr], s.byGVK[served.Version.WithKind(served.Kind)] = old, old, old
		}
	}
}

// Changed is closed when other rows are served than now.
func (r *Registry) Changed() <-chan struct{} { return r.now.Load().ended }

// Scheme knows the Go types of everything served that has some.
func (r *Registry) Scheme() *runtime.Scheme { return r.scheme }

// Resources are all rows: those given to NewRegistry in their order, then those
// of definitions. Not to be written to.
func (r *Registry) Resources() []*Resource { return r.now.Load().list }

// Served are all versions of all rows, in the order of Resources. Not to be
// written to.
func (r *Registry) Served() []*Served { return r.now.Load().served }

// BuiltIn says whether rows that the registry was made with are served in a group.
func (r *Registry) BuiltIn(group string) bool { return r.groups[group] }

// ByGVR finds a served version by its resource name, or nil.
func (r *Registry) ByGVR(gvr schema.GroupVersionResource) *Served { return r.now.Load().byGVR[gvr] }

// ByGVK finds a version by its kind, or nil: a served one, or the one in which
// a row is stored.
func (r *Registry) ByGVK(gvk schema.GroupVersionKind) *Served { return r.now.Load().byGVK[gvk] }

// ByPrefix finds the row stored below a prefix, or nil.
func (r *Registry) ByPrefix(prefix string) *Resource { return r.now.Load().byStorage[prefix] }

// Of finds the row of an object by its Go type, or nil.
func (r *Registry) Of(obj runtime.Object) *Resource {
	kinds, _, err := r.scheme.ObjectKinds(obj)
	if err != nil {
		return nil
	}
	for _, gvk := range kinds {
		if s := r.ByGVK(gvk); s != nil {
			return s.Resource
		}
	}
	return nil
}

// Must finds a row by group and plural name. It panics when there is none: for
// code that is about one kind, whose absence is a programming error.
func (r *Registry) Must(group, plural string) *Resource {
	for _, row := range r.base {
		if row.Group == group && row.Plural == plural {
			return row
		}
	}
	panic(fmt.Sprintf("api: no resource %s in group %q", plural, group))
}
