package kinds

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"hansa.dev/hansa/api"
)

// unset is what a cell without a value shows.
const (
	unset   = "<none>"
	unknown = "<unknown>"
)

// column and wideColumn define columns; the latter are shown by -o wide only.
func column(name, typ, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: typ, Description: description}
}

func wideColumn(name, typ, description string) metav1.TableColumnDefinition {
	c := column(name, typ, description)
	c.Priority = 1
	return c
}

func nameColumn() metav1.TableColumnDefinition {
	c := column("Name", "string", objectMeta["name"])
	c.Format = "name"
	return c
}

func ageColumn() metav1.TableColumnDefinition {
	return column("Age", "string", objectMeta["creationTimestamp"])
}

// age is the time since t as kubectl shows it, e.g. "3d4h".
func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

// plainTable is that of kinds for which Kubernetes has no columns of their own.
func plainTable() *api.Table {
	return &api.Table{
		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Created At", "date", objectMeta["creationTimestamp"]),
		},
		Row: func(obj api.Object, _ time.Time) []any {
			return []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		},
	}
}

// orDefault shows a placeholder where there is no value.
func orDefault(value, placeholder string) string {
	if value == "" {
		return placeholder
	}
	return value
}
