package api

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Table is how a kind looks in `kubectl get`. A column with Priority > 0 is
// shown by `-o wide` only.
type Table struct {
	Columns []metav1.TableColumnDefinition
	// Row gives the cells of one object, as many as there are columns; now is
	// what ages are counted from.
	Row func(obj Object, now time.Time) []any
	// Among gives the function that is Row for the objects of a list, where cells
	// depend on what else is in it. Nil: Row.
	Among func(all []Object) func(obj Object, now time.Time) []any
	// Conditions gives the row's conditions (a finished pod is "Completed").
	Conditions func(obj Object) []metav1.TableRowCondition
}
