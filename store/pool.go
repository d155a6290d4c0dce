package store

import (
	"hash/maphash"
	"maps"
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pool has what objects of all kinds share, and makes them compact. Decoding
// allocates each string and map by itself and lets lists grow by doubling; but
// most short strings of an object, its labels and its resources are the same in
// many others. Those become one, and the room behind lists is given back.
//
// Of strings and maps it knows no more than came last: a value is looked for in
// one place, which follows from its hash, and the one that is there gives way to
// it. So the pool is bounded, and what is rare costs nothing.
type pool struct {
	fields    interned[metav1.FieldsV1]
	strings   latest[string]
	maps      latest[map[string]string]
	resources latest[corev1.ResourceList]
	planner
}

// Bounds of what is compared, in bytes and entries. A map of more than eight is
// no longer one piece of memory.
const (
	longestString = 48
	longestPair   = 256
	largestMap    = 8
)

// compact walks through all that a pointer leads to. Nobody else may have it
// yet.
func (p *pool) compact(pointer any) {
	v := reflect.ValueOf(pointer).Elem()
	if plan := p.plan(v.Type()); plan != nil {
		plan.run(p, v)
	}
}

func (p *pool) string(s string) string {
	if s == "" || len(s) > longestString {
		return s
	}
	return p.strings.get(maphash.String(placeSeed, s), s, func(a, b string) bool { return a == b })
}

func (p *pool) stringMap(m map[string]string) map[string]string {
	if len(m) == 0 || len(m) > largestMap {
		return m
	}
	var hash uint64 // the same in any order
	for key, value := range m {
		if len(key)+len(value) > longestPair {
			return m
		}
		hash += maphash.String(placeSeed, key) ^ 3*maphash.String(placeSeed, value)
	}
	return p.maps.get(hash, m, maps.Equal)
}

func (p *pool) resourceList(l corev1.ResourceList) corev1.ResourceList {
	if len(l) == 0 || len(l) > largestMap {
		return l
	}
	var hash uint64
	for name, quantity := range l {
		hash += maphash.String(placeSeed, string(name)) ^ 3*maphash.Comparable(placeSeed, quantity)
	}
	return p.resources.get(hash, l, maps.Equal)
}

// latest has one value for each place.
type latest[T any] struct {
	places [places]struct {
		sync.Mutex
		value T
	}
}

const places = 2048

var placeSeed = maphash.MakeSeed()

// get gives the value that is equal to this one: itself, from now on, if there
// is none.
func (l *latest[T]) get(hash uint64, value T, equal func(a, b T) bool) T {
	p := &l.places[hash%places]
	p.Lock()
	defer p.Unlock()
	if !equal(p.value, value) {
		p.value = value
	}
	return p.value
}
