package fields

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
)

func configMaps(t *testing.T) *Tracker {
	t.Helper()
	converter, err := openapi.TypeConverter(kinds.Scheme())
	if err != nil {
		t.Fatal(err)
	}
	obj := &corev1.ConfigMap{}
	obj.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	of, err := converter.ObjectToTyped(obj)
	if err != nil {
		t.Fatal(err)
	}
	return NewTracker(typed.ParseableType{Schema: of.Schema(), TypeRef: of.TypeRef()}, "v1", "", obj, nil, &Common{})
}

// What is remembered is bounded, and what is in use stays.
func TestSetsAreBounded(t *testing.T) {
	tracker := configMaps(t)
	sets := tracker.sets
	raw := func(i int) []byte { return fmt.Appendf(nil, `{"f:data":{"f:%s%d":{}}}`, strings.Repeat("x", 4<<10), i) }
	kept := sets.get(tracker, raw(0))
	for i := range 500 {
		sets.get(tracker, raw(1+i))
		if sets.get(tracker, raw(0)) != kept {
			t.Fatalf("forgotten after %d others", i)
		}
		size := 0
		for key := range sets.young {
			size += len(key.fields)
		}
		if size != sets.size || size > maxGeneration {
			t.Fatalf("%d bytes in a generation that counts %d, at most %d", size, sets.size, maxGeneration)
		}
	}
	if n := len(sets.young) + len(sets.old); n > 2*maxGeneration/(4<<10) {
		t.Errorf("%d sets remembered", n)
	}
	large := fmt.Appendf(nil, `{"f:data":{"f:%s":{}}}`, strings.Repeat("x", maxFields))
	if sets.get(tracker, large) == sets.get(tracker, large) {
		t.Error("a set that is too large was remembered")
	}
}

func TestRead(t *testing.T) {
	tracker := configMaps(t)
	for raw, want := range map[string]string{
		`{"f:data":{"f:a":{}}}`:                    `{"f:data":{"f:a":{}}}`,
		`{"f:data":{"f:b":{},"f:a":{},".":{}}}`:    `{"f:data":{".":{},"f:a":{},"f:b":{}}}`,
		`{"f:data":{"f:a":{}},"x:of tomorrow":{}}`: `{"f:data":{"f:a":{}}}`,
		// For the library:
		`{}`:                           "",
		`{"f:data":`:                   "",
		`{"f:data":{}} {}`:             "",
		`{"f:metadata":{"f:name":{}}}`: "",
		`{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"a\"}":{"f:name":{}}}}}`: "", // no longer by parts
	} {
		s := tracker.read([]byte(raw))
		if s.usual != (want != "") {
			t.Errorf("%s: usual %t", raw, s.usual)
		}
		if s.usual && s.fields.GetRawString() != want {
			t.Errorf("%s became %s", raw, s.fields.GetRawString())
		}
	}
}
