package fields

import (
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// shape is how a place of an object is owned.
type shape uint8

const (
	unknown shape = iota // the library has to say
	leaf                 // as a whole: scalars, atomic lists, maps and structs
	object               // a struct, field by field
	mapping              // a map, key by key
	list                 // a list, item by item, known by keys or by themselves
)

// node is what the merge schema and the Go type say about one place. Nodes are
// frozen once compiled, and form circles where types do.
type node struct {
	shape   shape
	members []member  // of an object, in the order of their names
	elem    *node     // of a mapping or list
	keys    []key     // of a list; without any its items are scalars
	strings bool      // the mapping is a map[string]string
	loose   bool      // it is of a tree: what is there may be anything
	whole   wholeType // of a loose leaf
}

// member is one field of a struct.
type member struct {
	name   string // as in JSON
	text   []byte // as in FieldsV1
	index  int    // of the field in the struct, -1 if it is in an embedded one
	goType reflect.Type
	entry  *value.FieldCacheEntry // nil of a tree
	node   *node
	skip   bool // nobody owns it
}

// in gives the field's value in a struct: the zero Value when it is left out,
// or when there is no struct.
func (m *member) in(object reflect.Value) reflect.Value {
	if !object.IsValid() {
		return reflect.Value{}
	}
	if m.entry == nil {
		return pick(object, m.name)
	}
	var v reflect.Value
	if m.index >= 0 {
		v = object.Field(m.index)
	} else {
		v = m.entry.GetFrom(object)
	}
	if m.entry.CanOmit(v) {
		return reflect.Value{}
	}
	return v
}

// key is one of the fields that items of a list are known by.
type key struct {
	member
	absent part // what counts when it is left out
}

// maxKeys is the largest number of keys of any list.
const maxKeys = 4

// named is a type of a schema together with the Go type that has it.
type named struct {
	schema       *schema.Schema
	name         string
	relationship schema.ElementRelationship
	goType       reflect.Type
}

var intOrString = reflect.TypeFor[intstr.IntOrString]()

// compiler makes the nodes of one schema.
type compiler struct {
	schema *schema.Schema
	known  map[named]*node
}

func (c *compiler) place(ref schema.TypeRef, t reflect.Type, skip *fieldpath.Set) *node {
	for t.Kind() == reflect.Pointer && !value.TypeReflectEntryOf(t).CanConvertToUnstructured() {
		t = t.Elem()
	}
	if ref.NamedType == nil || skip != nil {
		n := &node{}
		c.fill(n, ref, t, skip)
		return n
	}
	at := named{schema: c.schema, name: *ref.NamedType, goType: t}
	if ref.ElementRelationship != nil {
		at.relationship = *ref.ElementRelationship
	}
	n, ok := c.known[at]
	if !ok {
		n = &node{}
		c.known[at] = n
		c.fill(n, ref, t, nil)
	}
	return n
}

func (c *compiler) fill(n *node, ref schema.TypeRef, t reflect.Type, skip *fieldpath.Set) {
	atom, ok := c.schema.Resolve(ref)
	switch {
	case !ok:
	case isWhole(atom):
		n.shape = leaf
	case atom.Scalar != nil && (t == intOrString || t == reflect.PointerTo(intOrString)):
		n.shape = leaf // whatever else the schema would allow
	case atom.Scalar != nil || atom.List != nil && atom.Map != nil:
		// What it is depends on the value.
	case value.TypeReflectEntryOf(t).CanConvertToUnstructured():
		// So it does where the type makes its JSON itself.
	case t.Kind() == reflect.Struct && atom.Map != nil:
		c.object(n, atom.Map, t, skip)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && atom.Map != nil && len(atom.Map.Fields) == 0:
		n.shape, n.elem = mapping, c.place(atom.Map.ElementType, t.Elem(), nil)
		n.strings = t == reflect.TypeFor[map[string]string]()
	case t.Kind() == reflect.Slice && atom.List != nil:
		c.list(n, atom.List, t)
	}
}

func (c *compiler) object(n *node, m *schema.Map, t reflect.Type, skip *fieldpath.Set) {
	n.shape = object
	for _, entry := range value.TypeReflectEntryOf(t).OrderedFields() {
		at := memberOf(t, entry)
		tr := m.ElementType
		if f, ok := m.FindField(at.name); ok {
			tr = f.Type
		}
		var below *fieldpath.Set
		if skip != nil {
			pe := fieldpath.PathElement{FieldName: &at.name}
			at.skip = skip.Members.Has(pe)
			below, _ = skip.Children.Get(pe)
		}
		at.node = c.place(tr, at.goType, below)
		if at.goType == reflect.PointerTo(intOrString) && !entry.CanOmit(reflect.Zero(at.goType)) {
			at.node = &node{} // null would be no scalar
		}
		n.members = append(n.members, at)
	}
}

func memberOf(t reflect.Type, entry *value.FieldCacheEntry) member {
	return member{
		name: entry.JsonName, text: []byte(`"f:` + entry.JsonName + `":`), index: direct(t, entry.JsonName),
		goType: entry.GetFrom(reflect.New(t).Elem()).Type(), entry: entry,
	}
}

// direct finds the field of a struct that has a name in JSON, -1 if it is none
// of its own.
func direct(t reflect.Type, name string) int {
	for i := range t.NumField() {
		f := t.Field(i)
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name || tag == "" && f.Name == name && !f.Anonymous {
			return i
		}
	}
	return -1
}

func (c *compiler) list(n *node, l *schema.List, t reflect.Type) {
	if l.ElementRelationship != schema.Associative || t.Elem().Kind() == reflect.Pointer {
		return
	}
	keys, ok := c.keys(l, t.Elem())
	if ok || len(l.Keys) == 0 && plainScalar(t.Elem()) {
		n.shape, n.elem, n.keys = list, c.place(l.ElementType, t.Elem(), nil), keys
	}
}

// keys finds what items of a list are known by, in the order of the names.
func (c *compiler) keys(l *schema.List, t reflect.Type) (keys []key, ok bool) {
	atom, _ := c.schema.Resolve(l.ElementType)
	if atom.Map == nil || t.Kind() != reflect.Struct || len(l.Keys) == 0 || len(l.Keys) > maxKeys ||
		value.TypeReflectEntryOf(t).CanConvertToUnstructured() {
		return nil, false
	}
	for _, name := range slices.Sorted(slices.Values(l.Keys)) {
		entry, ok := value.TypeReflectEntryOf(t).Fields()[name]
		if !ok {
			return nil, false
		}
		k := key{member: memberOf(t, entry)}
		if !plainScalar(k.goType) {
			return nil, false
		}
		if f, _ := atom.Map.FindField(name); f.Default != nil {
			if k.absent, ok = defaultOf(f.Default); !ok {
				return nil, false
			}
		}
		keys = append(keys, k)
	}
	return keys, true
}
