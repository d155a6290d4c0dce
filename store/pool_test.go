package store

import (
	"crypto/rand"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
	"weak"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// fullPod has something for each rule of the pool, none of it shared with what
// another call returns.
func fullPod(name string) *corev1.Pod {
	own := strings.Clone
	args := append(make([]string, 0, 64), own("--verbose"))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{own("app"): own("web")},
			Annotations: map[string]string{own("note"): strings.Repeat("x", longestPair), own("name"): own(name)},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: own("main"), Image: strings.Repeat("i", longestString+1), Args: args,
			Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("100m")},
				Requests: corev1.ResourceList{"cpu": resource.MustParse("200m")},
			},
			SecurityContext: &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{User: own("system_u")}},
		}}},
	}
}

// What objects have alike becomes one, what is long or many stays as it is, and
// nothing of what they say changes.
func TestPool(t *testing.T) {
	p := &pool{}
	a, b := fullPod("a"), fullPod("b")
	p.compact(a)
	p.compact(b)
	if want := fullPod("a"); !reflect.DeepEqual(a, want) {
		t.Errorf("a pod became %v\nwant %v", a, want)
	}
	c, d := &a.Spec.Containers[0], &b.Spec.Containers[0]
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	one := func(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	for what, ok := range map[string]bool{
		"equal labels are one":               one(a.Labels, b.Labels),
		"annotations that differ stay":       !one(a.Annotations, b.Annotations),
		"equal limits are one":               one(c.Resources.Limits, d.Resources.Limits),
		"requests are no limits":             !one(c.Resources.Limits, c.Resources.Requests),
		"equal strings are one":              same(c.Name, d.Name),
		"long strings stay":                  !same(c.Image, d.Image),
		"a string in a list":                 same(c.Args[0], d.Args[0]),
		"a string behind pointers":           same(c.SecurityContext.SELinuxOptions.User, d.SecurityContext.SELinuxOptions.User),
		"no room is left behind a list":      cap(c.Args) == 1,
		"lists are each object's own":        &c.Args[0] != &d.Args[0],
		"a nil list stays nil":               c.Env == nil,
		"recursive types end":                p.plan(reflect.TypeFor[node]()) != nil,
		"numbers are nothing to be made one": p.plan(reflect.TypeFor[struct{ N *int64 }]()) == nil,
	} {
		if !ok {
			t.Error("not so: " + what)
		}
	}
}

type node struct {
	Text  string
	Below []node
	Next  *node
}

// Of a part that one object has there is no copy; of one that several have there
// is one, and the first is not kept for it.
func TestCommonIsLent(t *testing.T) {
	reg := kinds.Registry()
	table, err := newTable(reg, reg.ByGVK(corev1.SchemeGroupVersion.WithKind("Pod")).Resource, 0, &pool{})
	if err != nil {
		t.Fatal(err)
	}
	decode := func(name string) (*corev1.Pod, *common) {
		t.Helper()
		value, err := table.codec.encode(fullPod(name), 0)
		if err != nil {
			t.Fatal(err)
		}
		obj, _, used, err := table.codec.decode(value)
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*corev1.Pod), used
	}
	a, used := decode("a")
	if used.part != any(&a.Spec) {
		t.Error("the only pod with a spec has a copy of it")
	}
	first := weak.Make(a)
	b, again := decode("b")
	if again != used || &a.Spec.Containers[0] != &b.Spec.Containers[0] {
		t.Fatal("two pods with one spec do not share it")
	}
	a = nil
	collected(t, func() bool { return first.Value() == nil })
	c, again := decode("c")
	if again != used || &c.Spec.Containers[0] != &b.Spec.Containers[0] {
		t.Error("the spec was forgotten with the first pod")
	}
}

// collected waits until the collector has made something so.
func collected(t *testing.T, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for runtime.GC(); !done(); runtime.GC() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("what nobody has is still there")
		}
	}
}

// BenchmarkDecode tells what a value costs on its way into the copy: a small
// object, a pod whose spec is known and one whose spec is not.
func BenchmarkDecode(b *testing.B) {
	reg := kinds.Registry()
	for name, c := range map[string]struct {
		kind string
		next func() api.Object
	}{
		"configmap": {"ConfigMap", func() api.Object {
			return &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Labels: map[string]string{"group": "1"}},
				Data:       map[string]string{"payload": strings.Repeat("x", 512)},
			}
		}},
		"known": {"Pod", func() api.Object { return fullPod("a") }},
		"distinct": {"Pod", func() api.Object {
			pod := fullPod("a")
			for range 12 {
				env := corev1.EnvVar{Name: "SETTING_" + string(rune('a'+len(pod.Spec.Containers[0].Env))), Value: rand.Text()}
				pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, env)
			}
			return pod
		}},
	} {
		b.Run(name, func(b *testing.B) {
			table, err := newTable(reg, reg.ByGVK(corev1.SchemeGroupVersion.WithKind(c.kind)).Resource, 0, &pool{})
			if err != nil {
				b.Fatal(err)
			}
			values := make([][]byte, 1024)
			for i := range values {
				if values[i], err = table.codec.encode(c.next(), 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			used := make([]*entry, len(values)) // what is in use stays known
			for i := 0; b.Loop(); i++ {
				at := i % len(values)
				if at == 0 && name == "distinct" {
					table.codec.common.known = nil
				}
				if used[at], err = table.entry("default/a", KV{Value: values[at]}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
