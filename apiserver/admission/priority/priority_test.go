package priority_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/priority"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

func class(name string, value int32, isDefault bool, policy corev1.PreemptionPolicy) *schedulingv1.PriorityClass {
	c := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, GlobalDefault: isDefault}
	if policy != "" {
		c.PreemptionPolicy = &policy
	}
	return c
}

func pod(name string, value *int32, policy corev1.PreemptionPolicy) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{PriorityClassName: name, Priority: value}}
	if policy != "" {
		p.Spec.PreemptionPolicy = &policy
	}
	return p
}

func TestResolve(t *testing.T) {
	const never, lower = corev1.PreemptNever, corev1.PreemptLowerPriority
	plain := authtest.New(t, class("high", 1000, false, never), class("bare", 7, false, ""))
	for _, c := range kinds.SystemPriorityClasses() {
		plain.Put(c)
	}
	defaulted := authtest.New(t, class("usual", 10, true, never), class("usual2", 20, true, lower))
	for _, c := range []struct {
		name   string
		view   *authtest.View
		pod    *corev1.Pod
		class  string
		value  int32
		policy corev1.PreemptionPolicy
		want   string
	}{
		{"no class at all", plain, pod("", nil, ""), "", 0, lower, ""},
		{"named", plain, pod("high", nil, ""), "high", 1000, never, ""},
		{"named, and said", plain, pod("high", ptr.To(int32(1000)), never), "high", 1000, never, ""},
		{"without a policy", plain, pod("bare", nil, never), "bare", 7, never, ""},
		{"of the system", plain, pod("system-node-critical", nil, ""), "system-node-critical", 2000001000, "", ""},
		{"the lower of two defaults", defaulted, pod("", nil, ""), "usual", 10, never, ""},
		{"unknown", plain, pod("gone", nil, ""), "", 0, "", `pods "p" is forbidden: no PriorityClass with name gone was found`},
		{"another value", plain, pod("high", ptr.To(int32(5)), ""), "", 0, "",
			`pods "p" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name`},
		{"another policy", plain, pod("high", nil, lower), "", 0, "",
			`pods "p" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name`},
	} {
		p := priority.New(c.view.Registry, c.view)
		admissiontest.Expect(t, c.name, p, admissiontest.Create(c.view.Registry, nil, c.pod), 403, c.want)
		if c.want != "" {
			continue
		}
		spec := &c.pod.Spec
		if spec.PriorityClassName != c.class || ptr.Deref(spec.Priority, -1) != c.value || ptr.Deref(spec.PreemptionPolicy, "") != c.policy {
			t.Errorf("%s: %s %v %v", c.name, spec.PriorityClassName, ptr.Deref(spec.Priority, -1), ptr.Deref(spec.PreemptionPolicy, ""))
		}
	}
}

// Who replaces a pod with the manifest it was made from need not know what was
// filled in.
func TestUpdateKeeps(t *testing.T) {
	view := authtest.New(t)
	next := pod("high", nil, "")
	admissiontest.Expect(t, "update", priority.New(view.Registry, view), admissiontest.Update(view.Registry, nil, next, pod("high", ptr.To(int32(1000)), corev1.PreemptNever)), 0, "")
	if ptr.Deref(next.Spec.Priority, 0) != 1000 || ptr.Deref(next.Spec.PreemptionPolicy, "") != corev1.PreemptNever {
		t.Errorf("became %v", next.Spec)
	}
}

func TestOneDefault(t *testing.T) {
	view := authtest.New(t, class("usual", 10, true, ""))
	p := priority.New(view.Registry, view)
	const want = "PriorityClass usual is already marked as default. Only one default can exist"
	admissiontest.Expect(t, "a second", p, admissiontest.Create(view.Registry, nil, class("other", 1, true, "")), 403, `priorityclasses.scheduling.k8s.io "other" is forbidden: `+want)
	admissiontest.Expect(t, "another becomes it", p, admissiontest.Update(view.Registry, nil, class("other", 1, true, ""), class("other", 1, false, "")), 403, `priorityclasses.scheduling.k8s.io "other" is forbidden: `+want)
	admissiontest.Expect(t, "the same", p, admissiontest.Update(view.Registry, nil, class("usual", 10, true, ""), class("usual", 10, true, "")), 0, "")
	admissiontest.Expect(t, "one of many", p, admissiontest.Create(view.Registry, nil, class("other", 1, false, "")), 0, "")
}
