package kinds_test

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// TestTables prints objects as kubectl does, kind by kind.
func TestTables(t *testing.T) {
	for file, docs := range documents(t, "tables/*.yaml") {
		t.Run(file, func(t *testing.T) {
			var rows []*api.Served
			objects := map[*api.Served][]api.Object{}
			for _, doc := range docs {
				raw, err := yaml.YAMLToJSON(doc)
				if err != nil {
					t.Fatal(err)
				}
				obj, gvk, err := encodings()["json"].Decode(raw, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				row := kinds.Registry().ByGVK(*gvk)
				if objects[row] == nil {
					rows = append(rows, row)
				}
				objects[row] = append(objects[row], obj.(api.Object))
			}
			var text strings.Builder
			for _, row := range rows {
				fmt.Fprintf(&text, "$ kubectl get %s\n%s", row.Plural, render(t, row.Table, objects[row], false))
				fmt.Fprintf(&text, "$ kubectl get %s -o wide\n%s", row.Plural, render(t, row.Table, objects[row], true))
			}
			golden(t, "tables/"+file+".golden", text.String())
		})
	}
}

// render does what kubectl's printer does with a table from the server.
func render(t *testing.T, table *api.Table, objects []api.Object, wide bool) string {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 6, 4, 3, ' ', 0)
	line := func(cells []any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, c)
		}
		fmt.Fprintln(w)
	}
	var header []any
	for _, c := range table.Columns {
		if wide || c.Priority == 0 {
			header = append(header, strings.ToUpper(c.Name))
		}
	}
	line(header)
	row := table.Row
	if table.Among != nil {
		row = table.Among(objects)
	}
	for _, obj := range objects {
		cells := row(obj, now)
		if len(cells) != len(table.Columns) {
			t.Fatalf("%s has %d cells in %d columns", obj.GetName(), len(cells), len(table.Columns))
		}
		var shown []any
		for i, c := range cells {
			checkCell(t, table.Columns[i], c)
			if wide || table.Columns[i].Priority == 0 {
				shown = append(shown, c)
			}
		}
		line(shown)
	}
	w.Flush()
	return text.String()
}

// checkCell demands what tables on the wire may hold, and numbers where the
// column promises them.
func checkCell(t *testing.T, column metav1.TableColumnDefinition, cell any) {
	t.Helper()
	var kinds []string
	switch cell := cell.(type) {
	case string:
		kinds = []string{"string", "date"}
		if cell == "True" || cell == "False" || cell == "<unset>" {
			kinds = append(kinds, "boolean") // of a pointer, as Kubernetes prints it
		}
	case int64:
		kinds = []string{"integer", "string"}
	case bool:
		// Kubernetes has one column that says string and shows this.
		kinds = []string{"boolean", "string"}
	}
	for _, k := range kinds {
		if k == column.Type {
			return
		}
	}
	t.Errorf("column %s of type %s has a %T", column.Name, column.Type, cell)
}

// TestPodRowConditions tells finished pods, which kubectl can hide.
func TestPodRowConditions(t *testing.T) {
	table := kinds.Registry().Must("", "pods").Table
	for phase, want := range map[string]string{"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed.", "Running": ""} {
		got := table.Conditions(newPod(t, "status: {phase: "+phase+"}"))
		if want == "" {
			if got != nil {
				t.Errorf("%s: %v", phase, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Type != metav1.RowCompleted || got[0].Status != metav1.ConditionTrue || got[0].Reason != phase || got[0].Message != want {
			t.Errorf("%s: %v", phase, got)
		}
	}
}
