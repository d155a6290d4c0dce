package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"sigs.k8s.io/yaml"
)

// tabled is one case of the tables in api/pod/testdata, api/kinds/testdata, whose
// README.md says what the keys mean, and testdata/invalid: what only a whole server
// refuses, where want has the words as well.
type tabled struct {
	Name        string         `json:"name"`
	InProcess   bool           `json:"inProcess"`
	Subresource string         `json:"subresource"`
	Repeat      map[string]int `json:"repeat"`
	Object      map[string]any `json:"object"`
	Old         map[string]any `json:"old"`
	Patch       map[string]any `json:"patch"`
	InTemplate  any            `json:"inTemplate"`
	Want        any            `json:"want"`

	file string
	pod  bool
}

// tables reads all cases of the files that match.
func tables(t *testing.T, pattern string) []tabled {
	t.Helper()
	if !strings.HasPrefix(pattern, "testdata/") {
		pattern = filepath.Join("..", "api", pattern)
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables at %s: %v", pattern, err)
	}
	var all []tabled
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			c := tabled{file: strings.TrimSuffix(filepath.Base(file), ".yaml"), pod: strings.HasPrefix(pattern, "../api/pod/")}
			if err := yaml.UnmarshalStrict(doc, &c); err != nil {
				t.Fatalf("%s: %v\n%s", file, err, doc)
			}
			for _, o := range []*map[string]any{&c.Object, &c.Old} {
				*o = c.complete(t, *o)
			}
			all = append(all, c)
		}
	}
	return all
}

// complete fills in what tables leave out.
func (c *tabled) complete(t *testing.T, o map[string]any) map[string]any {
	t.Helper()
	if o == nil {
		return nil
	}
	text := encode(t, o)
	for mark, n := range c.Repeat {
		text = strings.ReplaceAll(text, mark, strings.Repeat(mark[1:], n))
	}
	var filled map[string]any
	decode(t, text, &filled)
	if c.pod {
		filled["apiVersion"], filled["kind"] = "v1", "Pod"
	}
	c.apart(filled)
	return filled
}

// apart keeps the parts of the server that write by themselves away from an
// object that is updated, and the table's own identities.
func (c *tabled) apart(o map[string]any) {
	metadata, _ := o["metadata"].(map[string]any)
	delete(metadata, "uid")
	delete(metadata, "generation")
	spec, _ := o["spec"].(map[string]any)
	if c.Old == nil || spec == nil {
		return
	}
	switch o["kind"] {
	case "Pod":
		spec["automountServiceAccountToken"] = false
		spec["schedulerName"] = "nobody"
	case "Job":
		if spec["managedBy"] == nil {
			spec["managedBy"] = "test.dev/nobody"
		}
	case "Deployment":
		spec["paused"] = true
	}
}

// place is where an object is written: its resource, and its namespace unless
// it is cluster-scoped.
func place(t *testing.T, u *unstructured.Unstructured, otherwise string) (resource, ns string) {
	t.Helper()
	for _, r := range resources(t) {
		if r.Kind == u.GetKind() && r.groupVersion == u.GetAPIVersion() && !strings.Contains(r.Name, "/") {
			if !r.Namespaced {
				return r.Name, ""
			}
			if u.GetNamespace() != "" {
				return r.Name, u.GetNamespace()
			}
			return r.Name, otherwise
		}
	}
	t.Fatalf("discovery has no %s of %s", u.GetKind(), u.GetAPIVersion())
	return "", ""
}

// home is the namespace that a case is meant for: default, or one of its own
// when objects are made.
func (c *tabled) home(t *testing.T, i int) string {
	t.Helper()
	if c.Old == nil || c.Old["kind"] == "Event" {
		return metav1.NamespaceDefault
	}
	ns := fmt.Sprintf("case-%d-%s", i, namespaceName(t))
	create(t, "namespaces", "", "metadata: {name: "+ns+"}")
	return ns
}

// under is at for any group-version.
func under(groupVersion, resource, ns string, below ...string) string {
	path := "/apis/" + groupVersion
	if !strings.Contains(groupVersion, "/") {
		path = "/api/" + groupVersion
	}
	if ns != "" {
		path += "/namespaces/" + ns
	}
	return strings.Join(append([]string{path, resource}, below...), "/")
}

