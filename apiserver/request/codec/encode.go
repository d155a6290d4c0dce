package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/envelope"
)

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
	key := cacheKey{obj, form.GroupVersion(), form.of, media}
	if body, ok := c.cache.get(key); ok {
		return body, nil
	}
	versioned, err := form.shape(obj)
	if err != nil {
		return nil, err
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
	switch media {
	case CBOR:
		return cborBody(obj)
	case Protobuf:
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
	if own, ok := obj.(interface {
		AppendJSON(b []byte) ([]byte, error)
	}); ok {
		data, err := own.AppendJSON(nil)
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

var anyKind = []byte(`{"kind":`)

// cutKind takes the brace and the kind away that an encoded object begins with;
// most have none.
func cutKind(data []byte, kind schema.GroupVersionKind) (rest []byte) {
	if bytes.HasPrefix(data, anyKind) {
		if rest, ok := bytes.CutPrefix(data, kindPrefix(kind)); ok {
			return rest
		}
	}
	return data[1:]
}

// kindPrefix is how the JSON of an object of a kind begins.
func kindPrefix(kind schema.GroupVersionKind) []byte {
	return append(appendKind([]byte{'{'}, kind), ',')
}

func appendKind(b []byte, kind schema.GroupVersionKind) []byte {
	b = append(b, `"kind":`...)
	b = strconv.AppendQuote(b, kind.Kind)
	if kind.GroupVersion().Empty() { // old forms of discovery have none
		return b
	}
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

// AppendOnce is Append for an object that may still change, or is not worth
// being remembered.
func (c *Codec) AppendOnce(dst []byte, obj api.Object, form Form, media MediaType) ([]byte, error) {
	versioned, err := form.shape(obj)
	if err != nil {
		return dst, err
	}
	return c.AppendValue(dst, versioned, form.GroupVersionKind, media)
}

func appendFull(dst []byte, body Body, kind schema.GroupVersionKind, media MediaType) ([]byte, error) {
	switch media {
	case Protobuf:
		return envelopeOf(kind).Append(dst, body), nil
	case CBOR:
		return appendCBOR(dst, body, kind)
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

func envelopeOf(kind schema.GroupVersionKind) envelope.Envelope {
	return envelope.Of(kind.GroupVersion().String(), kind.Kind)
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
