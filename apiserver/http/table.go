package http

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

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
	spec := c.tableSpec()
	now := c.Config.Clock.Now()
	t := &metav1.Table{ListMeta: meta, Rows: make([]metav1.TableRow, len(objs))}
	if columns {
		t.ColumnDefinitions = spec.Columns
	}
	cells := spec.Row
	if whole && spec.Among != nil {
		cells = spec.Among(objs)
	}
	for i, obj := range objs {
		row := &t.Rows[i]
		if cells != nil {
			row.Cells = cells(obj, now)
		} else {
			row.Cells = []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format("2006-01-02T15:04:05Z")}
		}
		if spec.Conditions != nil {
			row.Conditions = spec.Conditions(obj)
		}
		var err error
		if row.Object, err = c.rowObject(obj, include); err != nil {
			return nil, err
		}
	}
	return t, nil
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

func (c *call) sendTable(code int, list store.List, whole bool) error {
	include, err := c.tableOptions()
	if err != nil {
		return err
	}
	meta := metav1.ListMeta{ResourceVersion: list.ResourceVersion, Continue: list.Continue, RemainingItemCount: list.Remaining}
	t, err := c.table(list.Items, meta, include, true, whole)
	if err != nil {
		return err
	}
	c.writeValue(c.w, c.r, code, t, c.metaKind("Table"), c.out)
	return nil
}
