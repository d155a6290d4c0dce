package request_test

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/randfill"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// twins tracks every write twice: as the server does, and with the library
// alone, whose every byte counts.
type twins struct {
	*testing.T
	h     *request.Handler
	info  *request.Info
	began time.Time
	step  int64
	// Of all writes, those that needed no library.
	writes, alone int
}

func newTwins(t *testing.T, h *request.Handler, served *api.Served, subresource string) *twins {
	return &twins{T: t, h: h, began: time.Now().Add(-time.Minute),
		info: &request.Info{User: requesttest.Admin, Served: served, Subresource: subresource}}
}

// write gives obj with its managers after it has replaced live.
func (w *twins) write(obj, live api.Object, manager string) api.Object {
	w.Helper()
	before, _ := json.Marshal(live)
	ours, theirs := obj.DeepCopyObject().(api.Object), obj.DeepCopyObject().(api.Object)
	alone, err := w.h.Tracked(w.info, ours, live, manager)
	if err != nil {
		w.Fatal(err)
	}
	library, err := w.h.Library(w.info)
	if err != nil {
		w.Fatal(err)
	}
	library.UpdateNoErrors(live, theirs, manager)
	w.settle(theirs)
	w.writes++
	if !alone {
		unchanged := obj.DeepCopyObject().(api.Object)
		if got, want := text(w, ours), text(w, unchanged); got != want {
			w.Fatalf("left to the library as\n%s\nand not as\n%s", got, want)
		}
		return theirs
	}
	w.alone++
	w.settle(ours)
	if got, want := text(w, ours.GetManagedFields()), text(w, theirs.GetManagedFields()); got != want {
		w.Fatalf("%s by %q:\nlive %s\nobj  %s\ngot  %s\nwant %s", w.info.Subresource, manager, before, text(w, obj), got, want)
	}
	if (ours.GetManagedFields() == nil) != (theirs.GetManagedFields() == nil) {
		w.Fatalf("got %#v, want %#v", ours.GetManagedFields(), theirs.GetManagedFields())
	}
	if after := text(w, live); after != string(before) {
		w.Fatalf("the present object became\n%s\nfrom\n%s", after, before)
	}
	return theirs
}

// apply is left to the library, which owns it.
func (w *twins) apply(obj, live api.Object, manager string, force bool) api.Object {
	library, err := w.h.Library(w.info)
	if err != nil {
		w.Fatal(err)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		w.Fatal(err)
	}
	applied := &unstructured.Unstructured{Object: content}
	applied.SetManagedFields(nil)
	applied.SetGroupVersionKind(w.info.Served.Version.WithKind(w.info.Served.Kind))
	merged, err := library.Apply(live, applied, manager, force)
	if err != nil {
		return live // a conflict, or an item that is there twice
	}
	w.settle(merged.(api.Object))
	return merged.(api.Object)
}

// settle gives what was written just now a time of its own, later than those
// before.
func (w *twins) settle(obj api.Object) {
	managers := obj.GetManagedFields()
	for i := range managers {
		if at := managers[i].Time; at != nil && at.After(w.began) {
			managers[i].Time = &metav1.Time{Time: time.Unix(1e9+w.step/2, 0).UTC()}
		}
	}
}

func text(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// words are few, so that keys meet again, and some are not plain.
var words = strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z A-1 B.2 c/3 10.0.0.1 fd00::1 TCP UDP http 80 Ready kubernetes.io/x true <> é \"q\" \\")

// odd is how many of the words are not plain, at their end.
const odd = 4

