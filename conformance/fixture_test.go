package conformance

import (
	"bytes"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"hansa.dev/hansa/internal/fixtures"
)

// The scheme of client-go has neither definitions nor APIServices.
func init() {
	utilruntime.Must(apiextensionsv1.AddToScheme(scheme.Scheme))
	utilruntime.Must(apiregistrationv1.AddToScheme(scheme.Scheme))
}

var encodings = map[string]struct {
	mediaType string
	runtime.Serializer
}{
	"json": {"application/json", json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{})},
	"yaml": {"application/yaml", json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true})},
	"pb":   {"application/vnd.kubernetes.protobuf", protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)},
	"cbor": {"application/cbor", cbor.NewSerializer(scheme.Scheme, scheme.Scheme, cbor.Strict(true))},
}

// upstreamObject is Kubernetes' own object of a kind as one of the encodings has
// it; of CBOR it has no files.
func upstreamObject(t *testing.T, gvk schema.GroupVersionKind, ext string) runtime.Object {
	t.Helper()
	if ext == "cbor" {
		ext = "json"
	}
	path, err := fixtures.Path("HEAD", gvk.Group, gvk.Version, gvk.Kind, ext)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	obj, _, err := encodings[ext].Decode(data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

// Kubernetes' own object of every served kind, all fields set to something, is
// understood in every encoding, and means the same in each: it is either taken
// or refused for what it says, never for how it is written.
func TestUpstreamObjects(t *testing.T) {
	ns := namespace(t)
	var taken []string
	for _, r := range resources(t) {
		gv, _ := schema.ParseGroupVersion(r.groupVersion) // came from discovery
		if r.Group != "" || r.Version != "" {
			gv = schema.GroupVersion{Group: r.Group, Version: r.Version}
		}
		own := r.Group != "" || r.Version != "" || strings.HasSuffix(r.Name, "/binding") // a kind of its own
		if gv.Group == "metrics.k8s.io" ||                                               // which nobody writes
			strings.HasSuffix(r.Kind, "Options") || strings.Contains(r.Name, "/") && !own {
			continue
		}
		t.Run(r.groupVersion+"/"+r.Name, func(t *testing.T) {
			answers := map[string]answer{}
			for ext := range encodings {
				answers[ext] = postFixture(t, upstreamObject(t, gv.WithKind(r.Kind), ext), r, ns, ext, "&dryRun=All")
			}
			first := answers["json"]
			if first.code == http.StatusCreated {
				taken = append(taken, r.Name)
			}
			if first.code == http.StatusBadRequest || first.code >= 500 {
				t.Fatalf("answer is %d: %s", first.code, first.body)
			}
			for ext, a := range answers {
				if a.code != first.code || !sameAnswer(t, a, first) {
					t.Errorf("%s gave %d %s\njson gave %d %s", ext, a.code, a.body, first.code, first.body)
				}
			}
			if first.code == http.StatusCreated && slices.Contains(r.Verbs, "get") {
				for ext := range encodings {
					readBack(t, upstreamObject(t, gv.WithKind(r.Kind), ext), r, ns, ext)
				}
			}
		})
	}
	// Most are refused for what they say, which is nothing that has a meaning.
	want := strings.Fields(`configmaps events secrets serviceaccounts controllerrevisions selfsubjectreviews tokenreviews selfsubjectrulesreviews csinodes
volumeattributesclasses leases`)
	if slices.Sort(taken); !slices.Equal(taken, slices.Sorted(slices.Values(want))) {
		t.Errorf("%v of the objects are taken, want %v", taken, want)
	}
}

// readBack makes an object by one encoding and reads it in all of them.
func readBack(t *testing.T, obj runtime.Object, r servedResource, ns, ext string) {
	t.Helper()
	made := postFixture(t, obj, r, ns, ext, "")
	path := under(r.groupVersion, r.Name, map[bool]string{true: ns}[r.Namespaced], "fixture")
	defer func() {
		admin.do(t, call{method: "DELETE", path: path + "?gracePeriodSeconds=0"}).status2xx(t)
		eventually(t, "the object goes", func() bool { return admin.do(t, call{path: path}).code == http.StatusNotFound })
	}()
	if made.code != http.StatusCreated {
		t.Errorf("%s gave %d %s, but not as a dry run", ext, made.code, made.body)
		return
	}
	for to, e := range encodings {
		a := admin.want(t, http.StatusOK, call{path: path, accept: e.mediaType}, nil)
		read, _, err := e.Decode(a.body, nil, nil)
		if err != nil {
			t.Errorf("%s does not read as %s: %v", ext, to, err)
			continue
		}
		if got := (answer{code: a.code, body: []byte(encode(t, read))}); !sameAnswer(t, got, made) {
			t.Errorf("made by %s as %s it reads in %s as %s", ext, made.body, to, got.body)
		}
	}
}

// postFixture sends an object, with metadata of ours where upstream's could not
// be; query goes behind that of the request.
func postFixture(t *testing.T, obj runtime.Object, r servedResource, ns, ext, query string) answer {
	t.Helper()
	m, err := meta.Accessor(obj)
	if err != nil {
		t.Fatal(err)
	}
	m.SetName("fixture")
	m.SetNamespace("")
	m.SetGenerateName("")
	m.SetFinalizers(nil)
	m.SetOwnerReferences(nil)
	m.SetResourceVersion("")
	m.SetManagedFields(nil)
	var b bytes.Buffer
	if err := encodings[ext].Encode(obj, &b); err != nil {
		t.Fatal(err)
	}
	in := ns
	if !r.Namespaced {
		in = ""
	}
	path := under(r.groupVersion, r.Name, in)
	method := "POST"
	if name, sub, ok := strings.Cut(r.Name, "/"); ok {
		path = under(r.groupVersion, name, in, "fixture", sub)
	}
	if slices.Contains(r.Verbs, "update") && strings.Contains(r.Name, "/") {
		method = "PUT"
	}
	return admin.do(t, call{
		method: method, path: path + "?fieldValidation=Strict" + query, body: b.String(),
		contentType: encodings[ext].mediaType, accept: "application/json",
	})
}

// sameAnswer compares what is not made anew for each request.
func sameAnswer(t *testing.T, a, b answer) bool {
	t.Helper()
	clean := func(a answer) map[string]any {
		var m map[string]any
		a.into(t, &m)
		if metadata, ok := m["metadata"].(map[string]any); ok {
			for _, name := range []string{"uid", "creationTimestamp", "managedFields"} {
				delete(metadata, name)
			}
		}
		return m
	}
	x, y := clean(a), clean(b)
	if x["kind"] == "Status" {
		return apiequality.Semantic.DeepEqual(causesOf(a.status(t)), causesOf(b.status(t)))
	}
	return apiequality.Semantic.DeepEqual(x, y)
}

// What is written in one encoding reads the same in all others, also within
// lists (API concepts, "Alternate representations of resources").
func TestEncodingsAgree(t *testing.T) {
	ns := namespace(t)
	for _, s := range samples(t, ns) {
		t.Run(s.GetKind(), func(t *testing.T) {
			s.make(t)
			for _, path := range []string{s.path(s.GetName()), s.path() + "?fieldSelector=metadata.name%3D" + s.GetName()} {
				var objects map[string]runtime.Object
				var versions map[string]bool
				eventually(t, "the loops leave the object alone", func() bool {
					objects, versions = map[string]runtime.Object{}, map[string]bool{}
					for ext := range encodings {
						objects[ext] = s.encoded(t, path, ext, versions)
					}
					return len(versions) == 1
				})
				for ext, obj := range objects {
					same := apiequality.Semantic.DeepEqual(obj, objects["json"])
					if ext == "cbor" { // whose raw fields are CBOR, too
						same = reflect.DeepEqual(jsonTree(t, obj), jsonTree(t, objects["json"]))
					}
					if !same {
						t.Errorf("%s in %s is\n%v, in json\n%v", path, ext, obj, objects["json"])
					}
				}
			}
		})
	}
}

// jsonTree is what an object says, however its raw fields are written.
func jsonTree(t *testing.T, obj runtime.Object) (tree any) {
	t.Helper()
	decode(t, encode(t, obj), &tree)
	return tree
}

// encoded reads a path in an encoding, notes the sample's version and takes off
// what is said in some encodings only.
func (s sample) encoded(t *testing.T, path, ext string, versions map[string]bool) runtime.Object {
	t.Helper()
	a := admin.want(t, http.StatusOK, call{path: path, accept: encodings[ext].mediaType}, nil)
	obj, gvk, err := encodings[ext].Decode(a.body, nil, nil)
	if err != nil {
		t.Fatalf("%s: %v", ext, err)
	}
	if !strings.HasPrefix(gvk.Kind, s.GetKind()) || gvk.GroupVersion().String() != s.GetAPIVersion() {
		t.Errorf("%s is a %s", ext, gvk)
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	one := []runtime.Object{obj}
	if list, ok := obj.(metav1.ListInterface); ok {
		list.SetResourceVersion("")
		if one, err = meta.ExtractList(obj); err != nil || len(one) != 1 {
			t.Fatalf("%s has %d objects: %v", path, len(one), err)
		}
		one[0].GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		if err := meta.SetList(obj, one); err != nil {
			t.Fatal(err)
		}
	}
	m, err := meta.Accessor(one[0])
	if err != nil {
		t.Fatal(err)
	}
	versions[m.GetResourceVersion()] = true
	return obj
}
