package request_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// createIn creates an object of any kind, in the namespace "default" unless it
// says none.
func createIn[T api.Object](f fixture, version, plural, namespace string, obj T) T {
	f.t.Helper()
	out, err := f.Create(f.t.Context(), requesttest.Info("create", version, plural, namespace, ""), request.Body{Object: obj}, &metav1.CreateOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return out.(T)
}

// patchIn patches an object of any kind, or a subresource of it.
func patchIn[T api.Object](f fixture, version, plural, name, subresource, text string) T {
	f.t.Helper()
	info := requesttest.Info("patch", version, plural, "", name)
	info.Subresource = subresource
	out, _, err := f.Patch(f.t.Context(), info, types.MergePatchType, func() ([]byte, error) { return []byte(text), nil }, &metav1.PatchOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return out.(T)
}

// Times that the writer leaves out are those of the server: of the resource for
// writes to it, of a subresource for writes to that.
func TestStamps(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	f := newFixture(t, func(c *request.Config) { c.Clock = clock })
	taint := createIn(f, "resource.k8s.io/v1", "devicetaintrules", "", &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Spec:       resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: "example.com/k", Effect: resourcev1.DeviceTaintEffectNoSchedule}},
	})
	if at := taint.Spec.Taint.TimeAdded; at == nil || !at.Time.Equal(clock.Now()) {
		t.Errorf("a new taint is of %v", at)
	}
	if m := taint.ManagedFields; len(m) != 1 || !strings.Contains(m[0].FieldsV1.String(), `"f:timeAdded":{}`) {
		t.Errorf("the time is not its creator's: %v", m)
	}
	first := clock.Now()
	clock.SetTime(first.Add(time.Hour))
	taint = patchIn[*resourcev1.DeviceTaintRule](f, "resource.k8s.io/v1", "devicetaintrules", "a", "status",
		`{"status":{"conditions":[{"type":"T","status":"True","reason":"R","message":"","lastTransitionTime":"2026-01-02T03:04:05Z"}]}}`)
	if at := taint.Spec.Taint.TimeAdded; !at.Time.Equal(first) {
		t.Errorf("after a write of the status it is of %v", at)
	}
	taint = patchIn[*resourcev1.DeviceTaintRule](f, "resource.k8s.io/v1", "devicetaintrules", "a", "", `{"spec":{"taint":{"effect":"NoExecute"}}}`)
	if at := taint.Spec.Taint.TimeAdded; !at.Time.Equal(clock.Now()) {
		t.Errorf("with another effect it is of %v", at)
	}
	createIn(f, "v1", "persistentvolumes", "", &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "v"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:               requesttest.Capacity("1Gi"),
			AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/v"}},
		},
	})
	volume := patchIn[*corev1.PersistentVolume](f, "v1", "persistentvolumes", "v", "status", `{"status":{"phase":"Available"}}`)
	if at := volume.Status.LastPhaseTransitionTime; at == nil || !at.Time.Equal(clock.Now()) {
		t.Errorf("the phase is of %v", at)
	}
}

// A name is generated as the kind says.
func TestNamesOfKinds(t *testing.T) {
	f := newFixture(t, nil)
	limits := createIn(f, "v1", "limitranges", "default", &corev1.LimitRange{})
	if limits.Name == "" || limits.Name != string(limits.UID) {
		t.Errorf("a nameless LimitRange is named %q, of UID %q", limits.Name, limits.UID)
	}
	address := func() *networkingv1.IPAddress {
		return &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{GenerateName: "10.0.0.1"},
			Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "s"}}}
	}
	if got := createIn(f, "networking.k8s.io/v1", "ipaddresses", "", address()); got.Name != "10.0.0.1" {
		t.Errorf("an address is named %q", got.Name)
	}
	_, err := f.Create(t.Context(), requesttest.Info("create", "networking.k8s.io/v1", "ipaddresses", "", ""), request.Body{Object: address()}, &metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same again: %v", err)
	}
}

// Deletion answers with the object where Kubernetes does, else with a Status.
func TestAnswersOfDeletion(t *testing.T) {
	f := newFixture(t, nil)
	createIn(f, "storage.k8s.io/v1", "storageclasses", "", &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Provisioner: "example.com/p"})
	createIn(f, "networking.k8s.io/v1", "ingressclasses", "", &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: networkingv1.IngressClassSpec{Controller: "example.com/c"}})
	got, _, err := f.Delete(t.Context(), requesttest.Info("delete", "storage.k8s.io/v1", "storageclasses", "", "x"), &metav1.DeleteOptions{})
	if class, ok := got.(*storagev1.StorageClass); err != nil || !ok || class.Name != "x" {
		t.Errorf("the deletion of a StorageClass answers %T %v", got, err)
	}
	got, _, err = f.Delete(t.Context(), requesttest.Info("delete", "networking.k8s.io/v1", "ingressclasses", "", "x"), &metav1.DeleteOptions{})
	if status, ok := got.(*metav1.Status); err != nil || !ok || status.Details.Name != "x" {
		t.Errorf("the deletion of an IngressClass answers %T %v", got, err)
	}
}
