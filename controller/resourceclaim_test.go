package controller_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/resourceclaim"
)

func claimKeeper(c client.Interface, r events.Recorder) controller.Loop {
	return resourceclaim.New(c, r)
}

func claimSpec() resourcev1.ResourceClaimSpec {
	return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
		{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}},
	}}}
}

// aClaimant is a pod that asks for a claim of its own by a template, and for one
// that is there.
func aClaimant(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: template(nil, "x").Spec}
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{
		{Name: "own", ResourceClaimTemplateName: ptr.To("t")},
		{Name: "shared", ResourceClaimName: ptr.To("shared")},
	}
	return p
}

// allocated is what the scheduler would write.
func (w *world) allocated(c *resourcev1.ResourceClaim, pods ...*corev1.Pod) {
	w.Helper()
	update(w, c, "", func(c *resourcev1.ResourceClaim) { c.Finalizers = []string{resourcev1.Finalizer} })
	update(w, c, "status", func(c *resourcev1.ResourceClaim) {
		c.Status.Allocation = &resourcev1.AllocationResult{}
		for _, p := range pods {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
		}
	})
}

// Documentation: "Dynamic Resource Allocation".
func TestResourceClaims(t *testing.T) {
	w := newWorld(t)
	d := w.run(claimKeeper)
	shared := create(w, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shared"}, Spec: claimSpec()})
	p := create(w, aClaimant("p"))
	w.rests()
	w.said(`Warning FailedResourceClaimCreation PodResourceClaim own: resource claim template "t": resourceclaimtemplate.resource.k8s.io "t" not found`)

	// The process dies once the claim is made, before the pod tells of it.
	d.client.dieAt(0, true)
	create(w, &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "t"},
		Spec:       resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: claimSpec()},
	})
	w.rests()
	claims := func() map[string]*resourcev1.ResourceClaim {
		found := map[string]*resourcev1.ResourceClaim{}
		for _, c := range all[*resourcev1.ResourceClaim](w, "default") {
			found[c.Annotations[resourcev1.PodResourceClaimAnnotation]] = c
		}
		return found
	}
	own := claims()["own"]
	if own == nil || len(all[*resourcev1.ResourceClaim](w, "default")) != 2 || !strings.HasPrefix(own.Name, "p-own-") || !metav1.IsControlledBy(own, p) || own.Labels["a"] != "b" {
		t.Fatalf("the claim is %+v", own)
	}
	p = get[*corev1.Pod](w, "default", "p")
	if s := p.Status.ResourceClaimStatuses; len(s) != 1 || s[0].Name != "own" || *s[0].ResourceClaimName != own.Name {
		t.Errorf("the pod tells of %+v", s)
	}

	// One that somebody deletes is made again.
	remove(w, own, metav1.DeleteOptions{})
	w.rests()
	if again := claims()["own"]; again == nil || again.UID == own.UID {
		t.Errorf("the claim was not made again: %+v", again)
	}
	own = claims()["own"]

	// Once the pod has ended, its own claim goes and the other is free.
	w.allocated(own, p)
	w.allocated(shared, p)
	w.rests()
	if c := get[*resourcev1.ResourceClaim](w, "default", "shared"); len(c.Status.ReservedFor) != 1 || c.Status.Allocation == nil {
		t.Errorf("the claim is %+v", c.Status)
	}
	update(w, p, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	w.rests()
	if c := get[*resourcev1.ResourceClaim](w, "default", "shared"); len(c.Status.ReservedFor) != 0 || c.Status.Allocation != nil || len(c.Finalizers) != 0 {
		t.Errorf("the claim is %+v with %v", c.Status, c.Finalizers)
	}
	if c := claims()["own"]; c != nil {
		t.Errorf("the pod's own claim is still there: %+v", c)
	}

	// A pod that is gone frees as well, and a deleted claim goes then.
	q := create(w, aClaimant("q"))
	w.allocated(shared, q)
	remove(w, shared, metav1.DeleteOptions{})
	w.rests()
	if get[*resourcev1.ResourceClaim](w, "default", "shared") == nil {
		t.Fatal("a claim in use is gone")
	}
	remove(w, q, metav1.DeleteOptions{})
	w.rests()
	if c := get[*resourcev1.ResourceClaim](w, "default", "shared"); c != nil {
		t.Errorf("a deleted claim that nobody uses is still there: %+v", c)
	}
}
