package fields

import (
	"reflect"
	"slices"
	"strings"
)

// diff compares two objects of one type, and writes what has changed and what
// was removed as FieldsV1, in their order.
type diff struct {
	changed, removed writer
	// unsure says that the library has to compare.
	unsure bool

	// Room for what is being worked on, used as stacks.
	text  []byte
	names []name
	items []item
}

// name is a key of either or both of two maps.
type name struct {
	text    string
	was, is bool
}

// maxRoom is what a diff may keep for the next: objects are mostly small.
const maxRoom = 64 << 10

func (d *diff) run(root *node, before, after reflect.Value) {
	d.changed.start()
	d.removed.start()
	d.unsure = false
	d.object(root, before, after)
	d.changed.b = append(d.changed.b, '}')
	d.removed.b = append(d.removed.b, '}')
}

// forget lets go of the objects, and says whether the room is worth keeping.
func (d *diff) forget() bool {
	clear(d.names[:cap(d.names)])
	clear(d.items[:cap(d.items)])
	return cap(d.changed.b)+cap(d.removed.b)+cap(d.items)*int(reflect.TypeFor[item]().Size()) <= maxRoom
}

// compare tells of one place: what was there and what is, the zero Value for
// nothing. at is the path element, which may be in d.text.
func (d *diff) compare(n *node, at []byte, was, is reflect.Value) {
	switch {
	case n.shape == unknown, n.loose && !(n.fits(was) && n.fits(is)):
		d.unsure = true
		return
	case n.shape != leaf:
		d.descend(n, at, was, is)
	case !was.IsValid(), is.IsValid() && !equal(was, is):
		d.changed.leaf(at)
	case !is.IsValid():
		d.removed.leaf(at)
	}
}

// descend compares what is below a place. The place itself counts as well when
// it came or went, or when it is empty in another way than it was.
func (d *diff) descend(n *node, at []byte, was, is reflect.Value) {
	came, went := !was.IsValid(), !is.IsValid()
	was, is = content(was), content(is)
	var changed, removed mark
	if !went {
		changed = d.changed.open(at, came)
	}
	if !came {
		removed = d.removed.open(at, went)
	}
	var empty bool
	switch n.shape {
	case object:
		empty = d.object(n, was, is)
	case mapping:
		empty = d.mapping(n, was, is)
	default:
		empty = d.list(n, was, is)
	}
	if !went {
		d.changed.close(changed)
	}
	if !came {
		d.removed.close(removed)
	}
	if empty && !came && !went && was.IsValid() != is.IsValid() {
		d.changed.leaf(at)
	}
}

// content is what a value points to: the zero Value for null.
func content(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if k := v.Kind(); (k == reflect.Map || k == reflect.Slice) && v.IsNil() {
		return reflect.Value{}
	}
	return v
}

// object, mapping and list compare two contents, and say whether there is
// nothing in either.

func (d *diff) object(n *node, was, is reflect.Value) (empty bool) {
	empty = true
	strangeWas, strangeIs := n.size(was), n.size(is)
	for i := range n.members {
		m := &n.members[i]
		before, after := m.in(was), m.in(is)
		if before.IsValid() {
			strangeWas--
		}
		if after.IsValid() {
			strangeIs--
		}
		if !before.IsValid() && !after.IsValid() {
			continue
		}
		empty = false
		switch {
		case !m.skip:
			d.compare(m.node, m.text, before, after)
		case m.node.shape != leaf:
			// The library looks into it before it takes it out, and refuses what
			// it cannot compare.
			changed, removed := len(d.changed.b), len(d.removed.b)
			d.compare(m.node, m.text, before, after)
			d.changed.b, d.removed.b = d.changed.b[:changed], d.removed.b[:removed]
		}
	}
	if n.loose && (strangeWas > 0 || strangeIs > 0) {
		d.unsure = true
	}
	return empty
}

func (d *diff) mapping(n *node, was, is reflect.Value) (empty bool) {
	bottom := len(d.names)
	defer func() { d.names = d.names[:bottom] }()
	d.addNames(was, name{was: true})
	d.addNames(is, name{is: true})
	names := d.names[bottom:]
	slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.text, b.text) })
	for i, key := range names {
		if i > 0 && key.text == names[i-1].text {
			continue // told of with the one before
		}
		if i+1 < len(names) && key.text == names[i+1].text {
			key.was, key.is = true, true
		}
		if !plain(key.text) {
			d.unsure = true
			return false
		}
		d.text = append(append(append(d.text[:0], `"f:`...), key.text...), `":`...)
		d.entry(n, key, was, is)
	}
	return len(names) == 0
}

