package tolerations_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/tolerations"
)

func TestPlugin(t *testing.T) {
	const notReady, unreachable = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
	own := corev1.Toleration{Key: notReady, Effect: corev1.TaintEffectNoExecute, Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(int64(7))}
	for _, c := range []struct {
		name  string
		given []corev1.Toleration
		added string
	}{
		{"none", nil, notReady + " " + unreachable},
		{"its own", []corev1.Toleration{own}, unreachable},
		{"its own for every effect", []corev1.Toleration{{Key: unreachable, Operator: corev1.TolerationOpExists}}, notReady},
		{"everything", []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, ""},
		{"another effect", []corev1.Toleration{{Key: notReady, Effect: corev1.TaintEffectNoSchedule}}, notReady + " " + unreachable},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.given}}
		reg := kinds.Registry()
		admissiontest.Expect(t, c.name, tolerations.New(reg), admissiontest.Create(reg, nil, pod), 0, "")
		var added []string
		for _, got := range pod.Spec.Tolerations[len(c.given):] {
			added = append(added, got.Key)
			if *got.TolerationSeconds != 300 || got.Effect != corev1.TaintEffectNoExecute || got.Operator != corev1.TolerationOpExists {
				t.Errorf("%s: %v", c.name, got)
			}
		}
		if got := strings.Join(added, " "); got != c.added {
			t.Errorf("%s: added %q, want %q", c.name, got, c.added)
		}
	}
}
