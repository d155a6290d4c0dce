package kinds_test

import (
	"bytes"
	gojson "encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/internal/fixtures"
)

// upstreamPath is where Kubernetes keeps one object of a kind with all fields set:
// in HEAD and for each older version that objects may still come from.
func upstreamPath(t *testing.T, version string, gvk schema.GroupVersionKind, ext string) string {
	t.Helper()
	path, err := fixtures.Path(version, gvk.Group, gvk.Version, gvk.Kind, ext)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func upstreamFile(t *testing.T, gvk schema.GroupVersionKind, ext string) []byte {
	t.Helper()
	data, err := os.ReadFile(upstreamPath(t, "HEAD", gvk, ext))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func encodings() map[string]runtime.Serializer {
	s := kinds.Scheme()
	return map[string]runtime.Serializer{
		"json": json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Pretty: true, Strict: true}),
		"yaml": json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Yaml: true, Strict: true}),
		"pb":   protobuf.NewSerializer(s, s),
	}
}

// lenientEncodings pass over fields that there are no more.
func lenientEncodings() map[string]runtime.Serializer {
	s := kinds.Scheme()
	lenient := encodings()
	lenient["json"] = json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Pretty: true})
	lenient["yaml"] = json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Yaml: true})
	return lenient
}

// servedKinds are all kinds that rows or subresources speak, with the row's
// version, or nil for bodies of subresources.
func servedKinds() map[schema.GroupVersionKind]*api.Version {
	served := map[schema.GroupVersionKind]*api.Version{}
	for _, row := range kinds.Registry().Resources() {
		for i := range row.Versions {
			served[row.Versions[i].WithKind(row.Kind)] = &row.Versions[i]
		}
		for _, sub := range row.Subresources {
			if _, known := served[sub.Kind]; !known && !sub.Kind.Empty() {
				served[sub.Kind] = nil
			}
		}
	}
	return served
}

// TestRoundTrip decodes Kubernetes' own objects, passes them through the hub
// and finds them unchanged in every encoding.
func TestRoundTrip(t *testing.T) {
	for gvk, version := range servedKinds() {
		for ext, codec := range encodings() {
			t.Run(gvk.Group+"."+gvk.Version+"."+gvk.Kind+"/"+ext, func(t *testing.T) {
				data := upstreamFile(t, gvk, ext)
				roundTrip(t, codec, gvk, version, data, data)
			})
		}
	}
}

// TestRoundTripOlder does the same with what older versions wrote, of which
// fields may be gone: then there is a file that says what is left.
func TestRoundTripOlder(t *testing.T) {
	older, err := fixtures.Older()
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range older {
		found := 0
		for gvk, version := range servedKinds() {
			for ext, codec := range lenientEncodings() {
				data, err := os.ReadFile(upstreamPath(t, release, gvk, ext))
				if errors.Is(err, fs.ErrNotExist) {
					continue // the kind is newer
				}
				if err != nil {
					t.Fatal(err)
				}
				want, err := os.ReadFile(upstreamPath(t, release, gvk, "after_roundtrip."+ext))
				if errors.Is(err, fs.ErrNotExist) {
					want = data
				} else if err != nil {
					t.Fatal(err)
				}
				found++
				t.Run(release+"/"+gvk.Group+"."+gvk.Version+"."+gvk.Kind+"/"+ext, func(t *testing.T) {
					roundTrip(t, codec, gvk, version, data, want)
				})
			}
		}
		if found < 100 {
			t.Errorf("%s: %d files, want at least 100", release, found)
		}
	}
}

