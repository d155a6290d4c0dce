package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
)

// List is a list to be encoded.
type List struct {
	Kind schema.GroupVersionKind // e.g. ConfigMapList
	Meta metav1.ListMeta
	// Items may be gone through more than once and are the same each time.
	Items iter.Seq[api.Object]
	Err   func() error // says afterwards why there are no more; nil: nothing fails
	Form  Form         // of the items
	// Kinds says that each item has its kind: those of typed lists have none.
	Kinds bool
}

// pieceBytes is about how much of a list is written at once.
const pieceBytes = 32 << 10

// pieces are the buffers that lists are put together in, a little larger than
// pieceBytes as the last item goes beyond that.
var pieces = sync.Pool{New: func() any { b := make([]byte, 0, pieceBytes+8<<10); return &b }}

// WriteList writes a list in full, piece by piece: it is never in memory as a
// whole. After an error w may have got a part of it.
func (c *Codec) WriteList(w io.Writer, list *List, media MediaType) error {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	b := (*buf)[:0]
	switch media {
	case Protobuf:
		return c.writeProtoList(w, b, list)
	case CBOR:
		return c.writeCBORList(w, b, list)
	case YAML:
		return c.writeYAMLList(w, b, list)
	}
	listMeta, err := json.Marshal(list.Meta)
	if err != nil {
		return fmt.Errorf("encode list metadata: %w", err)
	}
	b = appendKind(append(b, '{'), list.Kind)
	b = append(append(append(b, `,"metadata":`...), listMeta...), `,"items":[`...)
	first := true
	b, err = c.writeItems(w, b, list, JSON, func(b []byte, body Body) []byte {
		if !first {
			b = append(b, ',')
		}
		first = false
		return list.appendItem(b, body)
	})
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, "]}"...))
	return err
}

// appendItem appends an item as it stands in a list.
func (l *List) appendItem(b []byte, body Body) []byte {
	if l.Kinds {
		return append(b, body...)
	}
	return append(append(b, '{'), cutKind(body, l.Form.GroupVersionKind)...)
}

// writeYAMLList writes each item as a document by itself, moved to the right as
// one of a sequence. Keys are in order, as they are wherever YAML is made of JSON.
func (c *Codec) writeYAMLList(w io.Writer, b []byte, list *List) error {
	head, err := yaml.Marshal(map[string]any{"apiVersion": list.Kind.GroupVersion().String()})
	if err != nil {
		return fmt.Errorf("encode %s: %w", list.Kind.Kind, err)
	}
	empty := true
	b = append(append(b, head...), "items:"...)
	var failed error
	b, err = c.writeItems(w, b, list, JSON, func(b []byte, body Body) []byte {
		text, err := yaml.JSONToYAML(list.appendItem(nil, body))
		if err != nil {
			failed = fmt.Errorf("encode %s: %w", list.Form.Kind, err)
			return b
		}
		if empty {
			b = append(b, '\n')
		}
		empty = false
		before := "- "
		for line := range bytes.Lines(text) {
			if len(line) > 1 {
				b = append(b, before...)
			}
			b = append(b, line...)
			before = "  "
		}
		return b
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if empty {
		b = append(b, " []\n"...)
	}
	tail, err := yaml.Marshal(map[string]any{"kind": list.Kind.Kind, "metadata": list.Meta})
	if err != nil {
		return fmt.Errorf("encode %s: %w", list.Kind.Kind, err)
	}
	_, err = w.Write(append(b, tail...))
	return err
}

// writeItems appends every item to b by add, writing b whenever it is large
// enough, and gives back what is still to be written.
func (c *Codec) writeItems(w io.Writer, b []byte, list *List, media MediaType, add func(b []byte, body Body) []byte) ([]byte, error) {
	for item := range list.Items {
		body, err := c.Body(item, list.Form, media)
		if err != nil {
			return nil, err
		}
		if b = add(b, body); len(b) < pieceBytes {
			continue
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
		b = b[:0]
	}
	return b, list.failed()
}

func (l *List) failed() error {
	if l.Err == nil {
		return nil
	}
	return l.Err()
}

// Tags of fields that are bytes or messages, by their number.
const (
	protoField1 = 1<<3 | 2
	protoField2 = 2<<3 | 2
)

// writeProtoList relies on every list type having its metadata as field 1 and
// its items as field 2. Since the length of all comes first, the items are
// measured before they are written.
func (c *Codec) writeProtoList(w io.Writer, b []byte, list *List) error {
	meta, err := list.Meta.Marshal()
	if err != nil {
		return fmt.Errorf("encode list metadata: %w", err)
	}
	meta = append(binary.AppendUvarint([]byte{protoField1}, uint64(len(meta))), meta...)
	total := len(meta)
	for item := range list.Items {
		n, err := c.protoSize(item, list.Form)
		if err != nil {
			return err
		}
		total += 1 + len(binary.AppendUvarint(nil, uint64(n))) + n
	}
	if err := list.failed(); err != nil {
		return err
	}
	around := envelopeOf(list.Kind)
	b, err = c.writeItems(w, append(around.AppendHead(b, total), meta...), list, Protobuf, func(b []byte, body Body) []byte {
		return append(binary.AppendUvarint(append(b, protoField2), uint64(len(body))), body...)
	})
	if err != nil {
		return err
	}
	_, err = w.Write(around.AppendTail(b))
	return err
}

// protoSize is the length of the item's body.
func (c *Codec) protoSize(item api.Object, form Form) (int, error) {
	if body, ok := c.cache.get(cacheKey{item, form.GroupVersion(), form.of, Protobuf}); ok {
		return len(body), nil
	}
	versioned, err := form.shape(item)
	if err != nil {
		return 0, err
	}
	m, ok := versioned.(interface{ Size() int })
	if !ok {
		return 0, &NotEncodable{Type: typeName(versioned), Media: Protobuf}
	}
	return m.Size(), nil
}