// stored brings about the old object of a case and answers with its path. It
// goes with the test.
func (c *tabled) stored(t *testing.T, ns string) (path string) {
	t.Helper()
	u := &unstructured.Unstructured{Object: c.Old}
	resource, ns := place(t, u, ns)
	collection := under(u.GetAPIVersion(), resource, ns)
	path = collection + "/" + u.GetName()
	ephemeral, _, _ := unstructured.NestedSlice(u.Object, "spec", "ephemeralContainers")
	unstructured.RemoveNestedField(u.Object, "spec", "ephemeralContainers")
	a := admin.do(t, call{method: "POST", path: collection, body: encode(t, c.Old)})
	if a.code != http.StatusCreated && a.status(t).Reason != metav1.StatusReasonAlreadyExists {
		t.Fatalf("make old object: %d %s", a.code, a.body)
	}
	t.Cleanup(func() {
		calls := []call{{method: "DELETE", path: path, body: "{gracePeriodSeconds: 0}"}}
		if u.GetKind() == "Namespace" {
			// It holds nothing, so its loop need not look.
			calls = append(calls, call{method: "PUT", path: path + "/finalize", body: "metadata: {name: " + u.GetName() + "}"})
		}
		for _, c := range calls {
			resp, err := admin.open(background, c)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		}
	})
	if len(ephemeral) > 0 {
		body := encode(t, map[string]any{"spec": map[string]any{"ephemeralContainers": ephemeral}})
		admin.want(t, http.StatusOK, call{method: "PATCH", path: path + "/ephemeralcontainers", contentType: mergePatch, body: body}, nil)
	}
	if _, ok := c.Old["status"]; ok {
		c.storeStatus(t, path)
	}
	if u.GetDeletionTimestamp() != nil && !c.pod {
		admin.want(t, http.StatusOK, call{method: "DELETE", path: path}, nil)
		t.Cleanup(func() {
			resp, err := admin.open(background, call{method: "PATCH", path: path, contentType: mergePatch, body: `{"metadata":{"finalizers":null}}`})
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	return path
}

// putStatus writes the status of an object, or a part of it by way of another
// subresource, whatever else happens to the object.
func putStatus(t *testing.T, path, subresource string, status any) {
	t.Helper()
	var a answer
	eventually(t, "the loops leave the object alone", func() bool {
		object := admin.want(t, http.StatusOK, call{path: path}, nil).object(t)
		object.Object["status"] = status
		a = admin.do(t, call{method: "PUT", path: path + "/" + subresource, body: encode(t, object.Object)})
		return a.code != http.StatusConflict
	})
	a.status2xx(t)
}

// storeStatus gives the old object its status: of a certificate request, first
// the part that is written by way of its approval.
func (c *tabled) storeStatus(t *testing.T, path string) {
	t.Helper()
	conditions, _, err := nested[[]any](c.Old, "status", "conditions")
	if err != nil {
		t.Fatal(err)
	}
	if c.Old["kind"] == "CertificateSigningRequest" && len(conditions) > 0 {
		putStatus(t, path, "approval", map[string]any{"conditions": conditions[:1]})
		if len(conditions) == 1 && len(c.Old["status"].(map[string]any)) == 1 {
			return
		}
	}
	putStatus(t, path, "status", c.Old["status"])
}

// send makes the write that the case is about.
func (c *tabled) send(t *testing.T, ns string) answer {
	t.Helper()
	if c.Old == nil {
		u := &unstructured.Unstructured{Object: c.Object}
		resource, ns := place(t, u, ns)
		return admin.do(t, call{method: "POST", path: under(u.GetAPIVersion(), resource, ns) + "?dryRun=All", body: encode(t, c.Object)})
	}
	path := c.stored(t, ns)
	write := call{path: path}
	if c.Subresource != "" {
		write.path += "/" + c.Subresource
	}
	if c.Patch != nil {
		write.method, write.contentType, write.body = "PATCH", mergePatch, encode(t, c.Patch)
		return admin.do(t, write)
	}
	write.method = "PUT"
	var a answer
	eventually(t, "the loops leave the object alone", func() bool {
		object := &unstructured.Unstructured{Object: c.Object}
		if object.GetResourceVersion() == "" || a.code == http.StatusConflict {
			object.SetResourceVersion(admin.want(t, http.StatusOK, call{path: path}, nil).object(t).GetResourceVersion())
		}
		write.body = encode(t, c.Object)
		a = admin.do(t, write)
		return a.code != http.StatusConflict
	})
	return a
}

// cause is one of a refusal.
type cause struct{ Reason, Field, Detail, Message string }

func (c *tabled) causes(t *testing.T) (want []cause) {
	t.Helper()
	decode(t, encode(t, c.Want), &want)
	return want
}

// words are the causes of a case as "FIELD: MESSAGE", by the table itself or by the
// golden file of it.
func (c *tabled) words(t *testing.T) (words []string) {
	t.Helper()
	for _, w := range c.causes(t) {
		if w.Message != "" {
			words = append(words, w.Field+": "+w.Message)
		}
	}
	if words != nil {
		return words
	}
	data, err := os.ReadFile(filepath.Join("..", "api", "kinds", "testdata", "messages", c.file+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut("\n"+string(data), "\n# "+c.Name+"\n")
	if !ok {
		t.Fatalf("%s.golden has no %q", c.file, c.Name)
	}
	text, _, _ = strings.Cut("\n"+text, "\n# ")
	return strings.Split(strings.Trim(text, "\n"), "\n")
}

// uid is an identity as the server makes them.
var uid = regexp.MustCompile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

// wording leaves out of a message what differs from server to server: the
// identity of an object, and a comparison of two of them, which shows fields that
// admission fills in.
func wording(text string) string {
	text, _, _ = strings.Cut(strings.ReplaceAll(text, "\n", `\n`), `\n@@`)
	return uid.ReplaceAllLiteralString(text, "a-uid")
}

// checkCauses compares the causes of a refusal with those of the table, in any
// order, and every word with the golden file of the table.
func (c *tabled) checkCauses(t *testing.T, a answer) {
	t.Helper()
	s := a.status(t)
	if a.code != http.StatusUnprocessableEntity || int(s.Code) != a.code || s.Reason != metav1.StatusReasonInvalid || s.Status != metav1.StatusFailure || s.Details == nil {
		t.Fatalf("answer is %d: %+v", a.code, s)
	}
	var expected []string
	for _, w := range c.causes(t) {
		expected = append(expected, w.Reason+" "+w.Field)
	}
	got := causesOf(s)
	slices.Sort(got)
	slices.Sort(expected)
	if !slices.Equal(got, expected) {
		t.Errorf("causes are %v, want %v\n%s", got, expected, s.Message)
	}
	var said []string
	var errs []error
	for _, cause := range s.Details.Causes {
		text := cause.Field + ": " + cause.Message
		said = append(said, wording(text))
		errs = append(errs, errors.New(text))
	}
	words := c.words(t)
	for i := range words {
		words[i] = wording(words[i])
	}
	slices.Sort(said)
	slices.Sort(words)
	if diff := cmp.Diff(words, said); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
	u := &unstructured.Unstructured{Object: c.Object}
	if c.Object == nil {
		u.Object = c.Old
	}
	kind, name := u.GroupVersionKind().GroupKind(), u.GetName()
	switch {
	case strings.HasSuffix(kind.Kind, "Review"): // which has no name, and does not know what it is
		kind.Kind, name = "", ""
	case kind.Kind == "Event": // in whichever group
		kind.Group = ""
	}
	if message := fmt.Sprintf("%s %q is invalid: %v", kind, name, utilerrors.NewAggregate(errs)); s.Message != message || s.Details.Name != name || s.Details.Kind != kind.Kind || s.Details.Group != kind.Group {
		t.Errorf("message is\n%s\nwant\n%s\nabout %s %s of %q", s.Message, message, s.Details.Kind, s.Details.Name, s.Details.Group)
	}
}

// Every invalid object of the tables is refused with exactly its causes.
func TestInvalidObjects(t *testing.T) {
	create(t, "namespaces", "", "metadata: {name: other}")
	create(t, "pods", "default", podOf("p")) // to be bound
	all := slices.Concat(tables(t, "pod/testdata/invalid/*.yaml"), tables(t, "pod/testdata/invalid-updates/*.yaml"), tables(t, "kinds/testdata/invalid/*.yaml"), tables(t, "testdata/invalid/*.yaml"))
	changes := regexp.MustCompile("immutable|may not (be )?(change|update|modif)|can(not| not) be changed|(updates? to|changes to) |after creation|Forbidden")
	sent, pods, fixed := 0, 0, 0
	ofKind := map[string]int{}
	for i, c := range all {
		if c.InProcess {
			continue
		}
		sent++
		if kind, ok := c.Old["kind"].(string); ok { // an update may be a patch alone
			ofKind[kind]++
		} else {
			ofKind[c.Object["kind"].(string)]++
		}
		if c.pod {
			pods++
		}
		if c.Old != nil && changes.MatchString(strings.Join(c.words(t), "\n")) {
			fixed++
		}
		t.Run(fmt.Sprintf("%s/%s", c.file, c.Name), func(t *testing.T) {
			c.checkCauses(t, c.send(t, c.home(t, i)))
		})
	}
	admin.want(t, http.StatusOK, deleteCall("pods", "default", "p", ""), nil)
	if sent < 1350 || pods < 200 || fixed < 100 {
		t.Errorf("%d invalid objects, %d of them pods, %d changes of what stays; at least 1350, 200 and 100 are due", sent, pods, fixed)
	}
	for _, r := range resources(t) {
		least := 5
		if r.Kind == "CustomResourceDefinition" {
			least = 15
		}
		if n := ofKind[r.Kind]; slices.Contains(r.Verbs, "create") && slices.Contains(r.Verbs, "list") && n < least {
			t.Errorf("%d invalid objects of kind %s, at least %d are due", n, r.Kind, least)
		}
	}
}

// What the tables call valid is taken.
func TestValidPods(t *testing.T) {
	create(t, "serviceaccounts", "default", "metadata: {name: web}")
	runtime := sample{Unstructured: &unstructured.Unstructured{}, resource: "runtimeclasses"}
	decode(t, `{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"}`, &runtime.Object)
	runtime.make(t)
	for _, c := range tables(t, "pod/testdata/valid/*.yaml") {
		// Admission sets it from the priority class.
		unstructured.RemoveNestedField(c.Object, "spec", "preemptionPolicy")
		t.Run(c.Name, func(t *testing.T) { c.send(t, metav1.NamespaceDefault).status2xx(t) })
	}
}

// Updates of the tables that are taken have the results that the tables say.
func TestUpdatesThatAreTaken(t *testing.T) {
	for i, c := range tables(t, "kinds/testdata/update/*.yaml") {
		if c.InProcess {
			continue
		}
		t.Run(c.file+"/"+c.Name, func(t *testing.T) {
			a := c.send(t, c.home(t, i))
			a.status2xx(t)
			var got map[string]any
			a.into(t, &got)
			compare(t, "", c.Want, got)
		})
	}
}

// compare holds got to want where want says something; null is absence.
func compare(t *testing.T, path string, want, got any) {
	t.Helper()
	if list, ok := want.([]any); ok {
		have, _ := got.([]any)
		for i := range list {
			if len(have) == len(list) {
				compare(t, fmt.Sprintf("%s[%d]", path, i), list[i], have[i])
			} else {
				t.Errorf("%s has %d items, want %d", path, len(have), len(list))
			}
		}
		return
	}
	fields, ok := want.(map[string]any)
	if !ok {
		if encode(t, want) != encode(t, got) {
			t.Errorf("%s is %s, want %s", path, encode(t, got), encode(t, want))
		}
		return
	}
	have, _ := got.(map[string]any) // absent: every field of it is nil
	for name, value := range fields {
		if path+"."+name != ".metadata.generation" { // the table's old objects have any
			compare(t, path+"."+name, value, have[name])
		}
	}
}

// The warnings of the tables come in the header of the answer.
func TestWarnings(t *testing.T) {
	create(t, "serviceaccounts", "default", "metadata: {name: robot}")
	for i, c := range slices.Concat(tables(t, "pod/testdata/warnings.yaml"), tables(t, "kinds/testdata/warnings.yaml")) {
		if c.InProcess {
			continue
		}
		t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
			a := c.send(t, c.home(t, i))
			a.status2xx(t)
			var want []string
			decode(t, encode(t, c.Want), &want)
			want = append(effectless(t, &unstructured.Unstructured{Object: c.Object}), want...)
			if c.Object["kind"] == "Endpoints" {
				want = append([]string{"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}, want...)
			}
			var got []string
			for _, w := range a.header.Values("Warning") {
				text := strings.TrimSuffix(strings.TrimPrefix(w, `299 - "`), `"`)
				got = append(got, strings.ReplaceAll(strings.ReplaceAll(text, `\"`, `"`), `\\`, `\`))
			}
			if !slices.Equal(got, want) {
				t.Errorf("warnings are %q, want %q", got, want)
			}
		})
	}
}
