package request_test

import (
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

type podFixture struct {
	fixture
	clock *testingclock.FakePassiveClock
}

func newPodFixture(t *testing.T) podFixture {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return podFixture{newFixture(t, func(c *request.Config) { c.Clock = clock }), clock}
}

func podInfo(verb, name, sub string) *request.Info {
	info := requesttest.Info(verb, "v1", "pods", "default", name)
	info.Subresource = sub
	return info
}

// pod makes a pod that runs on a node.
func (f podFixture) pod(name string) *corev1.Pod {
	f.t.Helper()
	obj := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if _, err := f.Create(f.t.Context(), podInfo("create", "", ""), request.Body{Object: obj}, &metav1.CreateOptions{}); err != nil {
		f.t.Fatal(err)
	}
	f.post(name, "binding", &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Name: "n"}})
	return f.read(name)
}

func (f podFixture) post(name, sub string, body runtime.Object) {
	f.t.Helper()
	out, err := f.Create(f.t.Context(), podInfo("create", name, sub), request.Body{Object: body}, &metav1.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	if s, ok := out.(*metav1.Status); !ok || s.Status != metav1.StatusSuccess {
		f.t.Fatalf("%s gave %v", sub, out)
	}
}

func (f podFixture) read(name string) *corev1.Pod {
	f.t.Helper()
	obj, err := f.Get(f.t.Context(), podInfo("get", name, ""), &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return obj.(*corev1.Pod)
}

func (f podFixture) remove(name string, seconds *int64) *corev1.Pod {
	f.t.Helper()
	out, _, err := f.Delete(f.t.Context(), podInfo("delete", name, ""), &metav1.DeleteOptions{GracePeriodSeconds: seconds})
	if err != nil {
		f.t.Fatal(err)
	}
	return out.(*corev1.Pod)
}

// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
func TestPodsAreDeletedGracefully(t *testing.T) {
	f := newPodFixture(t)
	start := f.clock.Now()
	f.pod("p")
	at := func(want time.Duration, grace int64) {
		t.Helper()
		p := f.read("p")
		if p == nil || !p.DeletionTimestamp.Time.Equal(start.Add(want)) || *p.DeletionGracePeriodSeconds != grace {
			t.Fatalf("pod is %+v, want it deleted after %v with grace %d", p, want, grace)
		}
	}
	f.remove("p", nil)
	at(30*time.Second, 30)
	// Longer is not possible, shorter is.
	longer, shorter, none := int64(60), int64(10), int64(0)
	f.clock.SetTime(start.Add(5 * time.Second))
	f.remove("p", &longer)
	at(30*time.Second, 30)
	f.remove("p", &shorter)
	at(10*time.Second, 10)
	// A shorter period that is over already leaves one second to notice.
	f.clock.SetTime(start.Add(9 * time.Second))
	shorter = 3
	f.remove("p", &shorter)
	at(9*time.Second, 1)
	last := f.remove("p", &none)
	if f.read("p") != nil || *last.DeletionGracePeriodSeconds != 0 {
		t.Errorf("without grace the pod is %+v", last)
	}
}

func TestFinalizersOutlastGrace(t *testing.T) {
	f := newPodFixture(t)
	f.pod("p")
	patch := func(text string) {
		t.Helper()
		_, _, err := f.Patch(t.Context(), podInfo("patch", "p", ""), "application/merge-patch+json",
			func() ([]byte, error) { return []byte(text), nil }, &metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"metadata":{"finalizers":["example.com/x"]}}`)
	f.remove("p", nil)
	patch(`{"metadata":{"finalizers":null}}`)
	if p := f.read("p"); p == nil {
		t.Fatal("a pod went before its grace period was over")
	}
	patch(`{"metadata":{"labels":{"a":"b"}}}`)
	none := int64(0)
	f.remove("p", &none)
	if p := f.read("p"); p != nil {
		t.Errorf("pod is still there: %+v", p)
	}
}

func TestEvictionDeletes(t *testing.T) {
	f := newPodFixture(t)
	f.pod("p")
	seconds := int64(7)
	f.post("p", "eviction", &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: "p"},
		DeleteOptions: &metav1.DeleteOptions{GracePeriodSeconds: &seconds},
	})
	if p := f.read("p"); *p.DeletionGracePeriodSeconds != 7 {
		t.Errorf("grace period is %d", *p.DeletionGracePeriodSeconds)
	}
}

func TestStatusAndSpecAreWrittenApart(t *testing.T) {
	f := newPodFixture(t)
	p := f.pod("p").DeepCopy()
	p.Labels = map[string]string{"a": "b"}
	p.Status.Message = "hello"
	write := func(sub string) *corev1.Pod {
		t.Helper()
		out, _, err := f.Update(t.Context(), podInfo("update", "p", sub), request.Body{Object: p.DeepCopy()}, &metav1.UpdateOptions{FieldManager: "m"})
		if err != nil {
			t.Fatal(err)
		}
		return out.(*corev1.Pod)
	}
	main := write("")
	if main.Status.Message != "" || main.Labels["a"] != "b" {
		t.Errorf("writing the pod gave %+v", main)
	}
	p.ResourceVersion = main.ResourceVersion
	p.Spec.NodeName = "elsewhere"
	status := write("status")
	if status.Status.Message != "hello" || status.Spec.NodeName != "n" {
		t.Errorf("writing the status gave %+v", status)
	}
	var managers []string
	for _, m := range status.ManagedFields {
		managers = append(managers, m.Manager+"/"+m.Subresource)
	}
	if len(managers) != 3 || !slices.Contains(managers, "m/status") || !slices.Contains(managers, "m/") {
		t.Errorf("managers are %v", managers)
	}
}

// What a status says is warned about by the status's own rule, not the spec's.
func TestStatusWarns(t *testing.T) {
	f := newPodFixture(t)
	p := f.pod("p").DeepCopy()
	p.Status.PodIPs = []corev1.PodIP{{IP: "FD00::1"}}
	p.Status.PodIP = "FD00::1"
	info := podInfo("update", "p", "status")
	var warned []string
	info.Warn = func(text string) { warned = append(warned, text) }
	if _, _, err := f.Update(t.Context(), info, request.Body{Object: p}, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if want := `status.podIPs[0].ip: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")`; !slices.Equal(warned, []string{want}) {
		t.Errorf("warnings are %q, want %q", warned, want)
	}
}

func TestDeleteCollection(t *testing.T) {
	f := newPodFixture(t)
	for _, name := range []string{"a", "b", "c"} {
		f.mustCreate(requesttest.ConfigMap(name))
	}
	list, err := f.DeleteCollection(t.Context(), requesttest.Info("deletecollection", "v1", "configmaps", "default", ""),
		&metav1.DeleteOptions{}, &metav1.ListOptions{FieldSelector: "metadata.name!=b"})
	if err != nil || len(list.Items) != 2 {
		t.Fatalf("deleted %v, %v", list.Items, err)
	}
	left, err := f.List(t.Context(), requesttest.Info("list", "v1", "configmaps", "default", ""), &metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if objs := slices.Collect(left.Objects); len(objs) != 1 || objs[0].GetName() != "b" {
		t.Errorf("left are %v", objs)
	}
}

// https://kubernetes.io/docs/reference/using-api/server-side-apply/
func TestScale(t *testing.T) {
	f := newFixture(t, nil)
	one := int32(1)
	info := func(verb, sub string) *request.Info {
		i := requesttest.Info(verb, "apps/v1", "deployments", "default", "d")
		i.Subresource = sub
		return i
	}
	labels := map[string]string{"a": "b"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DeploymentSpec{
		Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		},
	}}
	create := requesttest.Info("create", "apps/v1", "deployments", "default", "")
	if _, err := f.Create(t.Context(), create, request.Body{Object: d}, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	out, err := f.Get(t.Context(), info("get", "scale"), &metav1.GetOptions{})
	scale, ok := out.(*autoscalingv1.Scale)
	if err != nil || !ok || scale.Spec.Replicas != 1 {
		t.Fatalf("scale is %v, %v", out, err)
	}
	scale = scale.DeepCopy()
	scale.Spec.Replicas = 2
	if _, _, err = f.Update(t.Context(), info("update", "scale"), request.Body{Object: scale}, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err = f.Update(t.Context(), info("update", "scale"), request.Body{Object: scale.DeepCopy()}, &metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("updating an old scale gave %v, want Conflict", err)
	}
	patch := func(kind types.PatchType, text string, opts metav1.PatchOptions) (*autoscalingv1.Scale, error) {
		out, _, err := f.Patch(t.Context(), info("patch", "scale"), kind, func() ([]byte, error) { return []byte(text), nil }, &opts)
		s, _ := out.(*autoscalingv1.Scale)
		return s, err
	}
	if s, err := patch(types.MergePatchType, `{"spec":{"replicas":3}}`, metav1.PatchOptions{}); err != nil || s.Spec.Replicas != 3 {
		t.Errorf("merge gave %v, %v", s, err)
	}
	apply := `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":4}}`
	if _, err := patch(types.ApplyYAMLPatchType, apply, metav1.PatchOptions{FieldManager: "hpa"}); !apierrors.IsConflict(err) {
		t.Errorf("apply gave %v, want Conflict", err)
	}
	force := true
	if s, err := patch(types.ApplyYAMLPatchType, apply, metav1.PatchOptions{FieldManager: "hpa", Force: &force}); err != nil || s.Spec.Replicas != 4 {
		t.Errorf("forced apply gave %v, %v", s, err)
	}
	obj, err := f.Get(t.Context(), info("get", ""), &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := false
	for _, m := range obj.(*appsv1.Deployment).ManagedFields {
		owned = owned || m.Manager == "hpa" && m.Subresource == "scale" && m.Operation == metav1.ManagedFieldsOperationApply
	}
	if !owned || obj.(*appsv1.Deployment).Generation != 4 {
		t.Errorf("deployment is %+v", obj.(*appsv1.Deployment).ObjectMeta)
	}
}
