package tainteviction

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Documentation: "Taints and Tolerations", "Taint based Evictions".
func TestStay(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	taint := func(key string, ago time.Duration) corev1.Taint {
		return corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute, TimeAdded: &metav1.Time{Time: now.Add(-ago)}}
	}
	tolerate := func(key string, seconds *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds}
	}
	for _, c := range []struct {
		name        string
		taints      []corev1.Taint
		tolerations []corev1.Toleration
		forever     bool
		left        time.Duration
	}{
		{"not tolerated", []corev1.Taint{taint("a", 0)}, nil, false, 0},
		{"tolerated", []corev1.Taint{taint("a", 0)}, []corev1.Toleration{tolerate("a", nil)}, true, 0},
		{"of another taint", []corev1.Taint{taint("a", 0)}, []corev1.Toleration{tolerate("b", nil)}, false, 0},
		{"for a while", []corev1.Taint{taint("a", 100*time.Second)}, []corev1.Toleration{tolerate("a", ptr.To[int64](300))}, false, 200 * time.Second},
		{"for no longer", []corev1.Taint{taint("a", 400*time.Second)}, []corev1.Toleration{tolerate("a", ptr.To[int64](300))}, false, 0},
		{"not at all", []corev1.Taint{taint("a", 0)}, []corev1.Toleration{tolerate("a", ptr.To[int64](-1))}, false, 0},
		{"the shortest of two taints", []corev1.Taint{taint("a", 0), taint("b", 0)}, []corev1.Toleration{tolerate("a", ptr.To[int64](300)), tolerate("b", ptr.To[int64](30))}, false, 30 * time.Second},
		{"one of two taints", []corev1.Taint{taint("a", 0), taint("b", 0)}, []corev1.Toleration{tolerate("a", nil)}, false, 0},
		{"the first toleration counts", []corev1.Taint{taint("a", 0)}, []corev1.Toleration{tolerate("a", nil), tolerate("", ptr.To[int64](30))}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			forever, left := stay(&corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.tolerations}}, c.taints, now)
			if forever != c.forever || left != c.left {
				t.Errorf("forever %v, %v left; want %v, %v", forever, left, c.forever, c.left)
			}
		})
	}
}

// A pod that tolerates a taint for a while may come to a node that has long had it.
func TestStayOfWhatCameLater(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	taints := []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoExecute, TimeAdded: &metav1.Time{Time: now.Add(-time.Hour)}}}
	p := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To[int64](30)}}}}
	p.CreationTimestamp = metav1.NewTime(now.Add(-time.Minute))
	if forever, left := stay(p, taints, now); forever || left != 0 {
		t.Errorf("made a minute ago: forever %v, %v left", forever, left)
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-10 * time.Second))}}
	if forever, left := stay(p, taints, now); forever || left != 20*time.Second {
		t.Errorf("bound 10 s ago: forever %v, %v left", forever, left)
	}
}
