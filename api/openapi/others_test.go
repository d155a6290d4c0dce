package openapi_test

import (
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
)

const objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

func described(t *testing.T, group, definitions string) *spec.Swagger {
	t.Helper()
	s := &spec.Swagger{}
	text := `{"swagger":"2.0","info":{"title":"x","version":"v1"},"parameters":{"pretty":{"name":"pretty","in":"query","type":"string","uniqueItems":true}},
		"paths":{"/apis/` + group + `/v1/flunders":{"get":{"operationId":"list` + group + `","responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/com.example.Flunder"}}}},"parameters":[{"$ref":"#/parameters/pretty"}]}},
		"definitions":{` + definitions + `}}`
	if err := s.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

func textOf(t *testing.T, d openapi.Document) []byte {
	t.Helper()
	r, err := d.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Documents of other servers are merged into the embedded one, in both encodings:
// what has the same name and is the same is there once, what is not the same gets
// another name (Kubernetes: MergeSpecs of kube-openapi). References count as they
// were written, so what refers to something renamed is renamed again.
func TestOthersAreMerged(t *testing.T) {
	kind := `"com.example.Flunder":{"type":"object","properties":{"metadata":{"$ref":"#/definitions/` + objectMeta + `"}}}`
	first := described(t, "a.example.com", kind+`,"`+objectMeta+`":{"type":"object","properties":{"mine":{"type":"string"}}}`)
	second := described(t, "b.example.com", kind+`,"`+objectMeta+`":{"type":"object","properties":{"mine":{"type":"string"}}}`)
	third := described(t, "c.example.com", `"com.example.Flunder":{"type":"string"}`)
	ended := make(chan struct{})
	list := []*spec.Swagger{first, second, third}
	d := openapi.NewDefined(kinds.New(), func() ([]*spec.Swagger, <-chan struct{}) { return list, ended })
	var doc spec.Swagger
	text := textOf(t, d.V2JSON())
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"a", "b", "c"} {
		if _, ok := doc.Paths.Paths["/apis/"+group+".example.com/v1/flunders"]; !ok {
			t.Errorf("no path of %s", group)
		}
	}
	var names []string
	for name := range doc.Definitions {
		if strings.HasPrefix(name, objectMeta) || strings.HasPrefix(name, "com.example") {
			names = append(names, name)
		}
	}
	if len(names) != 5 || doc.Definitions[objectMeta+"_v2"].Properties["mine"].Type == nil || len(doc.Definitions[objectMeta].Properties) < 10 {
		t.Errorf("schemas %v", names)
	}
	if _, ok := doc.Parameters["pretty"]; !ok {
		t.Error("no parameter")
	}
	if len(doc.Paths.Paths) < 200 {
		t.Errorf("%d paths", len(doc.Paths.Paths))
	}
	var pb openapi_v2.Document
	if err := proto.Unmarshal(textOf(t, d.V2Proto()), &pb); err != nil {
		t.Fatal(err)
	}
	if n := len(pb.Paths.Path); n != len(doc.Paths.Paths) {
		t.Errorf("%d paths in protobuf, %d in JSON", n, len(doc.Paths.Paths))
	}
	hash := d.V2JSON().Hash
	list = nil
	if d.V2JSON().Hash != hash {
		t.Error("another document before its time")
	}
	close(ended)
	if d.V2JSON().Hash != openapi.V2JSON().Hash {
		t.Error("what is gone is still there")
	}
}

// Definitions and other servers may change at once; neither is overlooked.
func TestBothChange(t *testing.T) {
	reg := kinds.New()
	ended := make(chan struct{})
	d := openapi.NewDefined(reg, func() ([]*spec.Swagger, <-chan struct{}) { return nil, ended })
	for range 20 {
		was := reflect.ValueOf(d.V3()).Pointer()
		reg.Define(nil)
		close(ended)
		ended = make(chan struct{})
		if reflect.ValueOf(d.V3()).Pointer() == was {
			t.Fatal("the documents of version 3 are those of before")
		}
	}
}
