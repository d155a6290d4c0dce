package api

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Registry is the set of kinds that a process serves. It is built once and
// then only read, from any goroutine.
type Registry struct {
	scheme    *runtime.Scheme
	rows      []*Resource
	byGVR     map[schema.GroupVersionResource]*Served
	byGVK     map[schema.GroupVersionKind]*Served
	byStorage map[string]*Resource // by storage prefix
}

// Served is one version of one row, which may also be the one it is stored in.
type Served struct {
	*Resource
	Version *Version
}

// NewRegistry checks that no two rows claim the same name or storage prefix.
// scheme must know the Go types of all versions of all rows.
func NewRegistry(scheme *runtime.Scheme, rows []*Resource) (*Registry, error) {
	r := &Registry{
		scheme:    scheme,
		rows:      rows,
		byGVR:     map[schema.GroupVersionResource]*Served{},
		byGVK:     map[schema.GroupVersionKind]*Served{},
		byStorage: map[string]*Resource{},
	}
	for _, row := range rows {
		if row.Prefix != "" {
			if other := r.byStorage[row.Prefix]; other != nil {
				return nil, fmt.Errorf("resources %s and %s are both stored below %q", other.Plural, row.Plural, row.Prefix)
			}
			r.byStorage[row.Prefix] = row
		}
		for i := range row.Versions {
			v := &row.Versions[i]
			served := &Served{Resource: row, Version: v}
			gvr := v.WithResource(row.Plural)
			if r.byGVR[gvr] != nil {
				return nil, fmt.Errorf("resource %s is described twice", gvr)
			}
			r.byGVR[gvr] = served
			r.byGVK[v.WithKind(row.Kind)] = served
		}
		if v := row.StoredAs; v != nil {
			r.byGVK[v.WithKind(row.Kind)] = &Served{Resource: row, Version: v}
		}
	}
	return r, nil
}

// Scheme knows the Go types of everything served.
func (r *Registry) Scheme() *runtime.Scheme { return r.scheme }

// Resources are all rows, in the order given to NewRegistry. Not to be written to.
func (r *Registry) Resources() []*Resource { return r.rows }

// ByGVR finds a served version by its resource name, or nil.
func (r *Registry) ByGVR(gvr schema.GroupVersionResource) *Served { return r.byGVR[gvr] }

// ByGVK finds a version by its kind, or nil: a served one, or the one in which
// a row is stored.
func (r *Registry) ByGVK(gvk schema.GroupVersionKind) *Served { return r.byGVK[gvk] }

// ByPrefix finds the row stored below a prefix, or nil.
func (r *Registry) ByPrefix(prefix string) *Resource { return r.byStorage[prefix] }

// Of finds the row of an object by its Go type, or nil.
func (r *Registry) Of(obj runtime.Object) *Resource {
	kinds, _, err := r.scheme.ObjectKinds(obj)
	if err != nil {
		return nil
	}
	for _, gvk := range kinds {
		if s := r.byGVK[gvk]; s != nil {
			return s.Resource
		}
	}
	return nil
}

// Must finds a row by group and plural name. It panics when there is none: for
// code that is about one kind, whose absence is a programming error.
func (r *Registry) Must(group, plural string) *Resource {
	for _, row := range r.rows {
		if row.Group == group && row.Plural == plural {
			return row
		}
	}
	panic(fmt.Sprintf("api: no resource %s in group %q", plural, group))
}
