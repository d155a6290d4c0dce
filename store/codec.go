package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"hansa.dev/hansa/api"
)

// codec turns objects of one row into stored bytes and back, in the formats of
// Kubernetes: protobuf behind "k8s\x00" for types that have it, JSON for others.
type codec struct {
	reg     *api.Registry
	row     *api.Resource
	gvk     schema.GroupVersionKind
	fromHub func(api.Object) (api.Object, error) // nil: the hub is what is stored
	hub     reflect.Type
	proto   *protobuf.Serializer // nil: JSON
}

// protoPrefix begins every protobuf value, as in Kubernetes.
var protoPrefix = []byte("k8s\x00")

func newCodec(reg *api.Registry, row *api.Resource) (*codec, error) {
	c := &codec{reg: reg, row: row, gvk: row.GVK(), hub: reflect.TypeOf(row.New())}
	served := reg.ByGVK(c.gvk)
	if served == nil || served.Resource != row {
		return nil, fmt.Errorf("resource %s is stored as %s, which is none of its versions", row.Plural, row.Storage)
	}
	c.fromHub = served.Version.FromHub
	if _, ok := served.Version.New().(interface{ Unmarshal([]byte) error }); ok {
		c.proto = protobuf.NewSerializer(reg.Scheme(), reg.Scheme())
	}
	return c, nil
}

// encode gives the stored form of obj, with the slot as its resource version.
// It writes to obj.
func (c *codec) encode(obj api.Object, slot int) ([]byte, error) {
	stored := obj
	if c.fromHub != nil {
		var err error
		if stored, err = c.fromHub(obj); err != nil {
			return nil, fmt.Errorf("convert to %s: %w", c.gvk.GroupVersion(), err)
		}
	}
	stored.SetResourceVersion(formatSlot(slot))
	stored.GetObjectKind().SetGroupVersionKind(c.gvk)
	if c.proto == nil {
		return json.Marshal(stored)
	}
	var out bytes.Buffer
	if err := c.proto.Encode(stored, &out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decode makes the object of a stored value, complete but for its resource
// version: slot is what there was in its place.
func (c *codec) decode(value []byte) (obj api.Object, slot int, err error) {
	var stored runtime.Object
	var gvk *schema.GroupVersionKind
	switch {
	case bytes.HasPrefix(value, protoPrefix) && c.proto != nil:
		stored, gvk, err = c.proto.Decode(value, nil, nil)
	case bytes.HasPrefix(value, []byte("{")):
		stored, gvk, err = c.decodeJSON(value)
	default:
		err = fmt.Errorf("neither protobuf nor JSON")
	}
	if err != nil {
		return nil, 0, err
	}
	obj, ok := stored.(api.Object)
	if !ok {
		return nil, 0, fmt.Errorf("%s is not a kind with metadata", gvk)
	}
	if served := c.reg.ByGVK(*gvk); served != nil && served.Resource == c.row && served.Version.ToHub != nil {
		if obj, err = served.Version.ToHub(obj); err != nil {
			return nil, 0, fmt.Errorf("convert from %s: %w", gvk.GroupVersion(), err)
		}
	}
	if reflect.TypeOf(obj) != c.hub {
		return nil, 0, fmt.Errorf("found a %s where %s are kept", gvk, c.row.Plural)
	}
	slot = parseSlot(obj.GetResourceVersion())
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, slot, nil
}

func (c *codec) decodeJSON(value []byte) (runtime.Object, *schema.GroupVersionKind, error) {
	var kind runtime.TypeMeta
	if err := json.Unmarshal(value, &kind); err != nil {
		return nil, nil, err
	}
	gvk := kind.GroupVersionKind()
	obj, err := c.reg.Scheme().New(gvk)
	if err != nil {
		return nil, nil, err
	}
	return obj, &gvk, json.Unmarshal(value, obj)
}

// withVersion is a shallow copy of a frozen object with another resource
// version. Only the copied top level differs, so both stay frozen.
func withVersion(obj api.Object, rv int64) api.Object {
	was := reflect.ValueOf(obj).Elem()
	dup := reflect.New(was.Type())
	dup.Elem().Set(was)
	out := dup.Interface().(api.Object)
	out.SetResourceVersion(formatVersion(rv))
	return out
}

var sumSeed = maphash.MakeSeed()

// fingerprint changes when somebody writes to the object.
func fingerprint(obj api.Object) uint64 {
	var h maphash.Hash
	h.SetSeed(sumSeed)
	h.WriteString(obj.GetObjectKind().GroupVersionKind().String())
	if m, ok := obj.(interface{ Marshal() ([]byte, error) }); ok {
		if b, err := m.Marshal(); err == nil {
			h.Write(b)
			return h.Sum64()
		}
	}
	b, err := json.Marshal(obj)
	if err != nil {
		h.WriteString(err.Error())
	}
	h.Write(b)
	return h.Sum64()
}
