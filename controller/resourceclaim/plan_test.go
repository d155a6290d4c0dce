package resourceclaim

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// A generated name keeps something of both parts.
func TestNames(t *testing.T) {
	for _, c := range []struct{ pod, entry, want string }{
		{"web", "gpu", "web-gpu-"},
		{strings.Repeat("p", 57), "gpu", strings.Repeat("p", 52) + "-gp"},
		{strings.Repeat("p", 60), strings.Repeat("e", 60), strings.Repeat("p", 28) + "-" + strings.Repeat("e", 28)},
	} {
		got := fromTemplate(&resourcev1.ResourceClaimTemplate{}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: c.pod}}, c.entry).GenerateName
		if got != c.want || len(got) > longestBase+1 {
			t.Errorf("%s, %s: %s (%d), want %s", c.pod, c.entry, got, len(got), c.want)
		}
	}
}

type shown map[string]*resourcev1.ResourceClaim

func (s shown) claim(name string) *resourcev1.ResourceClaim           { return s[name] }
func (shown) template(string) *resourcev1.ResourceClaimTemplate       { return nil }
func (shown) generated(*corev1.Pod, string) *resourcev1.ResourceClaim { return nil }
func (s shown) reserves(p *corev1.Pod) (names []string) {
	for _, c := range planPod(p, s).reserve {
		names = append(names, c.Name)
	}
	return names
}

// Who was bound to a node past the scheduler gets its claims reserved, if there
// is room.
func TestReservations(t *testing.T) {
	claim := func(name string, allocated bool, users int) *resourcev1.ResourceClaim {
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if allocated {
			c.Status.Allocation = &resourcev1.AllocationResult{}
		}
		for i := range users {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", UID: types.UID(fmt.Sprint("u", i))})
		}
		return c
	}
	w := shown{"free": claim("free", true, 0), "none": claim("none", false, 0), "full": claim("full", true, 256), "mine": claim("mine", true, 3)}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u1"}}
	for _, name := range []string{"free", "none", "full", "mine", "missing"} {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: ptr.To(name)})
	}
	p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: "optional", ResourceClaimTemplateName: ptr.To("t")})
	p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "optional"}}
	if got := w.reserves(p); len(got) != 0 {
		t.Errorf("before there is a node: %v", got)
	}
	p.Spec.NodeName = "n"
	if got := fmt.Sprint(w.reserves(p)); got != "[free]" {
		t.Errorf("reserved are %s", got)
	}
	if missing := planPod(p, w).missing; len(missing) != 0 {
		t.Errorf("a claim that is not needed is missed: %v", missing)
	}
}

// What is reserved for others than pods stays reserved.
func TestOtherConsumers(t *testing.T) {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{resourcev1.Finalizer}}}
	c.Status.Allocation = &resourcev1.AllocationResult{}
	c.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{
		{Resource: "pods", Name: "gone", UID: "1"},
		{APIGroup: "example.com", Resource: "things", Name: "x", UID: "2"},
		{Resource: "pods", Name: "new", UID: "3"},
	}
	pods := map[string]*corev1.Pod{"new": {ObjectMeta: metav1.ObjectMeta{Name: "new", UID: "4"}}}
	plan := planClaim(c, pods)
	if len(plan.reservedFor) != 1 || plan.reservedFor[0].UID != "2" || !plan.status || plan.deallocate || plan.release || plan.remove {
		t.Errorf("the plan is %+v", plan)
	}
}
