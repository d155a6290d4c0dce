package conformance

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// sample is an object of testdata/objects.yaml and where it goes.
type sample struct {
	*unstructured.Unstructured
	resource, ns string
}

// samples reads one object of every stored kind, meant for a namespace.
func samples(t *testing.T, ns string) []sample {
	t.Helper()
	data, err := os.ReadFile("testdata/objects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []sample
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			t.Fatal(err)
		}
		s := sample{Unstructured: u}
		s.resource, s.ns = place(t, u, ns)
		all = append(all, s)
	}
	return all
}

func (s sample) path(below ...string) string {
	return under(s.GetAPIVersion(), s.resource, s.ns, below...)
}

// gvr names the sample's resource for the dynamic and metadata clients.
func (s sample) gvr() schema.GroupVersionResource {
	return s.GroupVersionKind().GroupVersion().WithResource(s.resource)
}

// make creates the sample with its status; it goes with the test.
func (s sample) make(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	admin.want(t, http.StatusCreated, call{method: "POST", path: s.path(), body: encode(t, s.Object)}, nil)
	t.Cleanup(func() { s.drop(t) })
	if status, ok := s.Object["status"]; ok {
		putStatus(t, s.path(s.GetName()), "status", status)
	}
	return admin.want(t, http.StatusOK, call{path: s.path(s.GetName())}, nil).object(t)
}

// Every stored kind has every verb that discovery promises, with the same
// meaning (API concepts, "API verbs").
func TestEveryKindHasEveryVerb(t *testing.T) {
	ns := namespace(t)
	seen := map[string]bool{}
	for _, s := range samples(t, ns) {
		t.Run(s.GetAPIVersion()+"/"+s.GetKind(), func(t *testing.T) { s.verbs(t) })
		seen[s.GetAPIVersion()+" "+s.resource] = true
	}
	for _, r := range resources(t) {
		if slices.Contains(r.Verbs, "create") && slices.Contains(r.Verbs, "list") && !seen[r.groupVersion+" "+r.Name] {
			t.Errorf("testdata/objects.yaml has no %s of %s", r.Kind, r.groupVersion)
		}
	}
}

func (s sample) verbs(t *testing.T) {
	client := dyn.Resource(s.gvr()).Namespace(s.ns)
	ctx, name := t.Context(), s.GetName()
	before, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	events := watch(t, s.path()+"?fieldSelector=metadata.name%3D"+name+"&resourceVersion="+before.GetResourceVersion())
	made, err := client.Create(ctx, s.DeepCopy(), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.drop(t) })
	events.expect(t, "ADDED "+name)
	if got, err := client.Get(ctx, name, metav1.GetOptions{}); err != nil || got.GetUID() != made.GetUID() || got.GroupVersionKind() != s.GroupVersionKind() {
		t.Errorf("get: %v, %v", got, err)
	}
	patched, err := client.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"by":"patch"}}}`), metav1.PatchOptions{})
	if err != nil || patched.GetLabels()["by"] != "patch" {
		t.Fatalf("patch: %v, %v", patched, err)
	}
	events.expect(t, "MODIFIED "+name)
	if u := s.write(t, func(u *unstructured.Unstructured) { u.SetLabels(map[string]string{"by": "update"}) }); u.GetLabels()["by"] != "update" {
		t.Fatalf("updated is %v", u)
	}
	applied := &unstructured.Unstructured{Object: map[string]any{}}
	applied.SetGroupVersionKind(s.GroupVersionKind())
	applied.SetName(name)
	applied.SetAnnotations(map[string]string{"test.dev/by": "apply"})
	if applied, err = client.Apply(ctx, name, applied, metav1.ApplyOptions{FieldManager: "applier"}); err != nil || applied.GetAnnotations()["test.dev/by"] != "apply" {
		t.Fatalf("apply: %v, %v", applied, err)
	}
	s.reads(t, made)
	s.patches(t)
	s.dryRuns(t)
	s.subresources(t)
	everywhere, err := dyn.Resource(s.gvr()).List(ctx, metav1.ListOptions{LabelSelector: "by=update"})
	if err != nil || !slices.ContainsFunc(everywhere.Items, func(u unstructured.Unstructured) bool { return u.GetUID() == made.GetUID() }) {
		t.Errorf("list of all namespaces: %v", err)
	}
	if s.GetKind() == "Namespace" {
		return
	}
	if err := client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "by=update"}); err != nil {
		t.Errorf("delete collection: %v", err)
	}
	for e := events.next(t); e.Type != "DELETED"; e = events.next(t) {
		if e.Type != "MODIFIED" {
			t.Errorf("before the deletion comes %s", e.Type)
		}
	}
	s.deleteAlone(t)
}

// drop deletes the sample if it is there, and waits until it has gone: what
// loops hold by a finalizer takes a moment.
func (s sample) drop(t *testing.T) {
	resp, err := admin.open(background, call{method: "DELETE", path: s.path(s.GetName())})
	if err != nil {
		t.Error(err)
		return
	}
	resp.Body.Close()
	if s.GetKind() != "Namespace" {
		ctx, cancel := context.WithTimeout(background, waitLimit)
		defer cancel()
		if !poll(ctx, func() bool {
			resp, err := admin.open(ctx, call{path: s.path(s.GetName())})
			if err == nil {
				resp.Body.Close()
			}
			return err == nil && resp.StatusCode == http.StatusNotFound
		}) {
			t.Errorf("%s %s does not go", s.GetKind(), s.GetName())
		}
		return
	}
	if resp, err = admin.open(background, call{method: "PUT", path: s.path(s.GetName(), "finalize"), body: "metadata: {name: " + s.GetName() + "}"}); err == nil {
		resp.Body.Close()
	}
}

func (s sample) read(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	return admin.want(t, http.StatusOK, call{path: s.path(s.GetName())}, nil).object(t)
}

// reads looks at the sample in all forms.
func (s sample) reads(t *testing.T, made *unstructured.Unstructured) {
	t.Helper()
	partial, err := metas.Resource(s.gvr()).Namespace(s.ns).Get(t.Context(), s.GetName(), metav1.GetOptions{})
	if err != nil || partial.UID != made.GetUID() {
		t.Errorf("metadata alone: %v, %v", partial, err)
	}
	list, err := metas.Resource(s.gvr()).Namespace(s.ns).List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + s.GetName()})
	if err != nil || list.ResourceVersion == "" || len(list.Items) != 1 || list.Items[0].UID != made.GetUID() {
		t.Errorf("list of metadata alone: %v, %v", list, err)
	}
	for _, accept := range []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"} {
		for _, path := range []string{s.path(s.GetName()), s.path()} {
			a := admin.want(t, http.StatusOK, call{path: path, accept: accept}, nil)
			if got := a.header.Get("Content-Type"); got != accept {
				t.Errorf("%s as %s came as %s", path, accept, got)
			}
			if strings.HasSuffix(accept, "protobuf") && !bytes.HasPrefix(a.body, []byte("k8s\x00")) {
				t.Errorf("%s as protobuf begins with %.8q", path, a.body)
			}
			if strings.HasSuffix(accept, "cbor") && !bytes.HasPrefix(a.body, []byte("\xd9\xd9\xf7")) { // RFC 8949, 3.4.6
				t.Errorf("%s as CBOR begins with %.8q", path, a.body)
			}
		}
	}
}
