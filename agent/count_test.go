package agent

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A static pod has been restarted if the same one is wanted when it is gone.
func TestStaticPodAgain(t *testing.T) {
	s := &statics{wake: make(chan struct{}, 1), wanted: map[types.UID]*v1.Pod{"again": {}}, statuses: map[types.UID]*v1.PodStatus{"again": {}, "gone": {}}}
	if !s.forget("again") || s.forget("gone") || len(s.statuses) != 0 {
		t.Errorf("%v", s.statuses)
	}
}

// priorityClass has the bounds that the kubelet documents of kubelet_pod_pending_resizes.
func TestPriorityClass(t *testing.T) {
	for n, want := range map[int32]string{
		2_000_000_000: "system-critical", 1_999_999_999: "high", 100_000: "high", 99_999: "medium", 1: "medium", 0: "normal", -1: "low", -999: "low", -1000: "very-low",
	} {
		if got := priorityClass(&v1.Pod{Spec: v1.PodSpec{Priority: &n}}); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := priorityClass(&v1.Pod{}); got != "normal" {
		t.Errorf("none: %s", got)
	}
}
