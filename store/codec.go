package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"reflect"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/envelope"
)

// codec turns objects of one row into stored bytes and back, in the formats of
// Kubernetes: protobuf behind "k8s\x00" for types that have it, JSON for others.
type codec struct {
	reg    *api.Registry
	row    *api.Resource
	gvk    schema.GroupVersionKind
	stored *api.Version
	hub    reflect.Type
	proto  *protobuf.Serializer // nil: JSON

	envelope envelope.Envelope
	common   interned[common]
	pool     *pool
}

func newCodec(reg *api.Registry, row *api.Resource, pool *pool) (*codec, error) {
	c := &codec{reg: reg, row: row, gvk: row.GVK(), hub: reflect.TypeOf(row.New()), pool: pool}
	if _, ok := row.New().(selfStored); ok {
		c.stored = &api.Version{New: row.New}
		return c, nil
	}
	served := reg.ByGVK(c.gvk)
	if served == nil || served.Resource != row {
		return nil, fmt.Errorf("resource %s is stored as %s, which is none of its versions", row.Plural, row.Storage)
	}
	c.stored = served.Version
	if _, ok := served.Version.New().(interface{ Unmarshal([]byte) error }); !ok {
		return c, nil
	}
	c.proto = protobuf.NewSerializer(reg.Scheme(), reg.Scheme())
	c.envelope = envelope.Of(c.gvk.GroupVersion().String(), c.gvk.Kind)
	return c, nil
}

// encode gives the stored form of obj, with the slot as its resource version.
// It writes to obj.
func (c *codec) encode(obj api.Object, slot int) ([]byte, error) {
	stored := obj
	if c.stored.FromHub != nil {
		var err error
		if stored, err = c.stored.FromHub(obj); err != nil {
			return nil, fmt.Errorf("convert to %s: %w", c.gvk.GroupVersion(), err)
		}
	}
	stored.SetResourceVersion(formatSlot(slot))
	if own, ok := stored.(selfStored); ok {
		return own.AppendStored(nil)
	}
	if m, ok := stored.(marshaler); ok {
		n := m.Size()
		value := c.envelope.AppendHead(make([]byte, 0, n+roomAround), n)
		start := len(value)
		value = slices.Grow(value, n)[:start+n]
		if _, err := m.MarshalToSizedBuffer(value[start:]); err != nil {
			return nil, err
		}
		return c.envelope.AppendTail(value), nil
	}
	stored.GetObjectKind().SetGroupVersionKind(c.gvk)
	return json.Marshal(stored)
}

// selfStored is an object that knows itself how it is stored: as JSON, in the
// version that it is in.
type selfStored interface {
	AppendStored([]byte) ([]byte, error)
	json.Unmarshaler
}

// marshaler is what types with a protobuf form have.
type marshaler interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// roomAround is enough for the envelopes of most kinds.
const roomAround = 96

// decode makes the object of a stored value, complete but for its resource
// version: slot is what there was in its place. used is what the object shares
// with others, to be kept along with it.
func (c *codec) decode(value []byte) (obj api.Object, slot int, used *common, err error) {
	if raw, ok := c.envelope.Cut(value); ok && c.proto != nil {
		obj, used, err = c.decodeOwn(raw)
	} else {
		obj, err = c.decodeAny(value)
	}
	if err != nil {
		return nil, 0, nil, err
	}
	if reflect.TypeOf(obj) != c.hub {
		return nil, 0, nil, fmt.Errorf("found a %T where %s are kept", obj, c.row.Plural)
	}
	if used == nil { // else it is done, but for what it shares
		c.pool.compact(obj)
	}
	managers := obj.GetManagedFields()
	for i := range managers {
		if err := c.share(&managers[i].FieldsV1); err != nil {
			return nil, 0, nil, err
		}
	}
	return obj, parseSlot(obj.GetResourceVersion()), used, nil
}

// share replaces the fields of a manager by equal ones that are kept once: they
// are much of many objects, and the same in all that one program wrote alike.
func (c *codec) share(fields **metav1.FieldsV1) (err error) {
	if own := *fields; own != nil {
		*fields, err = c.pool.fields.get(own.GetRawBytes(), func() (*metav1.FieldsV1, error) { return own, nil })
	}
	return err
}

