package kinds_test

import (
	"bytes"
	"cmp"
	gojson "encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// cause is one expected cause; see testdata/README.md.
type cause struct {
	Reason string `json:"reason"`
	Field  string `json:"field"`
	Detail string `json:"detail,omitempty"`
}

type invalidCase struct {
	Name        string               `json:"name"`
	InProcess   bool                 `json:"inProcess,omitempty"`
	Subresource string               `json:"subresource,omitempty"`
	Repeat      map[string]int       `json:"repeat,omitempty"`
	Object      runtime.RawExtension `json:"object"`
	Old         runtime.RawExtension `json:"old"`
	Patch       runtime.RawExtension `json:"patch"` // of a pod
	Want        []cause              `json:"want"`
}

// documents reads the YAML documents of all files that match, by file.
func documents(t *testing.T, pattern string) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data at %s: %v", pattern, err)
	}
	docs := map[string][][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		docs[name] = bytes.Split(data, []byte("\n---\n"))
	}
	return docs
}

// TestInvalid holds every refusal to the table.
func TestInvalid(t *testing.T) {
	total := 0
	for file, docs := range documents(t, "invalid/*.yaml") {
		for _, doc := range docs {
			var c invalidCase
			if err := yaml.UnmarshalStrict(doc, &c); err != nil {
				t.Fatalf("%s: %v\n%s", file, err, doc)
			}
			total++
			t.Run(file+"/"+c.Name, func(t *testing.T) { c.run(t) })
		}
	}
	if total < 100 {
		t.Errorf("%d cases, want at least 100", total)
	}
}

func (c *invalidCase) causes(t *testing.T) field.ErrorList {
	t.Helper()
	w := &write{t: t, obj: c.decode(t, c.Object.Raw)}
	if len(c.Old.Raw) > 0 {
		w.old = c.decode(t, c.Old.Raw)
	}
	return w.causes(c.Subresource)
}

func (c *invalidCase) run(t *testing.T) {
	causes := c.causes(t)
	got := make([]cause, 0, len(causes))
	for _, e := range causes {
		k := cause{Reason: string(e.Type), Field: e.Field, Detail: e.Detail}
		// A detail is compared where the table has it.
		if !slices.Contains(c.Want, k) {
			k.Detail = ""
		}
		got = append(got, k)
	}
	order := func(a, b cause) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Detail, b.Detail))
	}
	want := slices.SortedFunc(slices.Values(c.Want), order)
	slices.SortFunc(got, order)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("causes (-want +got):\n%s\nall: %v", diff, causes)
	}
}

