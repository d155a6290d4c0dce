// Package custom makes rows of definitions: what a CustomResourceDefinition
// defines is served, validated, stored and shown as any other kind is. What
// schemas mean (pruning, defaults, validation, CEL) is Kubernetes', by the
// packages of apiextensions.
//
// # Objects
//
// All custom resources have one Go type, Object. It is open while a request works
// on it: a tree, as decoded JSON is. It is sealed before it is stored: the JSON of
// that tree, of which there is one copy, that is shared by the store, by all
// readers and by what goes over the wire.
//
// # Versions
//
// A stored object stays in the version that it was written in. Each version of a
// definition is a row of its own, and has views of stored objects: converted,
// pruned and with defaults by the schema as it is now.
package custom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"hansa.dev/hansa/api"
)

// Object is a custom resource of any kind.
type Object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	*content
}

var _ api.Object = (*Object)(nil)

// content is an object without its kind and metadata. Shallow copies of an object
// share it.
type content struct {
	kind    *schema.GroupKind // of the definition
	version string            // that it is in

	// tree is what an open object is; of a sealed one it is kept for whoever owns
	// it alone, and nil otherwise.
	tree map[string]any
	// raw is the JSON of a sealed object, nil of an open one. Immutable.
	raw []byte
	own bool // one request has it: the tree of a sealed object may be kept

	// clean is the version whose view of the sealed object is the object itself.
	clean atomic.Pointer[version]
}

// newObject makes an empty, open object.
func newObject(kind *schema.GroupKind, version string) *Object {
	return &Object{content: &content{kind: kind, version: version, tree: map[string]any{}}}
}

// apiVersion is the group-version of the object as it is.
func (o *Object) apiVersion() string { return o.content.kind.Group + "/" + o.version }

// Tree gives what the object contains but for its kind and metadata, to be read
// only.
func (o *Object) Tree() map[string]any {
	if o.tree != nil {
		return o.tree
	}
	tree := decodeTree(o.raw)
	if o.own {
		o.tree = tree
	}
	return tree
}

func decodeTree(raw []byte) map[string]any {
	tree := map[string]any{}
	// What was sealed is JSON.
	_ = kjson.UnmarshalCaseSensitivePreserveInts(raw, &tree)
	return tree
}

// open gives the tree to be written to by the one who owns the object.
func (o *Object) open() map[string]any {
	if o.raw != nil {
		tree := o.tree
		if tree == nil {
			tree = decodeTree(o.raw)
		}
		o.content = &content{kind: o.content.kind, version: o.version, tree: tree}
	}
	return o.tree
}

// replace makes a tree what an open object is.
func (o *Object) replace(tree map[string]any) {
	o.content = &content{kind: o.content.kind, version: o.version, tree: tree}
}

// seal makes the JSON of the tree what the object is.
func (o *Object) seal(clean *version) error {
	raw, err := json.Marshal(o.Tree())
	if err != nil {
		return fmt.Errorf("encode %s: %w", o.content.kind, err)
	}
	o.content = &content{kind: o.content.kind, version: o.version, raw: raw}
	o.clean.Store(clean)
	return nil
}

// whole is the object as a client sees it, as a tree that shares the object's.
func (o *Object) whole() map[string]any {
	inner := o.Tree()
	tree := make(map[string]any, len(inner)+3)
	for k, v := range inner {
		tree[k] = v
	}
	tree["apiVersion"], tree["kind"], tree["metadata"] = o.apiVersion(), o.content.kind.Kind, metadataTree(&o.ObjectMeta)
	return tree
}

// UnstructuredContent is the object without its kind, for encodings that are made
// of trees.
func (o *Object) UnstructuredContent() map[string]any {
	tree := o.whole()
	delete(tree, "kind")
	delete(tree, "apiVersion")
	return tree
}

// DeepCopyObject makes a copy that belongs to the caller. What is sealed stays so.
func (o *Object) DeepCopyObject() runtime.Object {
	out := &Object{TypeMeta: o.TypeMeta}
	o.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.content = &content{kind: o.content.kind, version: o.version, raw: o.raw}
	if o.raw == nil {
		out.tree = runtime.DeepCopyJSON(o.tree)
	}
	out.clean.Store(o.clean.Load())
	return out
}

// Equal says whether two sealed objects would be stored alike but for their
// versions.
func (o *Object) Equal(other api.Object) bool {
	b, ok := other.(*Object)
	return ok && o.version == b.version && bytes.Equal(o.raw, b.raw) && equality.Semantic.DeepEqual(o.ObjectMeta, b.ObjectMeta)
}

// Recognize tells a stored object what was written, which it mostly is: then it is
// known whose view it is already.
func (o *Object) Recognize(written api.Object) {
	if w, ok := written.(*Object); ok && o.version == w.version && bytes.Equal(o.raw, w.raw) {
		o.clean.Store(w.clean.Load())
	}
}

// AppendJSON appends the object as a client sees it, with its kind if it is set.
func (o *Object) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, '{')
	if o.Kind != "" {
		b = append(appendText(append(b, `"kind":`...), o.Kind), `,"apiVersion":`...)
		b = append(appendText(b, o.APIVersion), ',')
	}
	return o.appendRest(b)
}

// AppendStored appends the object as it is stored, in its own version.
func (o *Object) AppendStored(b []byte) ([]byte, error) {
	b = append(appendText(append(b, `{"apiVersion":`...), o.apiVersion()), `,"kind":`...)
	b = append(appendText(b, o.content.kind.Kind), ',')
	return o.appendRest(b)
}

func (o *Object) appendRest(b []byte) ([]byte, error) {
	meta, err := json.Marshal(&o.ObjectMeta)
	if err != nil {
		return b, err
	}
	raw := o.raw
	if raw == nil {
		if raw, err = json.Marshal(o.tree); err != nil {
			return b, err
		}
	}
	b = append(append(b, `"metadata":`...), meta...)
	if len(raw) > len("{}") {
		b = append(b, ',')
	}
	return append(b, raw[1:]...), nil
}

// MarshalJSON is the object as a client sees it.
func (o *Object) MarshalJSON() ([]byte, error) { return o.AppendJSON(nil) }

// UnmarshalJSON reads a stored object, which is sealed then.
func (o *Object) UnmarshalJSON(data []byte) error {
	kind := o.content.kind
	*o = Object{content: &content{kind: kind}}
	var apiVersion, gotKind string
	rest := make([]byte, 1, len(data))
	rest[0] = '{'
	err := members(data, func(name string, member, value []byte) error {
		switch name {
		case "apiVersion":
			return json.Unmarshal(value, &apiVersion)
		case "kind":
			return json.Unmarshal(value, &gotKind)
		case "metadata":
			return json.Unmarshal(value, &o.ObjectMeta)
		}
		if len(rest) > 1 {
			rest = append(rest, ',')
		}
		rest = append(rest, member...)
		return nil
	})
	if err != nil {
		return err
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return err
	}
	if gv.Group != kind.Group || gotKind != kind.Kind {
		return fmt.Errorf("found %s %s where %s are kept", apiVersion, gotKind, kind)
	}
	o.version = intern(gv.Version)
	o.raw = append(make([]byte, 0, len(rest)+1), append(rest, '}')...)
	return nil
}