// TestRoundTripCBOR starts from JSON, since Kubernetes has no files in CBOR.
func TestRoundTripCBOR(t *testing.T) {
	s := kinds.Scheme()
	codec := cbor.NewSerializer(s, s, cbor.Strict(true))
	for gvk := range servedKinds() {
		t.Run(gvk.Group+"."+gvk.Version+"."+gvk.Kind, func(t *testing.T) {
			obj, _, err := encodings()["json"].Decode(upstreamFile(t, gvk, "json"), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var encoded bytes.Buffer
			if err := codec.Encode(obj, &encoded); err != nil {
				t.Fatal(err)
			}
			back, got, err := codec.Decode(encoded.Bytes(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if *got != gvk {
				t.Errorf("decoded a %s", got)
			}
			if diff := cmp.Diff(asJSON(t, obj), asJSON(t, back)); diff != "" {
				t.Errorf("changed on the way (-want +got):\n%s", diff)
			}
		})
	}
}

// asJSON tells objects apart by what they mean: fields of raw JSON may hold it
// in another encoding.
func asJSON(t *testing.T, obj runtime.Object) any {
	t.Helper()
	var text bytes.Buffer
	if err := encodings()["json"].Encode(obj, &text); err != nil {
		t.Fatal(err)
	}
	var value any
	if err := gojson.Unmarshal(text.Bytes(), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func roundTrip(t *testing.T, codec runtime.Serializer, gvk schema.GroupVersionKind, version *api.Version, data, want []byte) {
	t.Helper()
	obj, got, err := codec.Decode(data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *got != gvk {
		t.Fatalf("decoded a %s", got)
	}
	obj = throughHub(t, obj, version)
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	var encoded bytes.Buffer
	if err := codec.Encode(obj, &encoded); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), encoded.String()); diff != "" {
		t.Errorf("changed on the way (-want +got):\n%s", diff)
	}
}

// hubKind is the kind whose Go type the row's functions take.
func hubKind(row *api.Resource) schema.GroupVersionKind {
	for _, v := range row.Versions {
		if v.ToHub == nil {
			return v.WithKind(row.Kind)
		}
	}
	return row.GVK()
}

// TestStoredAs writes Kubernetes' own objects in the version that etcd has, where
// that is not served, and finds them unchanged when read back.
func TestStoredAs(t *testing.T) {
	pb := encodings()["pb"]
	for _, row := range kinds.Registry().Resources() {
		if row.StoredAs == nil {
			continue
		}
		want, _, err := encodings()["json"].Decode(upstreamFile(t, hubKind(row), "json"), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := row.StoredAs.FromHub(want.(api.Object))
		if err != nil {
			t.Fatal(err)
		}
		stored.GetObjectKind().SetGroupVersionKind(row.GVK())
		var encoded bytes.Buffer
		if err := pb.Encode(stored, &encoded); err != nil {
			t.Fatal(err)
		}
		read, gvk, err := pb.Decode(encoded.Bytes(), nil, nil)
		if err != nil || *gvk != row.GVK() {
			t.Fatalf("%s is stored as %v (%v)", row.Plural, gvk, err)
		}
		got, err := row.StoredAs.ToHub(read.(api.Object))
		if err != nil {
			t.Fatal(err)
		}
		got.GetObjectKind().SetGroupVersionKind(want.GetObjectKind().GroupVersionKind())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, through %s (-want +got):\n%s", row.Plural, row.Storage, diff)
		}
	}
}

func throughHub(t *testing.T, obj runtime.Object, version *api.Version) runtime.Object {
	t.Helper()
	if version == nil || version.ToHub == nil {
		return obj
	}
	before := obj.DeepCopyObject()
	hub, err := version.ToHub(obj.(api.Object))
	if err != nil {
		t.Fatal(err)
	}
	hubBefore := hub.DeepCopyObject()
	back, err := version.FromHub(hub)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, obj); diff != "" {
		t.Errorf("ToHub changed its argument:\n%s", diff)
	}
	if diff := cmp.Diff(hubBefore, hub); diff != "" {
		t.Errorf("FromHub changed its argument:\n%s", diff)
	}
	if hpa, ok := back.(*autoscalingv1.HorizontalPodAutoscaler); ok {
		// What is measured of the CPU comes back twice, here as in Kubernetes.
		delete(hpa.Annotations, "autoscaling.alpha.kubernetes.io/current-metrics")
	}
	return back
}

// TestConversionSharesNothing writes all over what a conversion answered, and
// finds the argument untouched.
func TestConversionSharesNothing(t *testing.T) {
	for _, row := range kinds.Registry().Resources() {
		versions := slices.Clone(row.Versions)
		if row.StoredAs != nil {
			versions = append(versions, *row.StoredAs)
		}
		for _, version := range versions {
			if version.ToHub == nil {
				continue
			}
			obj, _, err := encodings()["json"].Decode(upstreamFile(t, version.WithKind(row.Kind), "json"), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			before := obj.DeepCopyObject()
			hub, err := version.ToHub(obj.(api.Object))
			if err != nil {
				t.Fatal(err)
			}
			hub.GetLabels()["written"] = "by the test"
			hub.GetOwnerReferences()[0].Name = "written"
			*hub.GetOwnerReferences()[0].Controller = !*hub.GetOwnerReferences()[0].Controller
			hub.GetManagedFields()[0].FieldsV1 = &metav1.FieldsV1{Raw: []byte("{}")}
			if diff := cmp.Diff(before, obj); diff != "" {
				t.Errorf("%s: the hub shares with the converted object:\n%s", version.WithKind(row.Kind), diff)
			}
		}
	}
}

// TestDefaultTwice fills in what is missing of full, empty and table objects
// alike; doing so again changes nothing.
func TestDefaultTwice(t *testing.T) {
	for _, row := range kinds.Registry().Resources() {
		if row.Default == nil {
			continue
		}
		full, _, err := encodings()["json"].Decode(upstreamFile(t, hubKind(row), "json"), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, obj := range map[string]api.Object{"full": full.(api.Object), "empty": row.New()} {
			row.Default(obj)
			once := obj.DeepCopyObject()
			row.Default(obj)
			if diff := cmp.Diff(once, obj); diff != "" {
				t.Errorf("%s, %s: the second time changes (-once +twice):\n%s", row.Plural, name, diff)
			}
		}
	}
}
