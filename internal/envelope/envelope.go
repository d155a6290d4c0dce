// Package envelope wraps objects in protobuf as Kubernetes does, on the wire and
// in etcd: a prefix, then a message with the object's kind and its bytes
// (k8s.io/apimachinery/pkg/runtime.Unknown).
package envelope

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Prefix begins every object in protobuf.
const Prefix = "k8s\x00"

// Fields of runtime.Unknown and of the TypeMeta in it.
const (
	fieldType     = 1
	fieldObject   = 2
	fieldEncoding = 3 // always empty
	fieldMedia    = 4 // always empty

	fieldVersion = 1
	fieldKind    = 2
)

// Envelope is what stands around the objects of one kind. It is never written
// to.
type Envelope struct{ head, tail []byte }

// Of is the envelope of a kind; apiVersion is a group-version.
func Of(apiVersion, kind string) Envelope {
	typ := field(fieldKind, kind, field(fieldVersion, apiVersion, nil))
	return Envelope{
		head: field(fieldType, string(typ), []byte(Prefix)),
		tail: field(fieldMedia, "", field(fieldEncoding, "", nil)),
	}
}

func field(number protowire.Number, value string, to []byte) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

// AppendHead appends what comes before an object of n bytes.
func (e Envelope) AppendHead(dst []byte, n int) []byte {
	dst = protowire.AppendTag(append(dst, e.head...), fieldObject, protowire.BytesType)
	return protowire.AppendVarint(dst, uint64(n))
}

// AppendTail appends what comes after an object.
func (e Envelope) AppendTail(dst []byte) []byte { return append(dst, e.tail...) }

// Append appends an object in its envelope.
func (e Envelope) Append(dst, object []byte) []byte {
	const tagAndLength = 1 + 10
	dst = slices.Grow(dst, len(e.head)+tagAndLength+len(object)+len(e.tail))
	return e.AppendTail(append(e.AppendHead(dst, len(object)), object...))
}

// Cut gives the object within a value that Append, or Kubernetes, made; ok is
// false for another kind and for a message that is arranged in another way.
func (e Envelope) Cut(value []byte) (object []byte, ok bool) {
	rest, ok := bytes.CutPrefix(value, e.head)
	if !ok {
		return nil, false
	}
	number, typ, n := protowire.ConsumeTag(rest)
	if n < 0 || number != fieldObject || typ != protowire.BytesType {
		return nil, false
	}
	object, m := protowire.ConsumeBytes(rest[n:])
	return object, m >= 0 && bytes.Equal(rest[n+m:], e.tail)
}
