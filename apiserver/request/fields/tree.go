package fields

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Trees are decoded JSON: map[string]any, []any and scalars. A place of a tree is
// a Value of one of these, null for a null, and the zero Value for nothing. Trees
// come from clients before they are validated, so a place that is not what its
// schema says is left to the library, as is one that the schema does not know.

// tree is an object whose content is a tree.
type tree interface {
	metav1.Object
	metav1.ObjectMetaAccessor
	// Tree gives the content but for kind and metadata, to be read only.
	Tree() map[string]any
}

// contents is what of an object is compared: what the pointer points to, or the
// tree with the metadata in it.
func contents(obj metav1.Object) reflect.Value {
	t, ok := obj.(tree)
	if !ok {
		return reflect.ValueOf(obj).Elem()
	}
	inner := t.Tree()
	whole := make(map[string]any, len(inner)+1)
	maps.Copy(whole, inner)
	whole["metadata"] = t.GetObjectMeta()
	return reflect.ValueOf(whole)
}

// NewTreeTracker is NewTracker for objects that are trees. Their nodes are the
// tracker's own, since schemas come and go with definitions.
func NewTreeTracker(kind typed.ParseableType, apiVersion, subresource string, excluded *fieldpath.Set, common *Common) *Tracker {
	t := newTracker(kind, apiVersion, subresource, common)
	c := compiler{schema: kind.Schema, known: map[named]*node{}}
	skip := unownedAnd(excluded)
	t.root = c.tree(kind.TypeRef, skip)
	for i := range t.root.members {
		if m := &t.root.members[i]; m.name == "metadata" {
			atom, _ := kind.Schema.Resolve(kind.TypeRef)
			f, _ := atom.Map.FindField(m.name)
			below, _ := skip.Children.Get(fieldpath.PathElement{FieldName: &m.name})
			m.node = c.place(f.Type, reflect.TypeFor[metav1.ObjectMeta](), below)
		}
	}
	return t
}

// tree compiles a place of a tree.
func (c *compiler) tree(ref schema.TypeRef, skip *fieldpath.Set) *node {
	n := &node{loose: true}
	atom, ok := c.schema.Resolve(ref)
	switch {
	case !ok:
	case isWhole(atom):
		n.shape, n.whole = leaf, wholeType{c.schema, atom}
	case atom.Scalar != nil || atom.List != nil && atom.Map != nil:
		// What it is depends on the value.
	case atom.Map != nil && len(atom.Map.Fields) > 0:
		c.treeObject(n, atom.Map, skip)
	case atom.Map != nil:
		n.shape, n.elem = mapping, c.tree(atom.Map.ElementType, nil)
	case atom.List != nil && atom.List.ElementRelationship == schema.Associative && len(atom.List.Keys) <= maxKeys:
		c.treeList(n, atom.List)
	}
	return n
}

// isWhole says whether what is in a place has one owner.
func isWhole(atom schema.Atom) bool {
	return (atom.List == nil || atom.List.ElementRelationship == schema.Atomic) &&
		(atom.Map == nil || atom.Map.ElementRelationship == schema.Atomic)
}

func (c *compiler) treeObject(n *node, m *schema.Map, skip *fieldpath.Set) {
	n.shape = object
	fields := slices.Clone(m.Fields)
	slices.SortFunc(fields, func(a, b schema.StructField) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range fields {
		at := looseMember(f.Name)
		var below *fieldpath.Set
		if skip != nil {
			pe := fieldpath.PathElement{FieldName: &f.Name}
			at.skip = skip.Members.Has(pe)
			below, _ = skip.Children.Get(pe)
		}
		at.node = c.tree(f.Type, below)
		if !plain(f.Name) {
			at.node = &node{}
		}
		n.members = append(n.members, at)
	}
}

func looseMember(name string) member {
	return member{name: name, text: []byte(`"f:` + name + `":`)}
}

func (c *compiler) treeList(n *node, l *schema.List) {
	atom, _ := c.schema.Resolve(l.ElementType)
	for _, name := range slices.Sorted(slices.Values(l.Keys)) {
		k := key{member: looseMember(name)}
		if atom.Map == nil || !plain(name) {
			return
		}
		if f, _ := atom.Map.FindField(name); f.Default != nil {
			var ok bool
			if k.absent, ok = defaultOf(f.Default); !ok {
				return
			}
		}
		n.keys = append(n.keys, k)
	}
	n.shape, n.elem = list, c.tree(l.ElementType, nil)
}

// null is the place of a null.
var null = reflect.Zero(reflect.TypeFor[any]())

func loose(v any) reflect.Value {
	if v == nil {
		return null
	}
	return reflect.ValueOf(v)
}

// pick gives what an object of a tree has for a name; the object may be missing.
func pick(object reflect.Value, name string) reflect.Value {
	if !object.IsValid() {
		return reflect.Value{}
	}
	if v, ok := object.Interface().(map[string]any)[name]; ok {
		return loose(v)
	}
	return reflect.Value{}
}

// size is how many members an object of a tree has, known ones or not.
func (n *node) size(object reflect.Value) int {
	if !n.loose || !object.IsValid() {
		return 0
	}
	return object.Len()
}

// fits says whether a place of a tree may be what is there. What is below it is
// looked at where that has no places of its own.
func (n *node) fits(v reflect.Value) bool {
	if !v.IsValid() || v.Kind() == reflect.Interface {
		return true
	}
	switch n.shape {
	case object, mapping:
		return v.Type() == reflect.TypeFor[map[string]any]()
	case list:
		return v.Type() == reflect.TypeFor[[]any]()
	}
	return n.whole.allows(v.Interface())
}

// wholeType is the type of what has one owner.
type wholeType struct {
	schema *schema.Schema
	schema.Atom
}

func (t wholeType) allows(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		if t.Map == nil {
			return false
		}
		for name, inner := range v {
			ref := t.Map.ElementType
			if f, ok := t.Map.FindField(name); ok {
				ref = f.Type
			}
			if !t.below(ref).allows(inner) {
				return false
			}
		}
		return true
	case []any:
		if t.List == nil || t.List.ElementRelationship == schema.Associative {
			return false // the library looks for the keys of items
		}
		of := t.below(t.List.ElementType)
		return !slices.ContainsFunc(v, func(inner any) bool { return !of.allows(inner) })
	}
	return t.Scalar != nil && allowsScalar(*t.Scalar, v)
}

// below is the type of a place, one that allows only null if it is unknown.
func (t wholeType) below(ref schema.TypeRef) wholeType {
	atom, _ := t.schema.Resolve(ref)
	return wholeType{t.schema, atom}
}

func allowsScalar(s schema.Scalar, v any) bool {
	switch v.(type) {
	case string:
		return s == schema.String || s == schema.Untyped
	case bool:
		return s == schema.Boolean || s == schema.Untyped
	}
	return s == schema.Numeric || s == schema.Untyped
}
