package custom

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"

	"hansa.dev/hansa/api"
)

var (
	metaDoc    = metav1.ObjectMeta{}.SwaggerDoc()
	nameColumn = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metaDoc["name"]}
	ageColumn  = apiextensionsv1.CustomResourceColumnDefinition{Name: "Age", Type: "date", Description: metaDoc["creationTimestamp"], JSONPath: ".metadata.creationTimestamp"}
)

// column is one that a definition adds.
type column struct {
	path *jsonpath.JSONPath
	typ  string
	meta bool // looks into metadata only
}

// table shows the columns that the version names, or the age.
func (v *version) table() *api.Table {
	specs := v.AdditionalPrinterColumns
	if len(specs) == 0 {
		specs = []apiextensionsv1.CustomResourceColumnDefinition{ageColumn}
	}
	t := &api.Table{Columns: []metav1.TableColumnDefinition{nameColumn}}
	var columns []column
	whole := false
	for _, spec := range specs {
		path := jsonpath.New(spec.Name)
		if path.Parse("{"+spec.JSONPath+"}") != nil {
			break // as far as they can be read
		}
		path.AllowMissingKeys(true)
		c := column{path: path, typ: spec.Type, meta: strings.HasPrefix(spec.JSONPath, ".metadata.")}
		whole = whole || !c.meta
		columns = append(columns, c)
		text := spec.Description
		if text == "" {
			text = "Custom resource definition column (in JSONPath format): " + spec.JSONPath
		}
		t.Columns = append(t.Columns, metav1.TableColumnDefinition{Name: spec.Name, Type: spec.Type, Format: spec.Format, Description: text, Priority: spec.Priority})
	}
	t.Row = func(stored api.Object, now time.Time) []any {
		cells := make([]any, 1, 1+len(columns))
		cells[0] = stored.GetName()
		var tree map[string]any
		if o, err := v.view(stored); err == nil && whole {
			tree = o.whole()
		} else {
			tree = map[string]any{"metadata": metadataTree(&stored.(*Object).ObjectMeta)}
		}
		for i := range columns {
			cells = append(cells, columns[i].cell(tree, now))
		}
		return cells
	}
	return t
}

// cell is the first thing that the column's path finds.
func (c *column) cell(tree map[string]any, now time.Time) any {
	results, err := c.path.FindResults(tree)
	if err != nil || len(results) == 0 || len(results[0]) == 0 {
		return nil
	}
	value := results[0][0].Interface()
	if c.typ != "string" {
		return cellOf(c.typ, value, now)
	}
	var text bytes.Buffer
	if c.path.PrintResults(&text, []reflect.Value{reflect.ValueOf(value)}) != nil {
		return nil
	}
	return text.String()
}

func cellOf(typ string, value any, now time.Time) any {
	switch typ {
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		case json.Number:
			if i, err := n.Int64(); err == nil {
				return i
			}
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		if text, ok := value.(string); ok {
			return ageOf(text, now)
		}
	}
	return nil
}

func ageOf(text string, now time.Time) string {
	var at metav1.Time
	if at.UnmarshalQueryParameter(text) != nil {
		return "<invalid>"
	}
	if at.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(at.Time))
}

// scaleTable shows a scale as Kubernetes does for custom resources.
func scaleTable() *api.Table {
	return &api.Table{
		Columns: []metav1.TableColumnDefinition{
			nameColumn,
			{Name: "Desired", Type: "integer", Description: "Number of desired replicas"},
			{Name: "Available", Type: "integer", Description: "Number of actual replicas"},
			{Name: "Age", Type: "date", Description: metaDoc["creationTimestamp"]},
		},
		Row: func(obj api.Object, now time.Time) []any {
			s := obj.(*autoscalingv1.Scale)
			return []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), duration.HumanDuration(now.Sub(s.CreationTimestamp.Time))}
		},
	}
}