// addNames adds the keys of a map. side says which of the two it is.
func (d *diff) addNames(m reflect.Value, side name) {
	switch {
	case !m.IsValid():
	case m.Type() == reflect.TypeFor[map[string]string]():
		for key := range m.Interface().(map[string]string) {
			side.text = key
			d.names = append(d.names, side)
		}
	case m.Type() == reflect.TypeFor[map[string]any]():
		for key := range m.Interface().(map[string]any) {
			side.text = key
			d.names = append(d.names, side)
		}
	default:
		key := reflect.New(m.Type().Key()).Elem()
		for it := m.MapRange(); it.Next(); {
			key.SetIterKey(it)
			side.text = key.String()
			d.names = append(d.names, side)
		}
	}
}

// entry compares what two maps have for a key, whose path element is d.text.
func (d *diff) entry(n *node, key name, was, is reflect.Value) {
	switch {
	case n.loose:
		d.compare(n.elem, d.text, pick(was, key.text), pick(is, key.text))
	case n.elem.shape != leaf || !n.strings && key.was && key.is:
		d.compare(n.elem, d.text, lookUp(was, key.text), lookUp(is, key.text))
	case !key.is:
		d.removed.leaf(d.text)
	case !key.was || was.Interface().(map[string]string)[key.text] != is.Interface().(map[string]string)[key.text]:
		d.changed.leaf(d.text)
	}
}

func lookUp(m reflect.Value, key string) reflect.Value {
	if !m.IsValid() {
		return reflect.Value{}
	}
	return m.MapIndex(reflect.ValueOf(key).Convert(m.Type().Key()))
}

func (d *diff) list(n *node, was, is reflect.Value) (empty bool) {
	bottom := len(d.items)
	defer func() { d.items = d.items[:bottom] }()
	d.addItems(n, was)
	middle := len(d.items)
	d.addItems(n, is)
	before, after := d.items[bottom:middle], d.items[middle:]
	slices.SortFunc(before, compareItems)
	slices.SortFunc(after, compareItems)
	if repeats(before) || repeats(after) {
		d.unsure = true
	}
	if d.unsure {
		return false
	}
	empty = len(before)+len(after) == 0
	for len(before)+len(after) > 0 {
		var it *item
		var l, r reflect.Value
		order := 1
		if len(after) == 0 {
			order = -1
		} else if len(before) > 0 {
			order = compareItems(before[0], after[0])
		}
		if order <= 0 {
			it, l, before = &before[0], before[0].value, before[1:]
		}
		if order >= 0 {
			it, r, after = &after[0], after[0].value, after[1:]
		}
		d.text = n.write(d.text[:0], it)
		d.compare(n.elem, d.text, l, r)
	}
	return empty
}

func (d *diff) addItems(n *node, l reflect.Value) {
	if !l.IsValid() {
		return
	}
	for i := range l.Len() {
		at := l.Index(i)
		if n.loose {
			at = loose(at.Interface())
		}
		it, ok := n.identify(at)
		if !ok {
			d.unsure = true
			return
		}
		d.items = append(d.items, it)
	}
}

// repeats says whether two neighbours are known by the same.
func repeats(sorted []item) bool {
	for i := 1; i < len(sorted); i++ {
		if compareItems(sorted[i-1], sorted[i]) == 0 {
			return true
		}
	}
	return false
}

// writer makes FieldsV1. What turns out to be empty is taken back.
type writer struct{ b []byte }

// mark is where a place begins, and what is in it.
type mark struct {
	begin, body int
	own         bool
}

const self = `".":{}`

func (w *writer) start() { w.b = append(w.b[:0], '{') }

func (w *writer) element(at []byte) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, at...)
	w.b = append(w.b, '{')
}

func (w *writer) leaf(at []byte) {
	w.element(at)
	w.b = append(w.b, '}')
}

// open begins a place of which there may be something below. own says that it
// is in the set itself.
func (w *writer) open(at []byte, own bool) mark {
	m := mark{begin: len(w.b), own: own}
	w.element(at)
	if own {
		w.b = append(w.b, self...)
	}
	m.body = len(w.b)
	return m
}

func (w *writer) close(m mark) {
	switch {
	case len(w.b) > m.body:
	case m.own:
		w.b = w.b[:m.body-len(self)]
	default:
		w.b = w.b[:m.begin]
		return
	}
	w.b = append(w.b, '}')
}

func (w *writer) empty() bool { return len(w.b) == len("{}") }
