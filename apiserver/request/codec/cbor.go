package codec

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// CBOR (RFC 8949) as Kubernetes speaks it: objects are maps, strings are byte
// strings, and whatever stands by itself carries the tag that says it is CBOR.
// An encoded object is the head of a map and its pairs, so that a kind is put
// before the pairs of a remembered encoding by writing another head.

// selfDescribed is the head of tag 55799, RFC 8949 section 3.4.6.
var selfDescribed = []byte{0xd9, 0xd9, 0xf7}

// Major types of items, RFC 8949 section 3.1.
const (
	cborBytes = 2 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
)

// appendCBORHead begins an item of a major type with its length, in the
// shortest form.
func appendCBORHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
}

func appendCBORString(b []byte, s string) []byte {
	return append(appendCBORHead(b, cborBytes, len(s)), s...)
}

// cutCBORMap splits an encoded map into the number of its pairs and the pairs.
// No object has as many fields as need a longer head.
func cutCBORMap(body Body) (pairs int, rest []byte, err error) {
	switch {
	case len(body) > 0 && body[0]&^0x1f == cborMap && body[0]&0x1f < 24:
		return int(body[0] & 0x1f), body[1:], nil
	case len(body) > 1 && body[0] == cborMap|24:
		return int(body[1]), body[2:], nil
	}
	return 0, nil, fmt.Errorf("encode as CBOR: an object is no map")
}

// cborBody encodes an object without its kind.
func cborBody(obj runtime.Object) (Body, error) {
	if kind := obj.GetObjectKind(); !kind.GroupVersionKind().Empty() {
		obj = obj.DeepCopyObject()
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	var value any = obj
	if tree, ok := obj.(interface{ UnstructuredContent() map[string]any }); ok {
		value = tree.UnstructuredContent()
	}
	data, err := direct.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", typeName(obj), err)
	}
	return data, nil
}

// appendCBOR writes an object in full.
func appendCBOR(b []byte, body Body, kind schema.GroupVersionKind) ([]byte, error) {
	pairs, rest, err := cutCBORMap(body)
	if err != nil {
		return b, err
	}
	b = append(b, selfDescribed...)
	b = appendCBORKind(appendCBORHead(b, cborMap, pairs+2), kind)
	return append(b, rest...), nil
}

func appendCBORKind(b []byte, kind schema.GroupVersionKind) []byte {
	b = appendCBORString(appendCBORString(b, "kind"), kind.Kind)
	return appendCBORString(appendCBORString(b, "apiVersion"), kind.GroupVersion().String())
}

// writeCBORList is WriteList in CBOR.
func (c *Codec) writeCBORList(w io.Writer, b []byte, list *List) error {
	meta, err := direct.Marshal(list.Meta)
	if err != nil {
		return fmt.Errorf("encode list metadata: %w", err)
	}
	b = appendCBORKind(appendCBORHead(append(b, selfDescribed...), cborMap, 4), list.Kind)
	b = append(appendCBORString(b, "metadata"), meta...)
	n := 0
	for range list.Items {
		n++
	}
	if err := list.failed(); err != nil {
		return err
	}
	var failed error
	b = appendCBORHead(appendCBORString(b, "items"), cborArray, n)
	b, err = c.writeItems(w, b, list, CBOR, func(b []byte, body Body) []byte {
		if !list.Kinds {
			return append(b, body...)
		}
		pairs, rest, err := cutCBORMap(body)
		failed = errors.Join(failed, err)
		return append(appendCBORKind(appendCBORHead(b, cborMap, pairs+2), list.Form.GroupVersionKind), rest...)
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// CBORToJSON rewrites the body of an apply, which is taken apart as JSON. The
// error is an API status error; a map that repeats a key is one.
func CBORToJSON(data []byte) ([]byte, error) {
	var fields map[string]any
	if err := direct.Unmarshal(data, &fields); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	return text, nil
}

// AppendCBOREvent writes the frame of a watch event, an item of a sequence
// (RFC 8742).
func AppendCBOREvent(b []byte, event string, object []byte) []byte {
	b = appendCBORHead(append(b, selfDescribed...), cborMap, 2)
	b = appendCBORString(appendCBORString(b, "type"), event)
	return append(appendCBORString(b, "object"), object...)
}
