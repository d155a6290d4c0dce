//go:build generate

// Command openapi writes what package api/openapi embeds: the OpenAPI documents
// (v2, and v3 for each group-version) and the schemas by which objects are
// merged, for every kind of package kinds. It is run by `make generate`, after
// openapi-gen has turned the Go types' comments into hack/openapi/definitions.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/gob"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/schema"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi/paths"
)

func main() {
	out := flag.String("out", "api/openapi/data", "folder to write to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	next := out + ".next" // takes the place of out once it is complete
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := build(next); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return os.Rename(next, out)
}

func build(out string) error {
	reg := kinds.Registry()
	defs := newDefinitions(reg.Scheme())
	all := paths.All(reg)

	v2, err := buildV2(defs, all)
	if err != nil {
		return fmt.Errorf("build OpenAPI v2: %w", err)
	}
	text, err := json.Marshal(v2)
	if err != nil {
		return err
	}
	if err := write(out, "v2.json", text); err != nil {
		return err
	}
	doc, err := openapi_v2.ParseDocument(text)
	if err != nil {
		return fmt.Errorf("read back OpenAPI v2: %w", err)
	}
	pb, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	if err != nil {
		return err
	}
	if err := write(out, "v2.pb", pb); err != nil {
		return err
	}

	models := map[string]*spec.Schema{}
	for _, group := range paths.Grouped(all) {
		v3, err := buildV3(defs, group)
		if err != nil {
			return fmt.Errorf("build OpenAPI v3 of %s: %w", group.Name, err)
		}
		text, err := json.Marshal(v3)
		if err != nil {
			return err
		}
		if err := write(out, filepath.Join("v3", group.Name+".json"), text); err != nil {
			return err
		}
		// Read back, so that defaults have plain types.
		var plain spec3.OpenAPI
		if err := json.Unmarshal(text, &plain); err != nil {
			return err
		}
		for name, s := range plain.Components.Schemas {
			models[name] = s
		}
	}
	return writeSchemas(out, models)
}

// write compresses a file; equal contents give equal bytes.
func write(out, name string, data []byte) error {
	path := filepath.Join(out, name+".gz")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// writeSchemas converts the models into structured-merge-diff's own schema, so
// that a server need not.
func writeSchemas(out string, models map[string]*spec.Schema) error {
	// List kinds are never applied; without them the schema is a fifth smaller.
	for name := range models {
		if strings.HasSuffix(name, "List") && models[strings.TrimSuffix(name, "List")] != nil {
			delete(models, name)
		}
	}
	s, err := schemaconv.ToSchemaFromOpenAPI(models, false)
	if err != nil {
		return fmt.Errorf("convert models to merge schemas: %w", err)
	}
	for i := range s.Types {
		sortFields(&s.Types[i].Atom)
	}
	slices.SortFunc(s.Types, func(a, b schema.TypeDef) int { return strings.Compare(a.Name, b.Name) })
	for _, v := range []any{int64(0), float64(0), "", false, map[string]any{}, []any{}, map[any]any{}} {
		gob.Register(v)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s.Types); err != nil {
		return fmt.Errorf("encode merge schemas: %w", err)
	}
	var back []schema.TypeDef
	if err := gob.NewDecoder(bytes.NewReader(b.Bytes())).Decode(&back); err != nil {
		return fmt.Errorf("read back merge schemas: %w", err)
	}
	if !reflect.DeepEqual(s.Types, back) {
		return fmt.Errorf("merge schemas do not survive their encoding")
	}
	return write(out, "schemas.gob", b.Bytes())
}

// sortFields brings the fields of an atom, and of all within it, into order: the
// conversion goes through maps.
func sortFields(a *schema.Atom) {
	if a.List != nil {
		sortFields(&a.List.ElementType.Inlined)
	}
	if a.Map == nil {
		return
	}
	sortFields(&a.Map.ElementType.Inlined)
	slices.SortFunc(a.Map.Fields, func(x, y schema.StructField) int { return strings.Compare(x.Name, y.Name) })
	for i := range a.Map.Fields {
		sortFields(&a.Map.Fields[i].Type.Inlined)
	}
}
