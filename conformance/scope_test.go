package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// scope is what SCOPE.md says.
type scope struct {
	served []string          // "apps/v1 Deployment"
	inert  map[string]string // "statefulsets.apps" and what is missing
}

// scopeOf reads the two tables of SCOPE.md.
func scopeOf(t *testing.T) scope {
	t.Helper()
	data, err := os.ReadFile("../SCOPE.md")
	if err != nil {
		t.Fatal(err)
	}
	s := scope{inert: map[string]string{}}
	table := ""
	for line := range strings.Lines(string(data)) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			table = ""
		case strings.HasPrefix(line, "|--"):
		case table == "":
			table = cells[0]
		case table == "group":
			group, versions, several := strings.Cut(cells[0], " (")
			all := []string{"v1"}
			if several {
				all = strings.Split(strings.TrimSuffix(versions, ")"), " and ")
			}
			for _, version := range all {
				for _, kind := range strings.Split(cells[1], ", ") {
					s.served = append(s.served, strings.TrimPrefix(group+"/"+version, "core/")+" "+kind)
				}
			}
		case table == "resource":
			s.inert[cells[0]] = cells[1]
		}
	}
	slices.Sort(s.served)
	if len(s.served) == 0 {
		t.Fatal("SCOPE.md lists no kinds")
	}
	return s
}

// effectless is the warning of a write to a kind that nothing acts on.
func effectless(t *testing.T, u *unstructured.Unstructured) []string {
	t.Helper()
	resource, _ := place(t, u, "")
	if group := u.GroupVersionKind().Group; group != "" {
		resource += "." + group
	}
	missing, ok := scopeOf(t).inert[resource]
	if !ok {
		return nil
	}
	return []string{fmt.Sprintf("%s is stored without effect in this version of Hansa: %s", resource, missing)}
}

// Whoever writes what has no effect yet is told, and only they: the list in
// SCOPE.md is the server's.
func TestEffectless(t *testing.T) {
	ns := namespace(t)
	said, found := scopeOf(t).inert, map[string]bool{}
	for _, s := range samples(t, ns) {
		a := admin.want(t, 201, call{method: "POST", path: s.path() + "?dryRun=All", body: encode(t, s.Object)}, nil)
		var got []string
		for _, w := range a.header.Values("Warning") {
			if text := strings.TrimSuffix(strings.TrimPrefix(w, `299 - "`), `"`); strings.Contains(text, "without effect") {
				got = append(got, text)
				resource, _, _ := strings.Cut(text, " ")
				found[resource] = true
			}
		}
		if want := effectless(t, s.Unstructured); !slices.Equal(got, want) {
			t.Errorf("%s: warnings are %q, want %q", s.GetKind(), got, want)
		}
	}
	for resource := range said {
		if !found[resource] {
			t.Errorf("no sample of %s, which has no effect", resource)
		}
	}
}
