package codec_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/internal/fixtures"
)

// forms are those of everything that is served: kinds in all their versions,
// and bodies of subresources.
func forms() map[string]codec.Form {
	all := map[string]codec.Form{}
	add := func(f codec.Form) {
		group := f.Group
		if group == "" {
			group = "core"
		}
		all[group+"."+f.Version+"."+f.Kind] = f
	}
	r := kinds.Registry()
	for _, row := range r.Resources() {
		for _, v := range row.Versions {
			add(codec.FormOf(r.ByGVR(v.WithResource(row.Plural))))
		}
		for _, sub := range row.Subresources {
			if sub.New != nil && !sub.Connect {
				add(codec.Form{GroupVersionKind: sub.Kind, New: sub.New})
			}
		}
	}
	return all
}

// Every file decodes and is encoded again to the same bytes.
func TestRoundTrip(t *testing.T) {
	c := codec.New(kinds.Registry(), 1<<20)
	for name, form := range forms() {
		t.Run(name, func(t *testing.T) {
			for ext, media := range map[string]codec.MediaType{"json": codec.JSON, "yaml": codec.YAML, "pb": codec.Protobuf} {
				path, err := fixtures.Path("HEAD", form.Group, form.Version, form.Kind, ext)
				if err != nil {
					t.Fatal(err)
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				form.Parse = nil // it may add to what there is
				obj, problems, err := c.Decode(want, media, form, true)
				if err != nil || len(problems) > 0 {
					t.Fatalf("decode %s: %v %v", ext, err, problems)
				}
				// What passes through the hub loses what only one version has;
				// rows are tested for that.
				if form.ToHub != nil {
					continue
				}
				got, err := c.AppendValue(nil, obj, form.GroupVersionKind, media)
				if err != nil {
					t.Fatalf("encode %s: %v", ext, err)
				}
				if media == codec.JSON {
					got, want = canonical(t, got), canonical(t, want)
					roundTripCBOR(t, c, obj, form)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s is\n%s\nwant\n%s", ext, got, want)
				}
			}
		})
	}
}

// roundTripCBOR encodes obj as CBOR, for which there are no files, and decodes
// it again, both itself and as Kubernetes does.
func roundTripCBOR(t *testing.T, c *codec.Codec, obj runtime.Object, form codec.Form) {
	t.Helper()
	data, err := c.AppendValue(nil, obj, form.GroupVersionKind, codec.CBOR)
	if err != nil {
		t.Fatalf("encode cbor: %v", err)
	}
	back, problems, err := c.Decode(data, codec.CBOR, form, true)
	if err != nil || len(problems) > 0 {
		t.Fatalf("decode cbor: %v %v", err, problems)
	}
	// What is raw comes back as JSON that says the same.
	want := inJSON(t, obj)
	if diff := cmp.Diff(want, inJSON(t, back)); diff != "" {
		t.Errorf("cbor (-want +got):\n%s", diff)
	}
	theirs, gvk, err := cbor.NewSerializer(kinds.Scheme(), kinds.Scheme()).Decode(data, nil, nil)
	if err != nil || *gvk != form.GroupVersionKind {
		t.Fatalf("as Kubernetes decodes it, cbor is a %v: %v", gvk, err)
	}
	theirs.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if diff := cmp.Diff(want, inJSON(t, theirs)); diff != "" {
		t.Errorf("cbor as Kubernetes decodes it (-want +got):\n%s", diff)
	}
}

func inJSON(t *testing.T, obj runtime.Object) string {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(canonical(t, data))
}

// canonical is JSON with its keys in order.
func canonical(t *testing.T, data []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A list is put together from its items' encodings; it must be what encoding
// the whole list gives.
func TestListsAreWhatTheirTypesEncode(t *testing.T) {
	r := kinds.Registry()
	c := codec.New(r, 1<<20)
	remaining := int64(3)
	meta := metav1.ListMeta{ResourceVersion: "12", Continue: "x", RemainingItemCount: &remaining}
	for _, row := range r.Resources() {
		if row.NewList == nil {
			continue
		}
		for _, v := range row.Versions {
			form := codec.FormOf(r.ByGVR(v.WithResource(row.Plural)))
			list := &codec.List{Kind: v.WithKind(row.Kind + "List"), Meta: meta, Form: form}
			typed := v.NewList()
			var items []api.Object
			for i := range 3 {
				obj := row.New()
				obj.SetName(fmt.Sprint("n", i))
				// More than is written at once, in all.
				obj.SetLabels(map[string]string{"a": strings.Repeat("b", 20<<10), "lines": "  a\n\n- b\n", "spaces": strings.Repeat("word ", 50)})
				items = append(items, obj)
			}
			list.Items = slices.Values(items)
			fill(t, typed, meta, items, form)
			same(t, c, list, typed)
		}
	}
}

// same compares a list as it is written with what encoding its type gives.
func same(t *testing.T, c *codec.Codec, list *codec.List, typed runtime.Object) {
	t.Helper()
	for media, encode := range map[codec.MediaType]func(runtime.Object) ([]byte, error){
		codec.JSON:     func(o runtime.Object) ([]byte, error) { return json.Marshal(o) },
		codec.YAML:     func(o runtime.Object) ([]byte, error) { return yaml.Marshal(o) },
		codec.Protobuf: func(o runtime.Object) ([]byte, error) { return runtime.Encode(protobuf.NewSerializer(nil, nil), o) },
		codec.CBOR:     func(o runtime.Object) ([]byte, error) { return runtime.Encode(cbor.NewSerializer(nil, nil), o) },
	} {
		var got bytes.Buffer
		if err := c.WriteList(&got, list, media); err != nil {
			t.Fatal(err)
		}
		want, err := encode(typed)
		if err != nil {
			t.Fatal(err)
		}
		have := got.Bytes()
		switch media {
		case codec.CBOR:
			have, want = diagnosed(t, have), diagnosed(t, want)
		case codec.YAML:
			// Where long texts are folded depends on the column.
			have, want = unfolded(t, have), unfolded(t, want)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s as %s is\n%.300q\nwant\n%.300q", list.Kind, media, have, want)
		}
	}
}

func unfolded(t *testing.T, text []byte) []byte {
	t.Helper()
	out, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Items of a PartialObjectMetadataList have their kind.
func TestListsOfMetadataAreWhatTheirTypeEncodes(t *testing.T) {
	r := kinds.Registry()
	c := codec.New(r, 1<<20)
	kind := metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata")
	meta := metav1.ListMeta{ResourceVersion: "12"}
	for _, n := range []int{0, 3} {
		typed := &metav1.PartialObjectMetadataList{ListMeta: meta, Items: []metav1.PartialObjectMetadata{}}
		typed.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList"))
		var items []api.Object
		for i := range n {
			obj := r.Must("", "configmaps").New()
			obj.SetName(fmt.Sprint("n", i))
			one := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: obj.GetName()}}
			one.SetGroupVersionKind(kind)
			items, typed.Items = append(items, obj), append(typed.Items, one)
		}
		form := codec.Form{GroupVersionKind: kind, FromHub: func(obj api.Object) (api.Object, error) {
			one := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: obj.GetName()}}
			one.SetGroupVersionKind(kind)
			return one, nil
		}}
		same(t, c, &codec.List{Kind: typed.GroupVersionKind(), Meta: meta, Items: slices.Values(items), Form: form, Kinds: true}, typed)
	}
}