func (c *invalidCase) decode(t *testing.T, raw []byte) runtime.Object {
	t.Helper()
	for name, n := range c.Repeat {
		raw = bytes.ReplaceAll(raw, []byte(name), bytes.Repeat([]byte(name[1:]), n))
	}
	obj, _, err := encodings()["json"].Decode(raw, nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	return obj
}

// write does to an object what a server does, up to the validation.
type write struct {
	t        *testing.T
	obj, old runtime.Object
	row      *api.Served
}

// now is when all writes and tables of these tests happen.
var now = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// kindOf is the row of an object that says what it is.
func kindOf(t *testing.T, obj runtime.Object) *api.Served {
	t.Helper()
	gvk := obj.GetObjectKind().GroupVersionKind()
	row := kinds.Registry().ByGVK(gvk)
	if row == nil {
		t.Fatalf("%s is not served", gvk)
	}
	return row
}

func (w *write) causes(subresource string) field.ErrorList {
	target := w.obj
	if w.old != nil {
		target = w.old
	}
	w.row = kindOf(w.t, target)
	if w.old == nil {
		return w.create(w.hub(w.obj))
	}
	old := w.hub(w.old)
	if w.row.Default != nil {
		w.row.Default(old)
	}
	frozen := old.DeepCopyObject()
	errs := w.change(old, subresource)
	if diff := gocmp.Diff(frozen, old); diff != "" {
		w.t.Errorf("the old object was written to:\n%s", diff)
	}
	return errs
}

func (w *write) hub(obj runtime.Object) api.Object {
	o := obj.(api.Object)
	if w.row.Version.ToHub != nil {
		var err error
		if o, err = w.row.Version.ToHub(o); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.row.Namespaced && o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	return o
}

func (w *write) create(obj api.Object) field.ErrorList {
	if w.row.Prefix != "" {
		obj.SetUID("a-uid")
		obj.SetCreationTimestamp(metav1.NewTime(now))
	}
	if w.row.Stamp != nil {
		w.row.Stamp(obj, nil, now)
	}
	w.defaults(obj)
	if w.row.PrepareCreate != nil {
		w.row.PrepareCreate(obj)
	}
	w.defaults(obj)
	if errs := w.allocate(obj, nil); len(errs) > 0 {
		return errs
	}
	var errs field.ErrorList
	metadata := func(rule apivalidation.ValidateNameFunc) field.ErrorList {
		return apivalidation.ValidateObjectMetaAccessor(obj, w.row.Namespaced, rule, field.NewPath("metadata"))
	}
	if w.row.Prefix != "" && !w.row.LateMeta {
		rule := w.row.NameRule
		if rule == nil {
			rule = apivalidation.NameIsDNSSubdomain
		}
		errs = metadata(rule)
	}
	if w.row.Validate != nil {
		errs = append(errs, w.row.Validate(obj)...)
	}
	if w.row.Version.Validate != nil {
		errs = append(errs, w.row.Version.Validate(obj)...)
	}
	if len(errs) == 0 && w.row.Prefix != "" {
		errs = metadata(func(name string, _ bool) []string { return content.IsPathSegmentName(name) })
	}
	return errs
}

func (w *write) change(old api.Object, subresource string) field.ErrorList {
	if subresource == "" {
		obj := w.hub(w.obj)
		if w.row.DefaultTimes != nil {
			w.row.DefaultTimes(obj, now)
		}
		if w.row.Stamp != nil {
			w.row.Stamp(obj, old, now)
		}
		if w.row.PrepareUpdate != nil {
			w.row.PrepareUpdate(obj, old)
		}
		w.defaults(obj)
		if errs := w.allocate(obj, old); len(errs) > 0 {
			return errs
		}
		var errs field.ErrorList
		if w.row.ValidateUpdate != nil {
			errs = w.row.ValidateUpdate(obj, old)
		}
		if w.row.Version.ValidateUpdate != nil {
			errs = append(errs, w.row.Version.ValidateUpdate(obj, old)...)
		}
		return errs
	}
	sub := w.row.Subresources[subresource]
	if sub.Put != nil {
		obj := old.DeepCopyObject().(api.Object)
		return asCauses(w.t, sub.Put(obj, w.obj, now))
	}
	obj := w.hub(w.obj)
	if sub.Stamp != nil {
		sub.Stamp(obj, old, now)
	}
	sub.PrepareUpdate(obj, old)
	w.defaults(obj)
	if sub.ValidateUpdateAt != nil {
		return sub.ValidateUpdateAt(obj, old, time.Time{}) // the tables are of no particular time
	}
	return sub.ValidateUpdate(obj, old)
}

func (w *write) defaults(obj api.Object) {
	if w.row.DefaultTimes != nil {
		w.row.DefaultTimes(obj, now)
	}
	if w.row.Default == nil {
		return
	}
	w.row.Default(obj)
	once := obj.DeepCopyObject()
	w.row.Default(obj)
	if diff := gocmp.Diff(once, obj); diff != "" {
		w.t.Errorf("defaulting twice changes:\n%s", diff)
	}
}

// allocate is the part of a cluster whose services have IPv4 addresses.
func (w *write) allocate(obj, old api.Object) field.ErrorList {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return nil
	}
	was, _ := old.(*corev1.Service)
	return kinds.AssignIPFamilies(s, was, []corev1.IPFamily{corev1.IPv4Protocol})
}

// asCauses takes the causes out of an API error.
func asCauses(t *testing.T, err error) field.ErrorList {
	t.Helper()
	var status apierrors.APIStatus
	if err == nil {
		return nil
	}
	if !errors.As(err, &status) {
		t.Fatalf("not an API error: %v", err)
	}
	var errs field.ErrorList
	for _, c := range status.Status().Details.Causes {
		_, detail, _ := strings.Cut(c.Message, ": ")
		var value any
		if i := strings.LastIndex(detail, ": "); i >= 0 {
			detail, value = detail[i+2:], gojson.RawMessage(detail[:i])
		}
		errs = append(errs, &field.Error{Type: field.ErrorType(c.Type), Field: c.Field, BadValue: value, Detail: detail})
	}
	return errs
}
