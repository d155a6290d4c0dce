package core

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pods that name their node, as those of a DaemonSet do, get that one, however full
// the others are of them; one whose node is not there is woken by it alone.
func TestPodsThatNameTheirNode(t *testing.T) {
	cluster := manyNodes(500)
	for i, p := range manyPods(500, nil) {
		want := fmt.Sprintf("node-%04d", (i*7)%500)
		namesNode(p, want)
		pending := NewPending(p, nil)
		node, refusal := cluster.Choose(pending)
		if node != want {
			t.Fatalf("pod for %s is placed on %q: %v", want, node, refusal)
		}
		cluster.Add(pending.Pod, node)
	}
	p := manyPods(1, nil)[0]
	namesNode(p, "late")
	pending := NewPending(p, nil)
	node, refusal := cluster.Choose(pending)
	if node != "" {
		t.Fatalf("placed on %s", node)
	}
	other, late := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "late"}}
	for _, n := range []*corev1.Node{other, late} {
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: quantity("4"), corev1.ResourceMemory: quantity("32Gi"), corev1.ResourcePods: quantity("110")}
		cluster.SetNode(n)
		if got := cluster.MayHelp(Event{NewNode: n}, pending, refusal.Filters); got != (n == late) {
			t.Errorf("node %s may help: %v", n.Name, got)
		}
	}
	if node, _ := cluster.Choose(pending); node != "late" {
		t.Errorf("placed on %q", node)
	}
}
