package request_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/internal/fixtures"
)

// What is merged into the fields that a patch speaks of is what is merged into
// the whole object, for an object of each kind that has a value in every field.
func TestMergeParts(t *testing.T) {
	h := requesttest.Handler(t, nil)
	var parts int
	for _, r := range kinds.Registry().Resources() {
		served := kinds.Registry().ByGVK(r.GVK())
		form := codec.FormOf(served)
		cur := example(t, h.Codec, form)
		if cur == nil {
			continue
		}
		data, err := h.Codec.Append(nil, cur, form, codec.JSON)
		if err != nil {
			t.Fatal(err)
		}
		for i, text := range append(mergePatches(data), `null`, `[]`, `"x"`, `{}`, `{"kind":"Other"}`, `{"nothing":1}`) {
			validation := []string{metav1.FieldValidationStrict, metav1.FieldValidationIgnore}[i%2]
			info := &request.Info{Verb: "patch", Served: served, Name: cur.GetName()}
			before := cur.DeepCopyObject()
			short, long, longErr := h.Merged(info, cur, types.MergePatchType, []byte(text), validation)
			if !equality.Semantic.DeepEqual(before, cur) {
				t.Fatalf("%s: %s changed what it is merged into", form.Kind, text)
			}
			if short == nil {
				continue
			}
			parts++
			if longErr != nil || encoded(t, h.Codec, short, form) != encoded(t, h.Codec, long, form) {
				t.Errorf("%s: %s: %v\n%s", form.Kind, text, longErr, cmp.Diff(long, short))
			}
		}
	}
	if parts < 500 {
		t.Errorf("only %d patches were merged by parts", parts)
	}
}

// example is an object of a kind with a value in every field, nil if there is none.
func example(t *testing.T, c *codec.Codec, form codec.Form) api.Object {
	t.Helper()
	file, err := fixtures.Path("HEAD", form.Group, form.Version, form.Kind, "json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	obj, _, err := c.DecodeRaw(data, codec.JSON, form, false)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(api.Object)
}

func encoded(t *testing.T, c *codec.Codec, obj runtime.Object, form codec.Form) string {
	t.Helper()
	data, err := c.AppendValue(nil, obj, form.GroupVersionKind, codec.JSON)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// mergePatches take every field away, replace it by something else and by
// itself, and add to it.
func mergePatches(data []byte) []string {
	var patches []string
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		panic(err) // it was encoded here
	}
	for key := range keys {
		for _, value := range []string{"null", "{}", "[]", `"x"`, "1", `{"x":"y"}`, `{"name":null}`, `{"labels":{"a":"b","c":null}}`} {
			patches = append(patches, fmt.Sprintf(`{%q:%s}`, key, value), fmt.Sprintf(`{%q:%s,"metadata":{"annotations":null}}`, key, value))
		}
	}
	return append(patches, string(data), strings.Replace(string(data), "1", "2", 3))
}
