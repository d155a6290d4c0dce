package conformance

import (
	"fmt"
	"os"
	"regexp"
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
// SCOPE.md is the server's. Its status stays as it is written.
func TestEffectless(t *testing.T) {
	ns := namespace(t)
	written := map[*sample]string{}
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
		if len(got) > 0 {
			written[&s] = field(s.make(t), "status")
		}
	}
	loopsRest(t, ns)
	for s, status := range written {
		if got := field(s.read(t), "status"); got != status {
			t.Errorf("the status of %s was written as %s and became %s", s.GetKind(), status, got)
		}
	}
	for resource := range said {
		if !found[resource] {
			t.Errorf("no sample of %s, which has no effect", resource)
		}
	}
}

// loopsRest waits until loops have acted on what was written after all else, and
// no queue of theirs holds anything.
func loopsRest(t *testing.T, ns string) {
	t.Helper()
	create(t, "deployments", ns, deploymentOf("last", 0))
	queue := regexp.MustCompile(`(?m)^workqueue_depth\{.*\} ([0-9.e+]+)$`)
	eventually(t, "the loops rest", func() bool {
		idle := field(get(t, "deployments", ns, "last"), "status", "observedGeneration") == "1"
		depths := queue.FindAllStringSubmatch(string(admin.want(t, 200, call{path: "/metrics"}, nil).body), -1)
		for _, depth := range depths {
			idle = idle && depth[1] == "0"
		}
		return idle && len(depths) > 0
	})
}