// diagnosed is CBOR in words with the keys of its maps in order: their order
// says nothing.
func diagnosed(t *testing.T, data []byte) []byte {
	t.Helper()
	var v any
	if err := direct.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	sorted, err := direct.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	text, err := direct.Diagnose(sorted)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(text)
}

// fill puts items into a list of their type, through JSON.
func fill(t *testing.T, list runtime.Object, meta metav1.ListMeta, items []api.Object, form codec.Form) {
	t.Helper()
	var versioned []runtime.Object
	for _, item := range items {
		if form.FromHub != nil {
			v, err := form.FromHub(item)
			if err != nil {
				t.Fatal(err)
			}
			v.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			item = v
		}
		versioned = append(versioned, item)
	}
	data, err := json.Marshal(map[string]any{
		"kind": form.Kind + "List", "apiVersion": form.GroupVersion().String(), "metadata": meta, "items": versioned,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, list); err != nil {
		t.Fatal(err)
	}
}

func TestEmptyListsHaveItems(t *testing.T) {
	c := codec.New(kinds.Registry(), 1<<20)
	form := codec.FormOf(kinds.Registry().ByGVR(corev1.SchemeGroupVersion.WithResource("pods")))
	var got bytes.Buffer
	err := c.WriteList(&got, &codec.List{Kind: corev1.SchemeGroupVersion.WithKind("PodList"), Items: slices.Values([]api.Object(nil)), Form: form}, codec.JSON)
	if want := `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`; err != nil || got.String() != want {
		t.Errorf("empty list is %s, %v", got.String(), err)
	}
}

func TestCacheIsBoundedAndRemembers(t *testing.T) {
	const limit = 64 << 10
	c := codec.New(kinds.Registry(), limit)
	form := codec.FormOf(kinds.Registry().ByGVR(corev1.SchemeGroupVersion.WithResource("configmaps")))
	body := func(cm *corev1.ConfigMap) codec.Body {
		t.Helper()
		b, err := c.Body(cm, form, codec.JSON)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	hot := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "hot"}}
	first := body(hot)
	for i := range 10000 {
		body(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(i)}})
		if again := body(hot); &again[0] != &first[0] {
			t.Fatalf("after %d others the one in use was encoded again", i)
		}
	}
	if size := c.CacheBytes(); size > limit {
		t.Errorf("the cache holds %d bytes, its limit is %d", size, limit)
	}
	c.Forget()
	if size := c.CacheBytes(); size != 0 {
		t.Errorf("a cache that forgot holds %d bytes", size)
	}
	if again := body(hot); &again[0] == &first[0] || string(again) != string(first) {
		t.Errorf("a cache that forgot answers %s", again)
	}
}

// Clients write the options of a delete as of the group that they delete in, of
// whatever group that is (meta.k8s.io: DeleteOptions are the same in all).
func TestOptionsOfAnyGroup(t *testing.T) {
	c := codec.New(kinds.New(), 0)
	for _, group := range []string{"v1", "meta.k8s.io/v1", "apps/v1", "example.com/v7"} {
		var got metav1.DeleteOptions
		err := c.DecodeOptions([]byte(`{"kind": "DeleteOptions", "apiVersion": "`+group+`", "gracePeriodSeconds": 7}`), codec.JSON, &got)
		if err != nil || got.GracePeriodSeconds == nil || *got.GracePeriodSeconds != 7 {
			t.Errorf("%s: %+v, %v", group, got, err)
		}
	}
	err := c.DecodeOptions([]byte(`{"kind": "Pod", "apiVersion": "v1"}`), codec.JSON, &metav1.DeleteOptions{})
	if !apierrors.IsBadRequest(err) {
		t.Errorf("a pod for options: %v", err)
	}
}
