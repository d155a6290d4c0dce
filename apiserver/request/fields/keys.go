package fields

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"

	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// part is a scalar that an item of a list is known by: all of it in a set, one
// field of it in a list with keys.
type part struct {
	sort scalar
	n    int64
	s    string
}

// scalar is a kind of scalars. They are in the library's order.
type scalar uint8

const (
	none scalar = iota
	integer
	text
	boolean
)

// maxExact is the largest integer that JSON's numbers hold exactly.
const maxExact = 1 << 53

// plainScalar says whether partOf is for values of a type: those that do not
// make their JSON themselves.
func plainScalar(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	_, ok := partOf(reflect.Zero(t))
	return ok && !value.TypeReflectEntryOf(t).CanConvertToUnstructured()
}

func partOf(v reflect.Value) (part, bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return partOf(v.Elem())
		}
	case reflect.String:
		return part{sort: text, s: v.String()}, true
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16, reflect.Int8:
		n := v.Int()
		return part{sort: integer, n: n}, -maxExact < n && n < maxExact
	case reflect.Bool:
		p := part{sort: boolean}
		if v.Bool() {
			p.n = 1
		}
		return p, true
	}
	return part{}, false
}

// defaultOf is partOf for what a schema says.
func defaultOf(v any) (part, bool) {
	if f, ok := v.(float64); ok {
		n := int64(f)
		return part{sort: integer, n: n}, float64(n) == f && -maxExact < n && n < maxExact
	}
	return partOf(reflect.ValueOf(v))
}

func (p part) compare(q part) int {
	return cmp.Or(cmp.Compare(p.sort, q.sort), cmp.Compare(p.n, q.n), cmp.Compare(p.s, q.s))
}

// write appends the part as JSON within a string of JSON.
func (p part) write(b []byte) []byte {
	switch p.sort {
	case integer:
		return strconv.AppendInt(b, p.n, 10)
	case text:
		b = append(b, `\"`...)
		b = append(b, p.s...)
		return append(b, `\"`...)
	}
	return strconv.AppendBool(b, p.n == 1)
}

// plain says whether a text stands in FieldsV1 as it is. The library escapes
// others, once or twice.
func plain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}

// item is an element of a list with what it is known by, in the order of the
// list's keys.
type item struct {
	id    [maxKeys]part
	value reflect.Value
}

func compareItems(a, b item) int {
	for i := range a.id {
		p, q := a.id[i], b.id[i]
		if p.sort == none || q.sort == none {
			// The library compares without what is left out: the name of the
			// next key decides, which is the greater one, or the length.
			if (p.sort == none) != (q.sort == none) {
				return absentFirst(a.id[i:], b.id[i:])
			}
			continue
		}
		if c := p.compare(q); c != 0 {
			return c
		}
	}
	return 0
}

// absentFirst orders two identities of which one lacks the first part: it is
// less when it has nothing else either, greater when it has.
func absentFirst(a, b []part) int {
	if a[0].sort != none {
		return -absentFirst(b, a)
	}
	if slices.ContainsFunc(a, func(p part) bool { return p.sort != none }) {
		return 1
	}
	return -1
}

// identify says what an element of a list is known by. It cannot say it of what
// the library refuses, or writes in another way.
func (n *node) identify(v reflect.Value) (item, bool) {
	it := item{value: v}
	if len(n.keys) == 0 {
		p, ok := partOf(v)
		it.id[0] = p
		return it, ok && plain(p.s)
	}
	if n.loose && !n.elem.fits(v) || v.Kind() == reflect.Interface {
		return item{}, false
	}
	known := false
	for i := range n.keys {
		k := &n.keys[i]
		p, ok := k.absent, true
		if f := k.in(v); f.IsValid() {
			p, ok = partOf(f)
		}
		if !ok || !plain(p.s) {
			return item{}, false
		}
		it.id[i] = p
		known = known || p.sort != none
	}
	return it, known
}

// write appends the item's path element.
func (n *node) write(b []byte, it *item) []byte {
	if len(n.keys) == 0 {
		b = append(b, `"v:`...)
		b = it.id[0].write(b)
		return append(b, `":`...)
	}
	b = append(b, `"k:{`...)
	first := true
	for i := range n.keys {
		if it.id[i].sort == none {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, `\"`...)
		b = append(b, n.keys[i].name...)
		b = append(b, `\":`...)
		b = it.id[i].write(b)
	}
	return append(b, `}":`...)
}
