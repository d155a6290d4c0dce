package fields

import (
	"cmp"
	"fmt"
	"reflect"
	"testing"

	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
)

// There is no place in any kind that only the library knows.
func TestEveryPlaceIsKnown(t *testing.T) {
	converter, err := openapi.TypeConverter(kinds.Scheme())
	if err != nil {
		t.Fatal(err)
	}
	common, seen := &Common{}, map[*node]bool{}
	var look func(n *node, at string)
	look = func(n *node, at string) {
		if seen[n] {
			return
		}
		seen[n] = true
		if n.shape == unknown {
			t.Error(at)
		}
		for i := range n.members {
			look(n.members[i].node, at+"."+n.members[i].name)
		}
		if n.elem != nil {
			look(n.elem, at+"[]")
		}
	}
	for _, row := range kinds.Registry().Resources() {
		for _, v := range row.Versions {
			if row.Prefix == "" || v.FromHub != nil {
				continue
			}
			obj := row.New()
			obj.GetObjectKind().SetGroupVersionKind(v.WithKind(row.Kind))
			of, err := converter.ObjectToTyped(obj)
			if err != nil {
				t.Fatal(err)
			}
			kind := typed.ParseableType{Schema: of.Schema(), TypeRef: of.TypeRef()}
			look(common.compile(kind, reflect.TypeOf(obj), unowned), fmt.Sprint(v.GroupVersion, row.Kind))
		}
	}
	if len(seen) < 1000 {
		t.Errorf("only %d places", len(seen))
	}
}

// The library orders items by their keys, of which some may be left out.
func TestItemsAreInOrder(t *testing.T) {
	p := func(s string) part { return part{sort: text, s: s} }
	n := func(n int64) part { return part{sort: integer, n: n} }
	items := []item{
		{id: [maxKeys]part{n(9), p("b")}},
		{id: [maxKeys]part{n(80)}},
		{id: [maxKeys]part{n(80), p("a")}},
		{id: [maxKeys]part{n(80), p("a"), p("a")}},
		{id: [maxKeys]part{n(80), {}, p("a")}},
		{id: [maxKeys]part{p("a")}},
		{id: [maxKeys]part{{sort: boolean}}},
		{id: [maxKeys]part{{}, p("a")}},
	}
	for i := range items {
		for j := range items {
			got := compareItems(items[i], items[j])
			if want := cmp.Compare(i, j); got != want {
				t.Errorf("compareItems(%v, %v) = %d, want %d", items[i].id, items[j].id, got, want)
			}
		}
	}
}

func TestPlain(t *testing.T) {
	for s, want := range map[string]bool{"": true, "a b/~": true, `"`: false, `\`: false, "<": false, ">": false, "&": false, "é": false, "\x7f": false, "\n": false} {
		if plain(s) != want {
			t.Errorf("plain(%q) = %t", s, !want)
		}
	}
}
