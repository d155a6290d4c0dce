package custom

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apimachinery/pkg/runtime"

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
	return obj, unknownFields(append(unknown, more...)), nil
}

// patch changes a copy of a view.
func (v *version) patch(view api.Object, change func(tree map[string]any), strict bool) (api.Object, []error, error) {
	c, err := v.compiled()
	if err != nil {
		return nil, nil, err
	}
	was := view.(*Object)
	obj := &Object{content: &content{kind: was.content.kind, version: was.version, tree: runtime.DeepCopyJSON(was.Tree())}}
	was.ObjectMeta.DeepCopyInto(&obj.ObjectMeta)
	change(obj.tree)
	unknown, err := c.coerce(obj.tree, strict, false)
	return obj, unknownFields(unknown), err
}

func unknownFields(paths []string) (problems []error) {
	for _, path := range paths {
		problems = append(problems, fmt.Errorf("unknown field %q", path))
	}
	return problems
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
	out := opened(o)
	if o.version != v.Name {
		converted, err := v.of.convert.to(v, out)
		if err != nil {
			return nil, err
		}
		out = converted[0]
	}
	return v.settle(o, out)
}

// opened is an open copy of a stored object. Its metadata is shared.
func opened(o *Object) *Object {
	out := &Object{ObjectMeta: o.ObjectMeta}
	out.content = &content{kind: o.content.kind, version: o.version, tree: decodeTree(o.raw)}
	return out
}

// fromStoredAll is fromStored for many, which are converted in one go.
func (v *version) fromStoredAll(objs []api.Object) ([]api.Object, error) {
	out := make([]api.Object, len(objs))
	var places []int
	var others []*Object
	for i, obj := range objs {
		if o := obj.(*Object); o.version != v.Name {
			places, others = append(places, i), append(others, opened(o))
			continue
		}
		seen, err := v.view(obj)
		if err != nil {
			return nil, err
		}
		out[i] = seen
	}
	if len(others) == 0 {
		return out, nil
	}
	converted, err := v.of.convert.to(v, others...)
	if err != nil {
		return nil, err
	}
	for n, i := range places {
		if out[i], err = v.settle(objs[i].(*Object), converted[n]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// settle brings a stored object that is open and in this version into the form
// that its schema asks for. It answers the stored one where that is the same.
func (v *version) settle(o, out *Object) (*Object, error) {
	c, err := v.compiled()
	if err != nil {
		return nil, err
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
		if _, err := target.coerce(converted[0].tree, false, false); err != nil {
			return err
		}
		*o = *converted[0]
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
