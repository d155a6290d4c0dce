// Package byservice keeps endpoint slices by the service that each names, for
// those who are told of slices one by one and work service by service.
package byservice

import (
	"cmp"
	"maps"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// A Key names a namespaced object.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Compare orders keys by namespace, then name.
func (k Key) Compare(l Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, l.Namespace), cmp.Compare(k.Name, l.Name))
}

// Slices are endpoint slices by their services. The zero value is not usable.
type Slices struct {
	of    map[Key]map[string]*discoveryv1.EndpointSlice // by service, then name
	owner map[Key]Key                                   // slice to service
}

// New returns no slices.
func New() *Slices {
	return &Slices{of: map[Key]map[string]*discoveryv1.EndpointSlice{}, owner: map[Key]Key{}}
}

// Set adds or replaces a slice, and returns the services to which that matters:
// a slice may come to name another one. One without the label that names its
// service belongs to none.
func (s *Slices) Set(e *discoveryv1.EndpointSlice) []Key {
	k := Key{e.Namespace, e.Name}
	svc := Key{e.Namespace, e.Labels[discoveryv1.LabelServiceName]}
	var touched []Key
	if s.owner[k] != svc {
		touched = s.Delete(k)
	}
	if svc.Name == "" {
		return touched
	}
	s.owner[k] = svc
	if s.of[svc] == nil {
		s.of[svc] = map[string]*discoveryv1.EndpointSlice{}
	}
	s.of[svc][e.Name] = e
	return append(touched, svc)
}

// Delete removes a slice, and returns the service to which that matters.
func (s *Slices) Delete(k Key) []Key {
	svc, ok := s.owner[k]
	if !ok {
		return nil
	}
	delete(s.owner, k)
	delete(s.of[svc], k.Name)
	if len(s.of[svc]) == 0 {
		delete(s.of, svc)
	}
	return []Key{svc}
}

// Of returns a service's slices in the order of their names.
func (s *Slices) Of(svc Key) []*discoveryv1.EndpointSlice {
	return slices.SortedFunc(maps.Values(s.of[svc]), func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Compare(a.Name, b.Name)
	})
}
