package envelope_test

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/internal/envelope"
)

func TestAsKubernetesDoes(t *testing.T) {
	for _, object := range []string{"x", strings.Repeat("object", 100), strings.Repeat("o", 1<<20)} {
		u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, Raw: []byte(object)}
		want, err := u.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		want = append([]byte(envelope.Prefix), want...)
		e := envelope.Of("apps/v1", "Deployment")
		if got := e.Append([]byte("before"), []byte(object)); !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("an object of %d bytes gives another envelope", len(object))
		}
		if got, ok := e.Cut(want); !ok || string(got) != object {
			t.Errorf("an object of %d bytes is not found again", len(object))
		}
		for name, value := range map[string][]byte{
			"nothing": nil, "a prefix": want[:10], "cut off": want[:len(want)-1], "more": append(bytes.Clone(want), 0x1a, 0),
		} {
			if _, ok := e.Cut(value); ok {
				t.Errorf("%s is taken for an object", name)
			}
		}
		if _, ok := envelope.Of("apps/v1", "ReplicaSet").Cut(want); ok {
			t.Error("an object of another kind is taken for one of this")
		}
	}
}