// decodeOwn decodes an object in the stored version.
func (c *codec) decodeOwn(raw []byte) (api.Object, *common, error) {
	obj := c.stored.New()
	into := obj.(interface{ Unmarshal([]byte) error })
	before, part, after := c.cut(raw)
	if err := into.Unmarshal(before); err != nil {
		return nil, nil, err
	}
	var used *common
	if part != nil {
		if err := into.Unmarshal(after); err != nil {
			return nil, nil, err
		}
		var err error
		if used, err = c.decodeCommon(obj, part); err != nil {
			return nil, nil, err
		}
	}
	if c.stored.ToHub == nil {
		return obj, used, nil
	}
	obj, err := c.stored.ToHub(obj)
	if err != nil {
		return nil, nil, fmt.Errorf("convert from %s: %w", c.gvk.GroupVersion(), err)
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil, nil
}

// decodeCommon completes an object with a part that others may have as well.
func (c *codec) decodeCommon(obj api.Object, data []byte) (*common, error) {
	own := c.row.Common.Of(obj)
	var first *common
	used, err := c.common.get(data, func() (*common, error) {
		first = &common{part: own, lent: true}
		if err := own.Unmarshal(data); err != nil {
			return nil, err
		}
		c.pool.compact(obj)
		return first, nil
	})
	if err != nil {
		return nil, err
	}
	if used != first {
		if first == nil {
			c.pool.compact(obj)
		}
		used.share(own)
	}
	return used, nil
}

// common is a part of an object that others may have as well.
type common struct {
	mu   sync.Mutex
	part any  // its pointer
	lent bool // it lies in the object that had it first
}

// share sets the part of another object, given by its pointer. The second gets a
// copy made, of the topmost level, so that the first can be forgotten; most parts
// have no second.
func (c *common) share(to any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	part := reflect.ValueOf(c.part).Elem()
	if c.lent {
		own := reflect.New(part.Type())
		own.Elem().Set(part)
		c.part, c.lent, part = own.Interface(), false, own.Elem()
	}
	reflect.ValueOf(to).Elem().Set(part)
}

// cut takes the part out that the kind has in common, if it is there once.
func (c *codec) cut(raw []byte) (before, part, after []byte) {
	if c.row.Common == nil {
		return raw, nil, nil
	}
	for at := 0; at < len(raw); {
		number, kind, n := protowire.ConsumeTag(raw[at:])
		if n < 0 {
			break
		}
		size := protowire.ConsumeFieldValue(number, kind, raw[at+n:])
		if size < 0 {
			break
		}
		if int(number) == c.row.Common.Number && kind == protowire.BytesType {
			if part != nil {
				return raw, nil, nil
			}
			part, _ = protowire.ConsumeBytes(raw[at+n:])
			before, after = raw[:at], raw[at+n+size:]
		}
		at += n + size
	}
	if part == nil {
		return raw, nil, nil
	}
	return before, part, after
}

// decodeAny decodes what is stored in another form: JSON, another version, or
// protobuf that somebody else arranged differently.
func (c *codec) decodeAny(value []byte) (api.Object, error) {
	var stored runtime.Object
	var gvk *schema.GroupVersionKind
	var err error
	switch {
	case bytes.HasPrefix(value, []byte(envelope.Prefix)) && c.proto != nil:
		stored, gvk, err = c.proto.Decode(value, nil, nil)
	case bytes.HasPrefix(value, []byte("{")):
		stored, gvk, err = c.decodeJSON(value)
	case bytes.HasPrefix(value, []byte("k8s:enc:")):
		err = fmt.Errorf("it is encrypted; start with the configuration that has its key (--encryption-provider-config)")
	default:
		err = fmt.Errorf("neither protobuf nor JSON")
	}
	if err != nil {
		return nil, err
	}
	obj, ok := stored.(api.Object)
	if !ok {
		return nil, fmt.Errorf("%s is not a kind with metadata", gvk)
	}
	if served := c.reg.ByGVK(*gvk); served != nil && served.Resource == c.row && served.Version.ToHub != nil {
		if obj, err = served.Version.ToHub(obj); err != nil {
			return nil, fmt.Errorf("convert from %s: %w", gvk.GroupVersion(), err)
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil
}

func (c *codec) decodeJSON(value []byte) (runtime.Object, *schema.GroupVersionKind, error) {
	if own, ok := c.row.New().(selfStored); ok {
		return own.(api.Object), &c.gvk, json.Unmarshal(value, own)
	}
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
