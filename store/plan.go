package store

import (
	"reflect"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// plan is how values of a type are made compact. There is none for what holds
// nothing of interest.
type plan struct {
	kind   reflect.Kind
	fields []field // of a struct
	elem   *plan   // of a pointer or a list; nil: only the room behind the list matters
}

type field struct {
	index int
	*plan
}

var (
	stringMapType    = reflect.TypeFor[map[string]string]()
	resourceListType = reflect.TypeFor[corev1.ResourceList]()
)

// roomWorth is how many bytes behind a list are worth another allocation.
const roomWorth = 32

// planner makes plans when they are first asked for.
type planner struct {
	mu    sync.Mutex
	plans map[reflect.Type]*plan
}

func (p *planner) plan(t reflect.Type) *plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plans == nil {
		p.plans = map[reflect.Type]*plan{}
	}
	return p.of(t)
}

func (p *planner) of(t reflect.Type) *plan {
	if made, ok := p.plans[t]; ok {
		return made
	}
	made := &plan{kind: t.Kind()}
	p.plans[t] = made // types may contain themselves
	if !p.fill(made, t) {
		p.plans[t] = nil
	}
	return p.plans[t]
}

// fill says whether a value of the type can hold anything of interest.
func (p *planner) fill(made *plan, t reflect.Type) bool {
	switch made.kind {
	case reflect.String:
		return true
	case reflect.Map:
		return t == stringMapType || t == resourceListType
	case reflect.Pointer:
		made.elem = p.of(t.Elem())
		return made.elem != nil
	case reflect.Slice:
		made.elem = p.of(t.Elem())
		return t.Elem().Kind() != reflect.Uint8
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				if of := p.of(f.Type); of != nil {
					made.fields = append(made.fields, field{i, of})
				}
			}
		}
		return len(made.fields) > 0
	}
	return false
}

// run makes an addressable value compact.
func (p *plan) run(pool *pool, v reflect.Value) {
	switch p.kind {
	case reflect.String:
		v.SetString(pool.string(v.String()))
	case reflect.Map:
		switch m := v.Addr().Interface().(type) {
		case *map[string]string:
			*m = pool.stringMap(*m)
		case *corev1.ResourceList:
			*m = pool.resourceList(*m)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			p.elem.run(pool, v.Elem())
		}
	case reflect.Slice:
		n := v.Len()
		if room := v.Cap() - n; uintptr(room)*v.Type().Elem().Size() >= roomWorth {
			tight := reflect.MakeSlice(v.Type(), n, n)
			reflect.Copy(tight, v)
			v.Set(tight)
		}
		if p.elem != nil {
			for i := range n {
				p.elem.run(pool, v.Index(i))
			}
		}
	case reflect.Struct:
		for _, f := range p.fields {
			f.run(pool, v.Field(f.index))
		}
	}
}
