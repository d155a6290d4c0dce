package defaultclass_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/defaultclass"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

// meta is of a class that is so many days old; mark is what marks it.
func meta(name string, days int, mark string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 31-days, 0, 0, 0, 0, time.UTC))}
	if mark != "" {
		m.Annotations = map[string]string{mark: "true"}
	}
	return m
}

func storage(name string, days int, mark string) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: meta(name, days, mark)}
}

const mark, beta = "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"

func claim(class *string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: class}}
}

// Kubernetes' pages "Default StorageClass" and "Default Ingress class".
func TestDefaults(t *testing.T) {
	view := authtest.New(t, storage("unmarked", 1, ""))
	p := admissiontest.Chain(defaultclass.Plugins(view.Registry, view))
	given := func(c *corev1.PersistentVolumeClaim) string {
		t.Helper()
		admissiontest.Expect(t, "claim", p, admissiontest.Create(view.Registry, nil, c), 0, "")
		return ptr.Deref(c.Spec.StorageClassName, "none")
	}
	if got := given(claim(nil)); got != "none" {
		t.Errorf("without a default, the class is %s", got)
	}
	for _, class := range []*storagev1.StorageClass{storage("old", 9, mark), storage("b", 2, mark), storage("a", 2, beta), storage("middle", 4, mark)} {
		view.Put(class)
	}
	if got := given(claim(nil)); got != "a" {
		t.Errorf("the class is %s, want the youngest by name", got)
	}
	if got := given(claim(ptr.To(""))); got != "" {
		t.Errorf("who wants none gets %s", got)
	}
	named := claim(nil)
	named.Annotations = map[string]string{"volume.beta.kubernetes.io/storage-class": "x"}
	if got := given(named); got != "none" {
		t.Errorf("who names one of old gets %s", got)
	}
	changed := claim(nil)
	admissiontest.Expect(t, "update", p, admissiontest.Update(view.Registry, nil, changed, claim(nil)), 0, "")
	if changed.Spec.StorageClassName != nil {
		t.Error("an update gives a class")
	}

	view.Put(&networkingv1.IngressClass{ObjectMeta: meta("web", 1, "ingressclass.kubernetes.io/is-default-class")})
	for want, ingress := range map[string]*networkingv1.Ingress{
		"web":   {},
		"other": {Spec: networkingv1.IngressSpec{IngressClassName: ptr.To("other")}},
		"none":  {ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubernetes.io/ingress.class": "x"}}},
	} {
		ingress.Namespace, ingress.Name = "ns", "i"
		admissiontest.Expect(t, want, p, admissiontest.Create(view.Registry, nil, ingress), 0, "")
		if got := ptr.Deref(ingress.Spec.IngressClassName, "none"); got != want {
			t.Errorf("the class is %s, want %s", got, want)
		}
	}
}

// "Expanding Persistent Volumes Claims".
func TestGrowth(t *testing.T) {
	grows := storage("grows", 1, "")
	grows.AllowVolumeExpansion = ptr.To(true)
	view := authtest.New(t, grows, storage("fixed", 1, ""))
	p := admissiontest.Chain(defaultclass.Plugins(view.Registry, view))
	of := func(class, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		c := claim(&class)
		c.Spec.Resources.Requests = corev1.ResourceList{"storage": resource.MustParse(size)}
		c.Status.Phase = phase
		return c
	}
	const begin = `persistentvolumeclaims "c" is forbidden: `
	const never = begin + "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
	for _, c := range []struct{ class, from, to, phase, want string }{
		{"grows", "1Gi", "2Gi", "Bound", ""},
		{"grows", "1Gi", "2Gi", "Pending", begin + "Only bound persistent volume claims can be expanded"},
		{"fixed", "1Gi", "2Gi", "Bound", never},
		{"fixed", "2Gi", "1Gi", "Bound", ""},
		{"none", "1Gi", "2Gi", "Bound", never},
		{"", "1Gi", "2Gi", "Bound", never},
	} {
		phase := corev1.PersistentVolumeClaimPhase(c.phase)
		admissiontest.Expect(t, c.class+" "+c.phase, p, admissiontest.Update(view.Registry, nil, of(c.class, c.to, phase), of(c.class, c.from, phase)), 403, c.want)
	}
}
