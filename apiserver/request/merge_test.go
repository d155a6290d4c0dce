package request

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// FuzzMergePatch: the examples of RFC 7386, appendix A, and everything else lead
// to what they do in Kubernetes' library.
func FuzzMergePatch(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"a":"b"}`, `{"a":"c"}`}, {`{"a":"b"}`, `{"b":"c"}`}, {`{"a":"b"}`, `{"a":null}`}, {`{"a":"b","b":"c"}`, `{"a":null}`},
		{`{"a":["b"]}`, `{"a":"c"}`}, {`{"a":"c"}`, `{"a":["b"]}`}, {`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`}, {`{"a":[{"b":"c"}]}`, `{"a":[1]}`},
		{`{"a":"b"}`, `["c"]`}, {`{"a":"foo"}`, `null`}, {`{"a":"foo"}`, `"bar"`}, {`{"e":null}`, `{"a":1}`}, {`{}`, `{"a":{"bb":{"ccc":null}}}`},
		{`{"a":null}`, `{"a":{"b":null}}`}, {`{"a":1}`, `{"a":[null,{"b":null,"c":[{"d":null}]}]}`}, {`{"a":1e999}`, `{"b":12345678901234567890.10}`}, {`{"a":"<&>"}`, `{"b":"\u2028"}`},
		{`{"a":1}`, `{"a":2,"a":{"b":3}}`}, {`{"a":{}}`, `{"a":{"b":{"c":[]}}}`}, {`{"a":{"x":1}}`, `{"a":{"x":{"y":null,"z":1}}}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, was, patch []byte) {
		if !json.Valid(was) || !json.Valid(patch) || !strings.HasPrefix(string(was), "{") {
			return // what is stored is an object
		}
		got, err := mergePatch(was, patch)
		want, wantErr := jsonpatch.MergePatch(was, patch)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%s merged into %s: %v, want %v", patch, was, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(decodeNumbers(got), decodeNumbers(want)) {
			t.Errorf("%s merged into %s is %s, want %s", patch, was, got, want)
		}
	})
}
