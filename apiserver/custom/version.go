package custom

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"

	"hansa.dev/hansa/api"
)

// decode makes an open object of what a client sent.
func (v *version) decode(tree map[string]any, strict bool) (api.Object, []error, error) {
	c, err := v.compiled()
	if err != nil {
		return nil, nil, err
	}
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(tree, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: strict})
	if err != nil {
		return nil, nil, err
	}
	delete(tree, "apiVersion")
	delete(tree, "kind")
	delete(tree, "metadata")
	more, err := c.coerce(tree, strict, false)
	if err != nil {
		return nil, nil, err
	}
	obj := newObject(v.of.kind, v.Name)
	obj.tree = tree
	if found {
		obj.ObjectMeta = *meta
	}
	var problems []error
	for _, path := range append(unknown, more...) {
		problems = append(problems, fmt.Errorf("unknown field %q", path))
	}
	return obj, problems, nil
}

// view gives an object as this version has it. What is the same already is
// answered as it is.
func (v *version) view(obj api.Object) (*Object, error) {
	o := obj.(*Object)
	if o.raw == nil && o.version == v.Name || o.clean.Load() == v {
		return o, nil
	}
	return v.make(o)
}

// work is view for a request that works on the object: the result is its own.
func (v *version) work(obj api.Object) (api.Object, error) {
	o, err := v.view(obj)
	if err != nil {
		return nil, err
	}
	own := *o
	own.content = &content{kind: o.content.kind, version: o.version, raw: o.raw, own: true}
	own.clean.Store(o.clean.Load())
	return &own, nil
}

// make makes a view of a stored object.
func (v *version) make(o *Object) (*Object, error) {
	c, err := v.compiled()
	if err != nil {
		return nil, err
	}
	out := &Object{ObjectMeta: o.ObjectMeta}
	out.content = &content{kind: o.content.kind, version: o.version, tree: decodeTree(o.raw)}
	if o.version != v.Name {
		if out, err = v.of.convert.to(v, out); err != nil {
			return nil, err
		}
	}
	if out.Generation == 0 {
		out.Generation = 1 // those of old servers have none
	}
	if _, err := c.coerce(out.tree, false, true); err != nil {
		return nil, err
	}
	c.fill(out.tree)
	raw, err := json.Marshal(out.tree)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.content.kind, err)
	}
	if o.version == v.Name && out.Generation == o.Generation && bytes.Equal(raw, o.raw) {
		o.clean.Store(v)
		return o, nil
	}
	out.content = &content{kind: o.content.kind, version: v.Name, raw: raw}
	out.clean.Store(v)
	return out, nil
}

// fromStored is view as a conversion.
func (v *version) fromStored(obj api.Object) (api.Object, error) { return v.view(obj) }

// seal brings a finished object into the form and version that is stored.
func (v *version) seal(obj api.Object) error {
	o := obj.(*Object)
	c, err := v.compiled()
	if err != nil {
		return err
	}
	c.fill(o.open())
	stored := v
	if v.of.storage != v.Name {
		stored = v.of.version(v.of.storage)
		converted, err := v.of.convert.to(stored, o)
		if err != nil {
			return err
		}
		target, err := stored.compiled()
		if err != nil {
			return err
		}
		if _, err := target.coerce(converted.tree, false, false); err != nil {
			return err
		}
		*o = *converted
		stored = nil // its defaults may be missing
	}
	return o.seal(stored)
}

// fill is the row's Default.
func (v *version) fill(obj api.Object) {
	o := obj.(*Object)
	if c, err := v.compiled(); err == nil && o.raw == nil {
		c.fill(o.tree)
	}
}
