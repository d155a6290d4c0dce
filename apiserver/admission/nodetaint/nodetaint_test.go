package nodetaint_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/nodetaint"
)

func TestPlugin(t *testing.T) {
	notReady := corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}
	other := corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoExecute}
	reg := kinds.Registry()
	p := nodetaint.New(reg)
	for _, c := range []struct {
		given []corev1.Taint
		want  int
	}{{nil, 1}, {[]corev1.Taint{notReady}, 1}, {[]corev1.Taint{other}, 2}} {
		node := &corev1.Node{Spec: corev1.NodeSpec{Taints: c.given}}
		admissiontest.Expect(t, "create", p, admissiontest.Create(reg, nil, node), 0, "")
		if len(node.Spec.Taints) != c.want || !node.Spec.Taints[c.want-1].MatchTaint(&notReady) {
			t.Errorf("%v became %v", c.given, node.Spec.Taints)
		}
	}
	node := &corev1.Node{}
	admissiontest.Expect(t, "update", p, admissiontest.Update(reg, nil, node, &corev1.Node{}), 0, "")
	if len(node.Spec.Taints) != 0 {
		t.Errorf("an update adds %v", node.Spec.Taints)
	}
}
