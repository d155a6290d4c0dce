package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
)

// protobufMagic starts every object in protobuf.
var protobufMagic = []byte{'k', '8', 's', 0}

// NotEncodable is an object that has no form in the asked media type.
type NotEncodable struct {
	Type  string
	Media MediaType
}

func (e *NotEncodable) Error() string {
	return fmt.Sprintf("object %s cannot be encoded as %s", e.Type, e.Media)
}

// Body is an encoded object without its kind, as it stands in a list. It may be
// shared and is not to be written to.
type Body []byte

// Body encodes the frozen object of a read, or one that will not change any
// more, in the given form. Encodings are remembered by the object's address,
// which is safe because a frozen object never changes and the cache holds it.
func (c *Codec) Body(obj api.Object, form Form, media MediaType) (Body, error) {
	if media == YAML {
		media = JSON
	}
	key := cacheKey{obj, form.GroupVersion(), media}
	if body, ok := c.cache.get(key); ok {
		return body, nil
	}
	versioned := obj
	if form.FromHub != nil {
		var err error
		if versioned, err = form.FromHub(obj); err != nil {
			return nil, fmt.Errorf("convert %s to %s: %w", form.Kind, form.GroupVersion(), err)
		}
	}
	body, err := bare(versioned, media)
	if err != nil {
		return nil, err
	}
	c.cache.put(key, body)
	return body, nil
}

// bare encodes an object without its kind.
func bare(obj runtime.Object, media MediaType) (Body, error) {
	if media == Protobuf {
		m, ok := obj.(interface{ Marshal() ([]byte, error) })
		if !ok {
			return nil, &NotEncodable{Type: typeName(obj), Media: media}
		}
		data, err := m.Marshal()
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", typeName(obj), err)
		}
		return data, nil
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	if err := json.NewEncoder(buf).Encode(obj); err != nil {
		return nil, fmt.Errorf("encode %s: %w", typeName(obj), err)
	}
	data := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	return append(Body(nil), data...), nil
}

// cutKind takes the kind away that an encoded object begins with, if any.
func cutKind(data []byte, kind schema.GroupVersionKind) (rest []byte) {
	prefix := kindPrefix(kind)
	if !bytes.HasPrefix(data, prefix) {
		return data[1:]
	}
	return data[len(prefix):]
}

// kindPrefix is how the JSON of an object of a kind begins.
func kindPrefix(kind schema.GroupVersionKind) []byte {
	return append(appendKind([]byte{'{'}, kind), ',')
}

func appendKind(b []byte, kind schema.GroupVersionKind) []byte {
	b = append(b, `"kind":`...)
	b = strconv.AppendQuote(b, kind.Kind)
	b = append(b, `,"apiVersion":`...)
	return strconv.AppendQuote(b, kind.GroupVersion().String())
}

// Append writes one object in full: its kind and its body.
func (c *Codec) Append(dst []byte, obj api.Object, form Form, media MediaType) ([]byte, error) {
	body, err := c.Body(obj, form, media)
	if err != nil {
		return dst, err
	}
	return appendFull(dst, body, form.GroupVersionKind, media)
}

func appendFull(dst []byte, body Body, kind schema.GroupVersionKind, media MediaType) ([]byte, error) {
	switch media {
	case Protobuf:
		return appendUnknown(dst, kind, body)
	case YAML:
		text, err := yaml.JSONToYAML(appendJSON(nil, body, kind))
		return append(dst, text...), err
	}
	return appendJSON(dst, body, kind), nil
}

func appendJSON(dst []byte, body Body, kind schema.GroupVersionKind) []byte {
	dst = appendKind(append(dst, '{'), kind)
	rest := cutKind(body, kind)
	if len(rest) > 1 {
		dst = append(dst, ',')
	}
	return append(dst, rest...)
}

func appendUnknown(dst []byte, kind schema.GroupVersionKind, body []byte) ([]byte, error) {
	unknown := runtime.Unknown{
		TypeMeta: runtime.TypeMeta{Kind: kind.Kind, APIVersion: kind.GroupVersion().String()},
		Raw:      body,
	}
	data, err := unknown.Marshal()
	if err != nil {
		return dst, fmt.Errorf("encode %s: %w", kind.Kind, err)
	}
	return append(append(dst, protobufMagic...), data...), nil
}

// List is a list to be encoded.
type List struct {
	Kind  schema.GroupVersionKind // e.g. ConfigMapList
	Meta  metav1.ListMeta
	Items []api.Object
	Form  Form // of the items
}

// AppendList writes a list in full.
func (c *Codec) AppendList(dst []byte, list *List, media MediaType) ([]byte, error) {
	if media == Protobuf {
		return c.appendProtoList(dst, list)
	}
	start := len(dst)
	dst = appendKind(append(dst, '{'), list.Kind)
	listMeta, err := json.Marshal(list.Meta)
	if err != nil {
		return dst, fmt.Errorf("encode list metadata: %w", err)
	}
	dst = append(append(append(dst, `,"metadata":`...), listMeta...), `,"items":[`...)
	for i, item := range list.Items {
		if i > 0 {
			dst = append(dst, ',')
		}
		body, err := c.Body(item, list.Form, media)
		if err != nil {
			return dst, err
		}
		dst = append(append(dst, '{'), cutKind(body, list.Form.GroupVersionKind)...)
	}
	dst = append(dst, "]}"...)
	if media == YAML {
		text, err := yaml.JSONToYAML(dst[start:])
		return append(dst[:start], text...), err
	}
	return dst, nil
}

// appendProtoList relies on every list type having its metadata as field 1 and
// its items as field 2.
func (c *Codec) appendProtoList(dst []byte, list *List) ([]byte, error) {
	const field1, field2 = 0x0a, 0x12
	listMeta, err := list.Meta.Marshal()
	if err != nil {
		return dst, fmt.Errorf("encode list metadata: %w", err)
	}
	raw := appendVarint([]byte{field1}, uint64(len(listMeta)))
	raw = append(raw, listMeta...)
	for _, item := range list.Items {
		body, err := c.Body(item, list.Form, Protobuf)
		if err != nil {
			return dst, err
		}
		raw = append(appendVarint(append(raw, field2), uint64(len(body))), body...)
	}
	return appendUnknown(dst, list.Kind, raw)
}

func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// AppendValue writes an object that is not stored: a status, a review, a table.
// Its kind is given, since values from elsewhere often lack it.
func (c *Codec) AppendValue(dst []byte, obj runtime.Object, kind schema.GroupVersionKind, media MediaType) ([]byte, error) {
	wire := media
	if wire == YAML {
		wire = JSON
	}
	body, err := bare(obj, wire)
	if err != nil {
		return dst, err
	}
	return appendFull(dst, body, kind, media)
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release returns a buffer unless it has grown large.
func release(buf *bytes.Buffer) {
	if buf.Cap() <= 64<<10 {
		buf.Reset()
		buffers.Put(buf)
	}
}