func filler(seed int64, words []string) *randfill.Filler {
	word := func(s *string, c randfill.Continue) { *s = words[c.Intn(len(words))] }
	return randfill.New().RandSource(rand.NewSource(seed)).NilChance(.5).NumElements(0, 3).MaxDepth(9).Funcs(
		word,
		func(n *int32, c randfill.Continue) { *n = int32(c.Intn(200)) - 20 },
		func(n *int64, c randfill.Continue) { *n = int64(c.Intn(200)) - 20 },
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewMilliQuantity(int64(c.Intn(5000)), resource.DecimalSI)
			if c.Bool() {
				_ = q.String() // remembered in it
			}
		},
		func(v *intstr.IntOrString, c randfill.Continue) {
			*v = []intstr.IntOrString{intstr.FromInt32(int32(c.Intn(9))), intstr.FromString(words[c.Intn(len(words))])}[c.Intn(2)]
		},
		func(t *metav1.Time, c randfill.Continue) { *t = metav1.Unix(c.Int63n(2), c.Int63n(3)) },
		func(t *metav1.MicroTime, c randfill.Continue) {
			*t = metav1.MicroTime(metav1.Unix(c.Int63n(2), c.Int63n(3)*700))
		},
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.SetRawString("{}") },
		func(r *runtime.RawExtension, c randfill.Continue) {
			r.Raw = []byte(fmt.Sprintf(`{"a":%d}`, c.Intn(3)))
		},
		func(*metav1.TypeMeta, randfill.Continue) {},
		func(m *metav1.ObjectMeta, c randfill.Continue) {
			c.FillNoCustom(m)
			m.ManagedFields = nil
		},
	)
}

// reword replaces texts that are not of words: randfill's functions do not reach
// types that are strings of another name.
func reword(v reflect.Value, words []string) {
	switch v.Kind() {
	case reflect.String:
		if text := v.String(); text != "" && !slices.Contains(words, text) {
			v.SetString(words[len(text)*31%len(words)])
		}
	case reflect.Pointer:
		if !v.IsNil() {
			reword(v.Elem(), words)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				reword(v.Field(i), words)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			reword(v.Index(i), words)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			k, e := reflect.New(key.Type()).Elem(), reflect.New(v.Type().Elem()).Elem()
			k.Set(key)
			e.Set(v.MapIndex(key))
			reword(k, words)
			reword(e, words)
			v.SetMapIndex(key, reflect.Value{})
			v.SetMapIndex(k, e)
		}
	}
}

// walk does random writes of one part of a kind by several managers.
func (w *twins) walk(seed int64, words []string, steps int) {
	f, r := filler(seed, words), rand.New(rand.NewSource(seed))
	row := w.info.Served.Resource
	random := func() api.Object {
		obj := row.New()
		f.Fill(obj)
		reword(reflect.ValueOf(obj), words)
		return obj
	}
	var live api.Object
	for range steps {
		w.step++
		manager := []string{"kubectl", "kubelet", "m", ""}[r.Intn(4)]
		if r.Intn(15) == 0 {
			manager = fmt.Sprint("once", w.step)
		}
		if live == nil || r.Intn(12) == 0 {
			live = w.write(random(), row.New(), manager)
			live.SetUID("u")
			continue
		}
		next := live.DeepCopyObject().(api.Object)
		switch r.Intn(10) {
		case 0:
			managers := next.GetManagedFields()
			next = random()
			next.SetManagedFields(managers)
		case 1:
			next = random() // by a client that knows nothing of managers
		case 2:
			live = w.apply(random(), live, manager, r.Intn(2) == 0)
			continue
		case 3:
			next.SetLabels(random().GetLabels())
		case 4:
			next.SetManagedFields(meddle(r, next.GetManagedFields()))
		default:
			// Some of its parts anew; MaxDepth keeps it small.
			before := next.DeepCopyObject()
			f.NilChance(.8).Fill(next)
			f.NilChance(.5)
			reword(reflect.ValueOf(next), words)
			next.SetManagedFields(before.(api.Object).GetManagedFields())
		}
		next.SetUID(live.GetUID())
		live = w.write(next, live, manager)
		live.SetUID("u")
	}
}

