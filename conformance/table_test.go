package conformance

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"

// changing is what differs from run to run: ages, times, generated names.
var changing = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\b\d+[smhd](\d+[smh])? +`), "AGE "},
	{regexp.MustCompile(`\b\d+[smhd](\d+[smh])?\b`), "AGE"},
	{regexp.MustCompile(`resourceVersion: "\d+"`), "resourceVersion: VERSION"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d \+0000`), "TIME"},
	{regexp.MustCompile(`<unknown>`), "AGE"},
	{regexp.MustCompile(`\bAGE +`), "AGE "}, // as wide as an age is
	// Fairness says so when it comes to it.
	{regexp.MustCompile(`Request string: (count/widgets.example.com: 0/5)?\n`), "Request string: COUNTED\n"}, // so does the loop
	{regexp.MustCompile(`(Established boolean \(wide\)): (true|false)`), "$1: STATUS"},                       // its loop says so
	{regexp.MustCompile(`MissingPL string: (\?|False)`), "MissingPL string: STATUS"},
}

// steady takes out of a text what differs from run to run; with every pair of
// texts the first is replaced by the second.
func steady(text string, replace ...string) string {
	text = strings.NewReplacer(replace...).Replace(text)
	for _, c := range changing {
		text = c.pattern.ReplaceAllString(text, c.with)
	}
	return text
}

// oddColumns are the name that is none to Kubernetes, and the other way round.
var oddColumns = map[string]bool{"VolumeAttachment Attacher": true, "StorageVersionMigration Name": true}

// API concepts, "Receiving resources as Tables": every kind has columns, with
// types and priorities, and rows that fit.
func TestTables(t *testing.T) {
	ns := namespace(t)
	var text strings.Builder
	for _, s := range samples(t, ns) {
		made := s.make(t)
		var table metav1.Table
		a := admin.want(t, http.StatusOK, call{path: s.path(s.GetName()), accept: asTable}, &table)
		if table.Kind != "Table" || table.APIVersion != "meta.k8s.io/v1" {
			t.Errorf("table of a %s is %s of %s, version %s", s.GetKind(), table.Kind, table.APIVersion, table.ResourceVersion)
		}
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("content type is %s", got)
		}
		fmt.Fprintf(&text, "%s %s\n", s.GetAPIVersion(), s.GetKind())
		if len(table.Rows) != 1 {
			t.Fatalf("table of one %s has %d rows", s.GetKind(), len(table.Rows))
		}
		for i, c := range table.ColumnDefinitions {
			names := (c.Name == "Name") != oddColumns[s.GetKind()+" "+c.Name]
			bare := s.GetKind()+" "+c.Name == "RuntimeClass Handler" // Kubernetes looks for it among metadata
			if (c.Description == "") != bare || names != (c.Format == "name") {
				t.Errorf("column %s of %s: description %q, format %q", c.Name, s.GetKind(), c.Description, c.Format)
			}
			wide := ""
			if c.Priority > 0 {
				wide = " (wide)"
			}
			fmt.Fprintf(&text, "  %s %s%s: %v\n", c.Name, c.Type, wide, table.Rows[0].Cells[i])
		}
		var partial metav1.PartialObjectMetadata
		decode(t, string(table.Rows[0].Object.Raw), &partial)
		if partial.Kind != "PartialObjectMetadata" || partial.APIVersion != "meta.k8s.io/v1" || partial.UID != made.GetUID() || partial.ResourceVersion != table.ResourceVersion {
			t.Errorf("row's object is %s", table.Rows[0].Object.Raw)
		}
	}
	golden(t, "tables.golden", steady(text.String(), ns, "NAMESPACE"))
}

// What a row carries is the client's choice; a list's table has its page.
func TestTableOptions(t *testing.T) {
	ns := namespace(t)
	for i := range 3 {
		create(t, "secrets", ns, fmt.Sprintf("metadata: {name: s%d}", i))
	}
	for include, want := range map[string]string{"None": "", "Metadata": "PartialObjectMetadata", "Object": "Secret", "": "PartialObjectMetadata"} {
		var table metav1.Table
		admin.want(t, http.StatusOK, call{path: at("secrets", ns) + "?includeObject=" + include, accept: asTable}, &table)
		var object metav1.TypeMeta
		if raw := string(table.Rows[0].Object.Raw); raw != "" && raw != "null" {
			decode(t, encode(t, map[string]any{"kind": jsonField(t, raw, "kind")}), &object)
		}
		if object.Kind != want || len(table.Rows) != 3 {
			t.Errorf("includeObject=%s carries %q in %d rows", include, object.Kind, len(table.Rows))
		}
	}
	var table metav1.Table
	admin.want(t, http.StatusOK, call{path: at("secrets", ns) + "?limit=1", accept: asTable}, &table)
	if len(table.Rows) != 1 || table.Continue == "" || table.RemainingItemCount == nil || *table.RemainingItemCount != 2 {
		t.Errorf("a page's table is %+v", table.ListMeta)
	}
	admin.want(t, http.StatusOK, call{path: at("secrets", ns) + "?labelSelector=no%3Dsuch", accept: asTable}, &table)
	admin.do(t, call{path: at("secrets", ns) + "?includeObject=All", accept: asTable}).refused(t, 400, metav1.StatusReasonBadRequest, "")
	for accept, code := range map[string]int{
		"application/json;as=Table;v=v1beta1;g=meta.k8s.io":               200,
		asTable + ",application/json":                                     200,
		"application/json;as=Table;v=v9;g=meta.k8s.io,application/json":   200,
		"application/json;as=Table;v=v9;g=meta.k8s.io":                    406,
		"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io": 406,
		"application/json;as=Nonsense;v=v1;g=meta.k8s.io":                 406,
		"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io":    406, // of a list
	} {
		if a := admin.do(t, call{path: at("secrets", ns), accept: accept}); a.code != code {
			t.Errorf("%s: %d, want %d", accept, a.code, code)
		}
	}
	missing := admin.do(t, call{path: at("secrets", ns, "none"), accept: asTable + ",application/json"})
	missing.refused(t, 404, metav1.StatusReasonNotFound, `secrets "none" not found`)
}

