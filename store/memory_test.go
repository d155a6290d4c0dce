package store_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// templatePod is a pod such as a template makes, after its agent has written
// its status: fields of middling size, the managers as the server notes them.
func templatePod(name string) *corev1.Pod {
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz"}}, PeriodSeconds: 10}
	fields := func(n int) *metav1.FieldsV1 {
		return metav1.NewFieldsV1(`{"f:spec":{"f:` + strings.Repeat("x", n) + `":{}}}`)
	}
	c := corev1.Container{
		Name: "main", Image: "registry.example.com/team/web:1.2.3", Command: []string{"/web", "-listen", ":8080"},
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")},
			Limits:   corev1.ResourceList{"memory": resource.MustParse("128Mi")},
		},
		LivenessProbe: probe, ReadinessProbe: probe,
		VolumeMounts:             []corev1.VolumeMount{{Name: "config", MountPath: "/etc/web"}, {Name: "token", MountPath: "/var/run/secrets", ReadOnly: true}},
		TerminationMessagePath:   "/dev/termination-log",
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		ImagePullPolicy:          corev1.PullIfNotPresent,
	}
	for i := range 6 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", i), Value: "some value of middling length"})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: "0d1e2f3a-0000-4000-8000-000000000000",
			Labels:        map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager", FieldsV1: fields(1200)}, {Manager: "kubelet", Subresource: "status", FieldsV1: fields(1500)}},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{c}, RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, NodeName: "node-1",
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "web"}}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.42.0.17", PodIPs: []corev1.PodIP{{IP: "10.42.0.17"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

// What pods of a template share is in memory once, through all their writes.
func TestTemplatesAreStoredOnce(t *testing.T) {
	s := open(t, memory.New(memory.Options{}), store.Options{})
	closing(t, s)
	row := registry.Must("", "pods")
	create := func(name string) *corev1.Pod {
		t.Helper()
		obj, err := s.Create(t.Context(), row, templatePod(name), store.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*corev1.Pod)
	}
	update := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		t.Helper()
		ref := ref(name)
		ref.Resource = row
		obj, err := s.Update(t.Context(), ref, store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
			next := cur.(*corev1.Pod).DeepCopy()
			change(next)
			return store.Outcome{Object: next}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*corev1.Pod)
	}
	shared := func(a, b *corev1.Pod) bool { return &a.Spec.Containers[0] == &b.Spec.Containers[0] }
	a, b := create("a"), create("b")
	if want := templatePod("a"); !equality.Semantic.DeepEqual(a.Spec, want.Spec) || !equality.Semantic.DeepEqual(b.Status, want.Status) || len(b.Labels) != 2 {
		t.Errorf("pod is %v", a)
	}
	if !shared(a, b) || a.ManagedFields[0].FieldsV1 != b.ManagedFields[0].FieldsV1 {
		t.Error("two pods of a template have two specs")
	}
	if a = update("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }); !shared(a, b) || a.Status.Phase != corev1.PodFailed {
		t.Error("a change of the status made another spec")
	}
	if a = update("a", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other" }); shared(a, b) || b.Spec.Containers[0].Image == "other" {
		t.Error("a change of the spec is not the pod's own")
	}
	if again := update("b", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other" }); !shared(a, again) {
		t.Error("pods that became alike have two specs")
	}
}

// A value may be arranged in any way that protobuf allows: it decodes to the
// same object.
func TestForeignProtobuf(t *testing.T) {
	pod := templatePod("a")
	meta, err := pod.ObjectMeta.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := pod.Spec.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	node, err := (&corev1.PodSpec{NodeName: "other"}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	field := func(n protowire.Number, data []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), data)
	}
	envelope := func(raw []byte) []byte {
		u := kruntime.Unknown{TypeMeta: kruntime.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Raw: raw}
		data, err := u.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte("k8s\x00"), data...)
	}
	kind := slices.Concat(field(1, []byte("v1")), field(2, []byte("Pod")))
	plain := envelope(slices.Concat(field(1, meta), field(2, spec)))
	for name, c := range map[string]struct {
		value []byte
		node  string // "": unreadable
	}{
		"as written":         {plain, "node-1"},
		"spec first":         {envelope(slices.Concat(field(2, spec), field(1, meta))), "node-1"},
		"spec in two parts":  {envelope(slices.Concat(field(1, meta), field(2, spec), field(2, node))), "other"},
		"an unknown field":   {envelope(slices.Concat(field(1, meta), field(2, spec), field(99, []byte("x")))), "node-1"},
		"object before kind": {slices.Concat([]byte("k8s\x00"), field(2, slices.Concat(field(1, meta), field(2, spec))), field(1, kind)), "node-1"},
		"cut off":            {plain[:len(plain)-9], ""},
		"a broken spec":      {envelope(slices.Concat(field(1, meta), field(2, spec[:20]))), ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := memory.New(memory.Options{})
			if _, err := e.Txn(t.Context(), []store.Step{{Then: []store.Put{{Key: "/registry/pods/default/a", Value: c.value}}}}); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), e, registry, store.Options{DetectMutations: true})
			if c.node == "" {
				if err == nil {
					t.Error("it was read")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			closing(t, s)
			want := templatePod("a")
			want.Spec.NodeName, want.Status = c.node, corev1.PodStatus{}
			ref := ref("a")
			ref.Resource = registry.Must("", "pods")
			got, err := s.Get(t.Context(), ref, "0")
			if err != nil {
				t.Fatal(err)
			}
			want.ResourceVersion = got.GetResourceVersion()
			if !equality.Semantic.DeepEqual(got, want) && c.node == "node-1" {
				t.Errorf("got %v\nwant %v", got, want)
			}
			if node := got.(*corev1.Pod).Spec.NodeName; node != c.node {
				t.Errorf("node is %s, want %s", node, c.node)
			}
		})
	}
}

// BenchmarkPodMemory tells what a pod of a template costs in the copy.
func BenchmarkPodMemory(b *testing.B) {
	const pods = 5000
	for b.Loop() {
		e := memory.New(memory.Options{})
		s, err := store.Open(b.Context(), e, registry, store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		row := registry.Must("", "pods")
		var writes []store.Write
		for i := range pods {
			pod := templatePod(fmt.Sprint("web-", i))
			writes = append(writes, store.Write{Ref: ref(pod.Name), Create: pod})
			writes[i].Ref.Resource = row
		}
		for _, r := range s.Batch(b.Context(), writes) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
		clear(writes)
		heap := func() float64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc)
		}
		// A second copy of the same engine has nothing but the copy.
		before := heap()
		second, err := store.Open(b.Context(), e, registry, store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((heap()-before)/pods, "bytes/pod")
		_ = second.Close()
		_ = s.Close()
	}
}