// meddle is what a client may make of managers.
func meddle(r *rand.Rand, managers []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	entry := metav1.ManagedFieldsEntry{Manager: "own", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:b":{},"f:a":{},".":{}},"f:name":{}}}`)}
	if len(managers) > 0 {
		entry.APIVersion = managers[0].APIVersion
	}
	switch r.Intn(9) {
	case 0:
		return []metav1.ManagedFieldsEntry{}
	case 1:
		return []metav1.ManagedFieldsEntry{{}}
	case 2:
		return slices.Concat(managers, managers)
	case 3:
		entry.APIVersion = "gone/v1"
	case 4:
		entry.FieldsV1 = nil
	case 5:
		entry.FieldsV1 = metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:b":{},"f:a":{},".":{}}}}`)
	case 6:
		entry.FieldsV1 = metav1.NewFieldsV1(`[`)
	case 7:
		entry.FieldsV1 = metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:a":{".":{},"f:b":{}}},"f:ownerReferences":{"k:{\"uid\":\"a\"}":{}}}}`)
	}
	return append(slices.Clone(managers), entry)
}

// Tracking alone comes to what the library comes to, for every kind, version and
// part of it, whoever writes what.
func TestTrackingIsTheLibrarys(t *testing.T) {
	h := requesttest.Handler(t, nil)
	for _, row := range kinds.Registry().Resources() {
		if row.Prefix == "" {
			continue
		}
		for _, v := range row.Versions {
			served := kinds.Registry().ByGVK(v.WithKind(row.Kind))
			subs := []string{""}
			for name, sub := range row.Subresources {
				if sub.Put != nil || sub.New == nil {
					subs = append(subs, name)
				}
			}
			for _, sub := range subs {
				t.Run(fmt.Sprint(served.Version, served.Kind, sub), func(t *testing.T) {
					w := newTwins(t, h, served, sub)
					w.walk(1, words[:len(words)-odd], 30)
					w.walk(2, words, 10)
					if always := v.FromHub != nil || sub == "resize" || sub == "ephemeralcontainers"; !always && w.alone < w.writes/4 {
						t.Errorf("the library did %d of %d", w.writes-w.alone, w.writes)
					}
				})
			}
		}
	}
}

// The library merges the oldest of more than ten managers.
func TestTrackingOfManyManagers(t *testing.T) {
	w := newTwins(t, requesttest.Handler(t, nil), requesttest.Info("update", "v1", "configmaps", "", "").Served, "")
	cm := requesttest.ConfigMap("a", "k", "v")
	live := w.write(cm, &corev1.ConfigMap{}, "m0")
	for i := range 14 {
		live.SetUID("u")
		w.step += 2
		next := live.DeepCopyObject().(*corev1.ConfigMap)
		next.Data[fmt.Sprint(i)] = "v"
		live = w.write(next, live, fmt.Sprint("m", i+1))
	}
	if w.alone != 10 {
		t.Errorf("%d of %d writes without the library", w.alone, w.writes)
	}
	if n := len(live.GetManagedFields()); n != 10 {
		t.Errorf("%d managers", n)
	}
}

// The objects of k8s.io/api have every field of every kind.
func TestTrackingOfFullObjects(t *testing.T) {
	h := requesttest.Handler(t, nil)
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD")
	alone, writes := 0, 0
	for _, row := range kinds.Registry().Resources() {
		for _, v := range row.Versions {
			group := v.Group
			if group == "" {
				group = "core"
			}
			data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%s.%s.%s.json", group, v.Version, row.Kind)))
			if row.Prefix == "" || v.FromHub != nil || os.IsNotExist(err) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			full := row.New()
			if err := json.Unmarshal(data, full); err != nil {
				t.Fatal(err)
			}
			full.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			full.SetManagedFields(nil)
			w := newTwins(t, h, kinds.Registry().ByGVK(v.WithKind(row.Kind)), "")
			live := w.write(full, row.New(), "a")
			live.SetUID("u")
			w.write(live, live, "a")
			w.write(live, live, "b")
			w.write(row.New(), live, "b")
			alone, writes = alone+w.alone, writes+w.writes
		}
	}
	if writes < 200 || alone < writes*9/10 {
		t.Errorf("%d of %d writes without the library", alone, writes)
	}
}
