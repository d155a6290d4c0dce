package runtimeclass_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/runtimeclass"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

func of(class string, change ...func(*corev1.PodSpec)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}
	if class != "" {
		pod.Spec.RuntimeClassName = ptr.To(class)
	}
	for _, f := range change {
		f(&pod.Spec)
	}
	return pod
}

func cpu(amount string) corev1.ResourceList {
	return corev1.ResourceList{"cpu": resource.MustParse(amount)}
}

// Kubernetes' pages "Runtime Class" and "Pod Overhead".
func TestPlugin(t *testing.T) {
	view := authtest.New(t,
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Handler: "runc"},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "vm"}, Handler: "vm", Overhead: &nodev1.Overhead{PodFixed: cpu("250m")}, Scheduling: &nodev1.Scheduling{
			NodeSelector: map[string]string{"vm": "yes"},
			Tolerations: []corev1.Toleration{
				{Key: "vm", Operator: corev1.TolerationOpExists},
				{Key: "a", Operator: corev1.TolerationOpEqual, Value: "x", Effect: corev1.TaintEffectNoSchedule},
			},
		}},
	)
	p := runtimeclass.New(view.Registry, view)
	overhead := func(amount string) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Overhead = cpu(amount) }
	}
	selector := func(pairs map[string]string) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.NodeSelector = pairs }
	}
	const begin = `pods "p" is forbidden: `
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"no class", of(""), ""},
		{"a plain class", of("plain"), ""},
		{"no such class", of("none"), begin + `pod rejected: RuntimeClass "none" not found`},
		{"an overhead of its own", of("", overhead("1")), begin + `pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`},
		{"an overhead that the class has not", of("plain", overhead("1")), begin + `pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`},
		{"another overhead", of("vm", overhead("1")), begin + `pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead`},
		{"the same overhead", of("vm", overhead("0.25")), ""},
		{"another node", of("vm", selector(map[string]string{"vm": "no"})), begin + `conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no`},
	} {
		admissiontest.Expect(t, c.name, p, admissiontest.Create(view.Registry, nil, c.pod), 403, c.want)
	}
	pod := of("vm", selector(map[string]string{"b": "c"}), func(s *corev1.PodSpec) {
		s.Tolerations = []corev1.Toleration{
			{Key: "vm", Operator: corev1.TolerationOpEqual, Value: "x", Effect: corev1.TaintEffectNoExecute},
			{Key: "a", Operator: corev1.TolerationOpEqual, Value: "x", Effect: corev1.TaintEffectNoSchedule},
			{Key: "a", Operator: corev1.TolerationOpEqual, Value: "y", Effect: corev1.TaintEffectNoSchedule},
		}
	})
	admissiontest.Expect(t, "merged", p, admissiontest.Create(view.Registry, nil, pod), 403, "")
	want := of("vm", overhead("250m"), selector(map[string]string{"b": "c", "vm": "yes"}), func(s *corev1.PodSpec) {
		s.Tolerations = []corev1.Toleration{
			{Key: "a", Operator: corev1.TolerationOpEqual, Value: "x", Effect: corev1.TaintEffectNoSchedule},
			{Key: "a", Operator: corev1.TolerationOpEqual, Value: "y", Effect: corev1.TaintEffectNoSchedule},
			{Key: "vm", Operator: corev1.TolerationOpExists},
		}
	})
	if diff := cmp.Diff(want, pod); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
	admissiontest.Expect(t, "an old pod", p, admissiontest.Update(view.Registry, nil, of("none"), of("none")), 0, "")
}
