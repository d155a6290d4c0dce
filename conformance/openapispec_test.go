package conformance

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var spec = flag.String("spec", "", "folder api/openapi-spec/v3 of Kubernetes, to rewrite testdata/operations.txt from")

// operationsFile has what Kubernetes' documents say of each operation: shapes,
// which are numbered, and operations, each with the number of its shape.
const operationsFile = "testdata/operations.txt"

// An operation is its id, its kind, and what many have alike.
type operation struct{ id, kind, shape string }

type parameter struct {
	Ref, Name string
	Required  bool
	Schema    struct{ Type string }
}

// operations are those of a document, by "METHOD PATH".
func operations(t *testing.T, text []byte) map[string]operation {
	t.Helper()
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Parameters map[string]parameter }
	}
	text = []byte(strings.NewReplacer(`"$ref"`, `"ref"`, `"x-kubernetes-group-version-kind"`, `"gvk"`, `"x-kubernetes-action"`, `"action"`).Replace(string(text)))
	decode := func(text []byte, into any) {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	decode(text, &doc)
	all := map[string]operation{}
	for path, item := range doc.Paths {
		var common []parameter
		if item["parameters"] != nil {
			decode(item["parameters"], &common)
		}
		delete(item, "parameters")
		for method, raw := range item {
			var o struct {
				OperationID string
				Action      string
				GVK         struct{ Group, Version, Kind string }
				Parameters  []parameter
				RequestBody struct{ Content map[string]json.RawMessage }
				Responses   map[string]struct{ Content map[string]json.RawMessage }
			}
			decode(raw, &o)
			var parameters []string
			for _, p := range append(o.Parameters, common...) {
				if p.Ref != "" {
					p = doc.Components.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
				}
				parameters = append(parameters, fmt.Sprintf("%s:%s:%t", p.Name, p.Schema.Type, p.Required))
			}
			slices.Sort(parameters)
			all[method+" "+path] = operation{
				id: o.OperationID, kind: o.GVK.Group + "/" + o.GVK.Version + "/" + o.GVK.Kind,
				shape: fmt.Sprintf("%s; takes %s; %s: %s; %s", o.Action, sortedKeys(o.RequestBody.Content), sortedKeys(o.Responses), sortedKeys(o.Responses["200"].Content), parameters),
			}
		}
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// here is the operation as it is to be here: without what is behind a gate, of
// which Kubernetes' documents tell all the same.
func (o operation) here() operation {
	o.shape = strings.Replace(o.shape, " shardSelector:string:false", "", 1)
	return o
}

// The documents say of each operation what Kubernetes' own say: those of
// api/openapi-spec in its repository, of everything that is served here. They are
// made with all gates on, and so CBOR is in them, which is served here as well.
func TestOpenAPIOperations(t *testing.T) {
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	admin.want(t, http.StatusOK, call{path: "/openapi/v3"}, &index)
	if *spec != "" {
		rewriteOperations(t, sortedKeys(index.Paths))
	}
	want, got := readOperations(t), map[string]operation{}
	for name, at := range index.Paths {
		if _, known := want["get /"+name+"/"]; known {
			maps.Copy(got, operations(t, admin.want(t, http.StatusOK, call{path: at.ServerRelativeURL, accept: "application/json"}, nil).body))
		}
	}
	for _, op := range sortedKeys(want) {
		if w := want[op].here(); got[op] != w {
			t.Errorf("%s is\n%+v, Kubernetes' is\n%+v", op, got[op], w)
		}
		delete(got, op)
	}
	if len(got) > 0 {
		t.Errorf("Kubernetes does not describe %s", sortedKeys(got))
	}
}

func readOperations(t *testing.T) map[string]operation {
	t.Helper()
	text, err := os.ReadFile(operationsFile)
	if err != nil {
		t.Fatal(err)
	}
	shapes, all := map[string]string{}, map[string]operation{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if number, shape, ok := strings.Cut(line, " = "); ok {
			shapes[number] = shape
			continue
		}
		f := strings.Fields(line)
		if len(f) != 5 || shapes[f[4]] == "" {
			t.Fatalf("%s: %s", operationsFile, line)
		}
		all[f[0]+" "+f[1]] = operation{id: f[2], kind: f[3], shape: shapes[f[4]]}
	}
	return all
}

func rewriteOperations(t *testing.T, documents []string) {
	t.Helper()
	all := map[string]operation{}
	for _, name := range documents {
		text, err := os.ReadFile(filepath.Join(*spec, strings.ReplaceAll(name, "/", "__")+"_openapi.json"))
		if os.IsNotExist(err) {
			continue // our own, or a test's
		} else if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, operations(t, text))
	}
	var shapes, lines []string
	for _, op := range sortedKeys(all) {
		o := all[op]
		n := slices.Index(shapes, o.shape)
		if n < 0 {
			n = len(shapes)
			shapes = append(shapes, o.shape)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %d\n", op, o.id, o.kind, n))
	}
	for i := range shapes {
		shapes[i] = fmt.Sprintf("%d = %s\n", i, shapes[i])
	}
	if err := os.WriteFile(operationsFile, []byte(strings.Join(append(shapes, lines...), "")), 0o644); err != nil {
		t.Fatal(err)
	}
}
