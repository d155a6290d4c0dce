package http

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/store"
)

// metadataOf is an object reduced to its metadata. It shares memory with it.
func metadataOf(obj api.Object) *metav1.PartialObjectMetadata {
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
	field := reflect.ValueOf(obj).Elem().FieldByName("ObjectMeta")
	partial.ObjectMeta = field.Interface().(metav1.ObjectMeta)
	return partial
}

// tableOptions are what a client may say about a table.
func (c *call) tableOptions() (metav1.IncludeObjectPolicy, error) {
	opts := &metav1.TableOptions{}
	if err := c.decodeQuery(opts); err != nil {
		return "", err
	}
	switch opts.IncludeObject {
	case metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
		return opts.IncludeObject, nil
	case "":
		return metav1.IncludeMetadata, nil
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("Unable to convert to Table as requested: includeObject: Invalid value: %q: must be 'Metadata', 'Object', 'None', or empty", opts.IncludeObject))
}

// plainTable is for kinds without columns of their own.
var plainTable = &api.Table{
	Columns: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
		{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
	},
}

// tableSpec is how the requested objects are shown as rows, nil for what cannot
// be: reviews, and bodies of subresources that are just that.
func (c *call) tableSpec() *api.Table {
	row := c.info.Served.Resource
	sub := row.Subresources[c.info.Subresource]
	switch {
	case sub != nil && sub.New != nil:
		return sub.Table
	case sub == nil && !slices.Contains(verbsOf(row), "get"):
		return nil
	case row.Table == nil:
		return plainTable
	}
	return row.Table
}

// table shows objects as rows. columns says whether to head them, whole that they
// are a list.
func (c *call) table(objs []api.Object, meta metav1.ListMeta, include metav1.IncludeObjectPolicy, columns, whole bool) (*metav1.Table, error) {
	t := &metav1.Table{ListMeta: meta, Rows: make([]metav1.TableRow, len(objs))}
	if columns {
		t.ColumnDefinitions = c.tableSpec().Columns
	}
	rows := c.rows(slices.Values(objs), include, whole)
	for i, obj := range objs {
		if err := rows.fill(&t.Rows[i], obj); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// rows makes the rows of one table.
type rows struct {
	*call
	spec    *api.Table
	cells   func(api.Object, time.Time) []any // nil: name and age
	now     time.Time
	include metav1.IncludeObjectPolicy
}

func (c *call) rows(objs iter.Seq[api.Object], include metav1.IncludeObjectPolicy, whole bool) *rows {
	r := &rows{call: c, spec: c.tableSpec(), now: c.Config.Clock.Now(), include: include}
	r.cells = r.spec.Row
	if whole && r.spec.Among != nil {
		r.cells = r.spec.Among(slices.Collect(objs))
	}
	return r
}

func (r *rows) fill(row *metav1.TableRow, obj api.Object) (err error) {
	if r.cells != nil {
		row.Cells = r.cells(obj, r.now)
	} else {
		row.Cells = []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format("2006-01-02T15:04:05Z")}
	}
	if r.spec.Conditions != nil {
		row.Conditions = r.spec.Conditions(obj)
	}
	row.Object, err = r.rowObject(obj, r.include)
	return err
}

func (c *call) rowObject(obj api.Object, include metav1.IncludeObjectPolicy) (runtime.RawExtension, error) {
	switch include {
	case metav1.IncludeNone:
		return runtime.RawExtension{}, nil
	case metav1.IncludeObject:
		raw, err := c.Codec.Append(nil, obj, c.info.Form(), codec.JSON)
		return runtime.RawExtension{Raw: raw}, err
	}
	partial := metadataOf(obj)
	partial.SetGroupVersionKind(c.metaKind("PartialObjectMetadata"))
	raw, err := json.Marshal(partial)
	return runtime.RawExtension{Raw: raw}, err
}

// metaKind is a kind in the version of the meta group that the client asked for.
func (c *call) metaKind(kind string) schema.GroupVersionKind {
	return c.out.as.GroupVersion().WithKind(kind)
}

func (c *call) sendTable(code int, list store.Page, whole bool) error {
	include, err := c.tableOptions()
	if err != nil {
		return err
	}
	meta := metav1.ListMeta{ResourceVersion: list.ResourceVersion, Continue: list.Continue, RemainingItemCount: list.Remaining}
	if c.out.media != codec.JSON {
		objs := slices.Collect(list.Objects)
		if err := list.Failed(); err != nil {
			return err
		}
		t, err := c.table(objs, meta, include, true, whole)
		if err != nil {
			return err
		}
		c.writeValue(c.w, c.r, code, t, c.metaKind("Table"), c.out)
		return nil
	}
	fill := func(w io.Writer) error { return c.writeTable(w, list, meta, include, whole) }
	if a := c.w.audit; a != nil {
		a.Answer(nil, func() ([]byte, error) {
			var all bytes.Buffer
			err := fill(&all)
			return slices.Clip(all.Bytes()), err
		})
	}
	c.writePieces(c.w, c.r, code, c.out, fill)
	return nil
}

// noRows is how a table ends that has no rows.
const noRows = "]}"

// rowsPiece is about how much of a table is written at once, in bytes.
const rowsPiece = 32 << 10

// writeTable writes a table in JSON, row by row.
func (c *call) writeTable(w io.Writer, list store.Page, meta metav1.ListMeta, include metav1.IncludeObjectPolicy, whole bool) error {
	head := &metav1.Table{ListMeta: meta, ColumnDefinitions: c.tableSpec().Columns, Rows: []metav1.TableRow{}}
	b, err := c.Codec.AppendValue(nil, head, c.metaKind("Table"), codec.JSON)
	if err != nil {
		return err
	}
	b = bytes.TrimSuffix(b, []byte(noRows))
	rows := c.rows(list.Objects, include, whole)
	first := true
	for obj := range list.Objects {
		var row metav1.TableRow
		if err := rows.fill(&row, obj); err != nil {
			return err
		}
		text, err := json.Marshal(&row)
		if err != nil {
			return fmt.Errorf("encode a row of a table: %w", err)
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if b = append(b, text...); len(b) < rowsPiece {
			continue
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	if err := list.Failed(); err != nil {
		return err
	}
	_, err = w.Write(append(b, noRows...))
	return err
}
