package definition

import (
	"testing"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = metav1.NewTime(time.Unix(1_700_000_000, 0))

func defined(plural, kind string, short ...string) *definition {
	d := &definition{}
	d.Spec.Group = "example.com"
	d.Spec.Names = apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: plural + "one", Kind: kind, ListKind: kind + "List", ShortNames: short}
	return d
}

// accepted is a definition with all its names.
func accepted(d *definition) *definition { return plan(d, nil, false, true, now) }

// A definition takes the names that are free, and is established once it is served.
func TestPlan(t *testing.T) {
	a := accepted(defined("as", "A", "x"))
	for _, c := range []struct {
		name         string
		d            *definition
		group        []*definition
		served       bool
		names, ready string // reasons
	}{
		{"new", defined("bs", "B"), nil, false, "NoConflicts", "Installing"},
		{"beside another", defined("bs", "B", "y"), []*definition{a}, false, "NoConflicts", "Installing"},
		{"served", accepted(defined("bs", "B")), []*definition{a}, true, "NoConflicts", "InitialNamesAccepted"},
		{"same plural", defined("as", "B"), []*definition{a}, false, "SingularConflict", "NotAccepted"},
		{"same kind", defined("bs", "A"), []*definition{a}, false, "ListKindConflict", "NotAccepted"},
		{"same short name", defined("bs", "B", "x"), []*definition{a}, false, "ShortNamesConflict", "NotAccepted"},
		{"same short name, given up", defined("bs", "B", "x"), nil, false, "NoConflicts", "Installing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			next := plan(c.d, append(c.group, c.d), c.served, true, now)
			if next == nil {
				t.Fatal("nothing to do")
			}
			if got := apihelpers.FindCRDCondition(next, apiextensionsv1.NamesAccepted); got.Reason != c.names {
				t.Errorf("names: %s, want %s", got.Reason, c.names)
			}
			if got := apihelpers.FindCRDCondition(next, apiextensionsv1.Established); got.Reason != c.ready {
				t.Errorf("established: %s, want %s", got.Reason, c.ready)
			}
			if again := plan(next, append(c.group, next), c.served, true, now); again != nil {
				t.Errorf("not at rest: %+v", again.Status)
			}
		})
	}
}

// Taking names wakes nobody, giving one up wakes those who wait.
func TestFreed(t *testing.T) {
	fresh, taken := defined("as", "A", "x"), accepted(defined("as", "A", "x"))
	fewer := taken.DeepCopy()
	fewer.Status.AcceptedNames.ShortNames = nil
	for name, c := range map[string]struct {
		old, new *definition
		want     bool
	}{
		"taken": {fresh, taken, false}, "kept": {taken, taken, false}, "given up": {taken, fewer, true}, "more": {fewer, taken, false},
	} {
		if got := freed(c.old, c.new); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !waits(fresh) || waits(taken) {
		t.Error("who waits is wrong")
	}
}