// A scale has a table and metadata of its own; what has neither columns nor
// metadata that lasts, as a review, is 406 as a table ("API metadata HTTP
// return").
func TestTablesOfWhatIsNotStored(t *testing.T) {
	ns := namespace(t)
	create(t, "replicasets", ns, "metadata: {name: rs}\nspec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}")
	var table metav1.Table
	admin.want(t, http.StatusOK, call{path: at("replicasets", ns, "rs", "scale"), accept: asTable}, &table)
	var names []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "Name Desired Available Age" || len(table.Rows) != 1 || table.Rows[0].Cells[0] != "rs" || table.Rows[0].Cells[1] != float64(0) {
		t.Errorf("a scale is shown as %s with %+v", got, table.Rows)
	}
	admin.want(t, http.StatusOK, call{path: at("replicasets", ns, "rs", "scale") + "?includeObject=Object", accept: asTable}, &table)
	if kind := jsonField(t, string(table.Rows[0].Object.Raw), "kind"); kind != "Scale" {
		t.Errorf("the row has a %v", kind)
	}
	meta := admin.want(t, http.StatusOK, call{path: at("replicasets", ns, "rs", "scale"), accept: "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}, nil).object(t)
	if meta.GetKind() != "PartialObjectMetadata" || meta.GetName() != "rs" {
		t.Errorf("metadata of a scale is %v", meta)
	}
	for _, c := range []call{
		{path: at("selfsubjectaccessreviews", ""), body: "spec: {nonResourceAttributes: {verb: get, path: /}}"},
		{path: at("tokenreviews", ""), body: "spec: {token: x}"},
		{path: at("serviceaccounts", ns, "default", "token"), body: "{}"},
	} {
		c.method, c.accept = "POST", asTable
		admin.do(t, c).refused(t, 406, metav1.StatusReasonNotAcceptable, "only the following media types are accepted")
		c.accept = asTable + ",application/json"
		admin.want(t, http.StatusCreated, c, nil)
	}
}

func jsonField(t *testing.T, text, name string) any {
	t.Helper()
	var m map[string]any
	decode(t, text, &m)
	return m[name]
}

// A watch may be of tables or metadata; only its first table has columns.
func TestWatchOfTables(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	w := admin.watch(t, call{path: at("secrets", ns), accept: asTable})
	create(t, "secrets", ns, "metadata: {name: b}")
	for i, name := range []string{"a", "b"} {
		e := w.next(t)
		var table metav1.Table
		decode(t, string(e.Object), &table)
		if e.Type != "ADDED" || table.Kind != "Table" || len(table.Rows) != 1 || table.Rows[0].Cells[0] != name || (len(table.ColumnDefinitions) > 0) != (i == 0) {
			t.Errorf("event %d is %s %s", i, e.Type, e.Object)
		}
	}
	m := admin.watch(t, call{path: at("secrets", ns), accept: "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"})
	e := m.next(t)
	if e.Type != "ADDED" || e.object.GetKind() != "PartialObjectMetadata" || e.object.GetName() != "a" || len(e.object.Object) != 3 {
		t.Errorf("watch of metadata begins with %s %s", e.Type, e.Object)
	}
}

// API concepts, "Metadata-only fetches": everything but metadata is left out.
func TestMetadataOnly(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a, labels: {x: v}}\nstringData: {k: v}")
	one := admin.want(t, http.StatusOK, call{path: at("secrets", ns, "a"), accept: "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}, nil).object(t)
	if one.GetKind() != "PartialObjectMetadata" || one.GetAPIVersion() != "meta.k8s.io/v1" || one.GetLabels()["x"] != "v" || len(one.Object) != 3 {
		t.Errorf("metadata of one is %v", one)
	}
	many := admin.want(t, http.StatusOK, call{path: at("secrets", ns), accept: "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}, nil).object(t)
	if many.GetKind() != "PartialObjectMetadataList" || field(many, "items") == "" || strings.Contains(field(many, "items"), `"data"`) {
		t.Errorf("metadata of many is %v", many)
	}
	if v := many.GetResourceVersion(); v == "" {
		t.Error("the list has no version")
	}
}
