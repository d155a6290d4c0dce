package core

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

func quantity(s string) resource.Quantity { return resource.MustParse(s) }

// BenchmarkPlace places 10,000 pods of one template on 5,000 nodes. The report
// is in placements a second, of decisions alone.
func BenchmarkPlace(b *testing.B) {
	affinity := func(a *corev1.Affinity) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Affinity = a }
	}
	term := corev1.PodAffinityTerm{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, TopologyKey: corev1.LabelTopologyZone}
	perHost := term
	perHost.TopologyKey = corev1.LabelHostname
	spread := func(action corev1.UnsatisfiableConstraintAction) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: action, LabelSelector: term.LabelSelector,
			}}
		}
	}
	for _, c := range []struct {
		name   string
		pods   int
		change func(*corev1.Pod)
		owned  labels.Selector
		named  bool // each pod names its node, as those of a DaemonSet do
	}{
		{name: "plain", pods: 10000},
		{name: "nodeAffinity", pods: 10000, change: affinity(&corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"z1", "z2"}}},
			}}},
		}})},
		{name: "daemon", pods: 5000, named: true},
		{name: "owned", pods: 10000, owned: labels.SelectorFromSet(labels.Set{"app": "web"})},
		{name: "podAffinity", pods: 10000, change: affinity(&corev1.Affinity{PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term},
		}})},
		{name: "podAntiAffinity", pods: 5000, change: affinity(&corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{perHost},
		}})},
		{name: "spread", pods: 10000, change: spread(corev1.DoNotSchedule)},
		{name: "softSpread", pods: 10000, change: spread(corev1.ScheduleAnyway)},
	} {
		b.Run(c.name, func(b *testing.B) {
			placed := 0
			for b.Loop() {
				b.StopTimer()
				cluster := manyNodes(5000)
				pods := manyPods(c.pods, c.change)
				for i, p := range pods {
					if c.named {
						namesNode(p, fmt.Sprintf("node-%04d", i))
					}
				}
				b.StartTimer()
				for _, p := range pods {
					pending := NewPending(p, c.owned)
					node, refusal := cluster.Choose(pending)
					if node == "" {
						b.Fatalf("%d placed, then: %s", placed, refusal.Message)
					}
					cluster.Add(pending.Pod, node)
					placed++
				}
			}
			b.ReportMetric(float64(placed)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}

func namesNode(p *corev1.Pod, name string) {
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}},
		}}},
	}}
}

func manyNodes(n int) *Cluster {
	c := NewCluster()
	for i := range n {
		name := fmt.Sprintf("node-%04d", i)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("z%d", i%3),
		}}}
		node.Status.Allocatable = corev1.ResourceList{
			corev1.ResourceCPU: quantity("4"), corev1.ResourceMemory: quantity("32Gi"), corev1.ResourcePods: quantity("110"),
		}
		c.SetNode(node)
	}
	return c
}

func manyPods(n int, change func(*corev1.Pod)) []*corev1.Pod {
	out := make([]*corev1.Pod, n)
	for i := range out {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("pod-%d", i), UID: types.UID(fmt.Sprint(i)), Labels: map[string]string{"app": "web"},
		}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "registry.example/web:1"}}
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: quantity("100m"), corev1.ResourceMemory: quantity("500Mi")}
		if change != nil {
			change(p)
		}
		out[i] = p
	}
	return out
}
