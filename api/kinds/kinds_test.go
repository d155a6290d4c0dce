package kinds_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// TestRows holds names, storage and subresources of every kind to a table:
// clients and the layout of etcd depend on each of them.
func TestRows(t *testing.T) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RESOURCE\tSINGULAR\tKIND\tSHORT\tCATEGORIES\tNAMESPACED\tSERVED\tSTORED\tPREFIX\tVERBS\tPUT")
	for _, row := range kinds.Registry().Resources() {
		var served []string
		for _, v := range row.Versions {
			served = append(served, v.GroupVersion.String())
		}
		stored, prefix := row.Storage.String(), row.Prefix
		if prefix == "" {
			stored, prefix = "-", "-"
		}
		verbs := "all"
		if row.Verbs != nil {
			verbs = strings.Join(row.Verbs, ",")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%v\t%s\t%s\t%s\t%s\t%s\n", row.Plural, row.Singular, row.Kind,
			list(row.ShortNames), list(row.Categories), row.Namespaced, list(served), stored, prefix, verbs, putRules(row))
		for _, name := range slices.Sorted(maps.Keys(row.Subresources)) {
			sub := row.Subresources[name]
			kind := row.Kind
			if !sub.Kind.Empty() {
				kind = sub.Kind.GroupVersion().String() + " " + sub.Kind.Kind
			}
			fmt.Fprintf(w, "%s/%s\t\t%s\t\t\t\t\t\t\t%s\t\n", row.Plural, name, kind, list(sub.Verbs))
		}
	}
	w.Flush()
	var lines []string
	for _, line := range strings.Split(text.String(), "\n") {
		lines = append(lines, strings.TrimRight(line, " "))
	}
	golden(t, "rows.golden", strings.Join(lines, "\n"))
}

func list(names []string) string {
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}

// putRules says whether PUT may create, and whether it may be blind.
func putRules(row *api.Resource) string {
	var rules []string
	if row.AllowCreateOnUpdate {
		rules = append(rules, "creates")
	}
	if row.AllowUnconditionalUpdate {
		rules = append(rules, "unconditional")
	}
	return list(rules)
}

// TestResetFields holds what the writers by each door do not come to own to a
// table of what Kubernetes' GetResetFields and GetResetFieldsFilter say.
func TestResetFields(t *testing.T) {
	var text strings.Builder
	for _, row := range kinds.Registry().Resources() {
		line := func(name string, reset map[schema.GroupVersion]fieldpath.Filter) {
			for _, v := range row.Versions {
				if filter := reset[v.GroupVersion]; filter != nil {
					fmt.Fprintf(&text, "%s %s%s: %s\n", v.GroupVersion, row.Plural, name, describeReset(filter))
				}
			}
		}
		line("", row.ResetFields)
		for _, name := range slices.Sorted(maps.Keys(row.Subresources)) {
			line("/"+name, row.Subresources[name].ResetFields)
		}
	}
	golden(t, "resets.golden", text.String())
}

// describeReset lists the fields that a filter takes out.
func describeReset(filter fieldpath.Filter) string {
	var names []string
	for path := range filter.(api.AllBut).All() {
		names = append(names, strings.TrimPrefix(path.String(), "."))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestRowsAreWhole checks what the server relies on without asking.
func TestRowsAreWhole(t *testing.T) {
	scheme := kinds.Scheme()
	for _, row := range kinds.Registry().Resources() {
		if row.Prefix != "" && (row.NewList == nil || row.Table == nil) {
			t.Errorf("%s has storage, but no list or no columns", row.Plural)
		}
		for _, v := range row.Versions {
			gvks, _, err := scheme.ObjectKinds(v.New())
			if err != nil || !slices.Contains(gvks, v.WithKind(row.Kind)) {
				t.Errorf("%s: New of %s makes %v (%v)", row.Plural, v.GroupVersion, gvks, err)
			}
		}
		if row.Table != nil {
			for _, c := range row.Table.Columns {
				bare := row.Plural == "runtimeclasses" && c.Name == "Handler" // Kubernetes looks for it among metadata
				if c.Name == "" || c.Type == "" || (c.Description == "") != bare {
					t.Errorf("%s: column %q lacks a type or description", row.Plural, c.Name)
				}
			}
		}
		if row.Fields != nil {
			set := row.Fields(row.New())
			if got, want := slices.Sorted(maps.Keys(set)), slices.Sorted(slices.Values(row.FieldLabels)); !slices.Equal(got, want) {
				t.Errorf("%s: fields %v, labels %v", row.Plural, got, want)
			}
		}
		for name, sub := range row.Subresources {
			view := sub.PrepareUpdate != nil && (sub.ValidateUpdate != nil || sub.ValidateUpdateAt != nil)
			body := sub.New != nil && sub.Put != nil
			if !view && !body && !sub.Connect {
				t.Errorf("%s/%s is neither a view, nor has it a body or a handler", row.Plural, name)
			}
		}
		if kinds.Registry().Of(row.New()) != row {
			t.Errorf("%s is not found by its type", row.Plural)
		}
	}
}
