package core

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// somePod picks a pod that is on a node; "" if there is none.
func (w *world) somePod(t *rapid.T) types.UID {
	all := slices.Sorted(maps.Keys(w.t.pods))
	if len(all) == 0 {
		return ""
	}
	return oneOf(t, "pod", all)
}

func someNode(t *rapid.T) string { return fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "node")) }

// TestHintsMissNothing: whenever a refused pod can have a node after an event,
// the hint said that it may.
func TestHintsMissNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for i := range 3 {
			w.setNode(randomNode(t, fmt.Sprintf("n%d", i)))
		}
		refused := map[*Pending]Filter{}
		// after compares each hint with what is now possible.
		after := func(t *rapid.T, e Event) {
			for p, by := range refused {
				hint := w.c.MayHelp(e, p, by)
				node, refusal := w.c.Choose(p)
				if node != "" && !hint {
					t.Fatalf("%+v let pod %s onto %s, in spite of %b, and no hint said so", e, p.Object.Name, node, by)
				}
				if node != "" {
					delete(refused, p)
				} else {
					refused[p] = refusal.Filters
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"schedule": func(t *rapid.T) {
				p := NewPending(w.randomPod(t), nil)
				node, refusal := w.c.Choose(p)
				if node == "" {
					refused[p] = refusal.Filters
					return
				}
				w.add(p.Object, node)
				after(t, Event{Came: p.Pod, At: node})
			},
			"fill": func(t *rapid.T) {
				p, node := w.randomPod(t), someNode(t)
				w.add(p, node)
				after(t, Event{Came: NewPod(p), At: node})
			},
			"set node": func(t *rapid.T) {
				n := randomNode(t, someNode(t))
				old := w.c.Node(n.Name)
				w.setNode(n)
				after(t, Event{OldNode: old, NewNode: n})
			},
			"remove node": func(t *rapid.T) {
				name := someNode(t)
				if old := w.c.Node(name); old != nil {
					w.removeNode(name)
					after(t, Event{OldNode: old})
				}
			},
			"remove pod": func(t *rapid.T) {
				if p, node := w.c.Find(w.somePod(t)); p != nil {
					w.remove(p.UID())
					after(t, Event{Gone: p, At: node})
				}
			},
			"terminate": func(t *rapid.T) {
				old, node := w.c.Find(w.somePod(t))
				if old == nil {
					return
				}
				p := old.Object.DeepCopy()
				p.DeletionTimestamp = &metav1.Time{}
				w.add(p, node)
				after(t, Event{Gone: old, At: node})
			},
			"label namespace": func(t *rapid.T) {
				if w.c.SetNamespace(oneOf(t, "namespace", namespaces), map[string]string{"team": oneOf(t, "team", []string{"x", "y"})}) {
					after(t, Event{Namespaces: true})
				}
			},
		})
	})
}

// TestPreemptionMakesRoom: once the victims are gone the pod has the node, it
// would not have it with any of them still there, and all mattered less.
func TestPreemptionMakesRoom(t *testing.T) {
	evictions := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for i := range 3 {
			w.setNode(randomNode(t, fmt.Sprintf("n%d", i)))
		}
		for range rapid.IntRange(0, 20).Draw(t, "pods") {
			w.add(w.randomPod(t), fmt.Sprintf("n%d", rapid.IntRange(0, 2).Draw(t, "node")))
		}
		p := NewPending(w.randomPod(t), nil)
		node, refusal := w.c.Choose(p)
		if node != "" {
			return
		}
		before := printAll(w.c.Explain(p))
		plan := w.c.Preempt(p, refusal, func() []Budget { return nil })
		if after := printAll(w.c.Explain(p)); after != before {
			t.Fatalf("looking for victims changed\n%s\ninto\n%s", before, after)
		}
		if plan.Eviction == nil {
			if plan.Message == "" {
				t.Fatal("no victims, and no word about it")
			}
			return
		}
		evictions++
		target := plan.Eviction.Node
		for _, v := range plan.Eviction.Victims {
			if at := w.t.pods[v.UID()].node; v.Priority() >= p.Priority() || at != target {
				t.Fatalf("victim %s of priority %d on %s, for %s", v.Object.Name, v.Priority(), at, target)
			}
			w.remove(v.UID())
		}
		w.nominate(p.Object, target)
		if got := w.check(t, p.Object, nil); got != target {
			t.Fatalf("after the eviction on %s the pod goes to %q", target, got)
		}
		for _, v := range plan.Eviction.Victims {
			// Affinity to a victim may be what lets the pod in.
			if v.terms == nil && p.terms == nil && len(p.spread) == 0 {
				w.add(v.Object, target)
				if got := w.verdictOn(p, target); got.Refused == 0 {
					t.Fatalf("victim %s need not have gone", v.Object.Name)
				}
				w.remove(v.UID())
			}
		}
	})
	if evictions < 20 {
		t.Errorf("only %d histories had an eviction", evictions)
	}
}

func (w *world) verdictOn(p *Pending, node string) Verdict {
	for _, v := range w.c.Explain(p) {
		if v.Node == node {
			return v
		}
	}
	return Verdict{}
}

// TestClassesFollow: what is known of a class after any history is what a new
// cluster would know; classes that were forgotten or fell behind included.
func TestClassesFollow(t *testing.T) {
	w := newWorld()
	for i := range 8 {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i), Labels: map[string]string{corev1.LabelHostname: fmt.Sprintf("n%d", i)}}}
		n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: quantity("1000"), corev1.ResourceMemory: quantity("1000Gi"), corev1.ResourcePods: quantity("100000")}
		w.setNode(n)
	}
	// More classes than are kept, more placements than the log keeps.
	template := func(i int) *Pending {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "one", Name: "p", Labels: map[string]string{"app": fmt.Sprint(i % (2 * classesKept))}}}
		w.serial++
		p.UID = types.UID(fmt.Sprint(w.serial))
		p.Spec.Containers = []corev1.Container{{Name: "c"}}
		if i%3 == 0 {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
				MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.DoNotSchedule,
				LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
			}}
		}
		return NewPending(p, nil)
	}
	for i := range 2*logLength + 100 {
		kind := 1
		if i%16 == 0 {
			kind = i / 16
		}
		p := template(kind)
		node, _ := w.c.Choose(p)
		w.c.Add(p.Pod, node)
	}
	if n := len(w.c.classes.byKey); n > classesKept {
		t.Errorf("%d classes are kept", n)
	}
	fresh := NewCluster()
	for _, n := range w.t.nodes {
		fresh.SetNode(n)
	}
	for slot, pods := range w.c.on {
		for _, p := range pods {
			fresh.Add(p, w.c.names[slot])
		}
	}
	for i := range 2 * classesKept {
		p := template(i)
		if got, want := printAll(w.c.Explain(p)), printAll(fresh.Explain(p)); got != want {
			t.Fatalf("class %d:\n%s\nwant\n%s", i, got, want)
		}
	}
}

// TestSeveralPlacedBetweenChoices: whatever was placed since the last choice of a kind,
// the next one is of the node with fewest pods, of several the first.
func TestSeveralPlacedBetweenChoices(t *testing.T) {
	const nodes, placed = 5, 4
	pod := func(i int) *corev1.Pod {
		name := fmt.Sprintf("p%d", i)
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	}
	for history := range nodes * nodes * nodes * nodes {
		c := NewCluster()
		for i := range nodes {
			c.SetNode(&corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)},
				Status:     corev1.NodeStatus{Allocatable: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("110")}},
			})
		}
		next := NewPending(pod(placed), nil)
		c.Choose(next)
		var counts [nodes]int
		for i, left := 0, history; i < placed; i, left = i+1, left/nodes {
			counts[left%nodes]++
			c.Add(NewPod(pod(i)), fmt.Sprintf("n%d", left%nodes))
		}
		want := fmt.Sprintf("n%d", slices.Index(counts[:], slices.Min(counts[:])))
		if got, _ := c.Choose(next); got != want {
			t.Fatalf("with %v pods on them %s is chosen, want %s", counts, got, want)
		}
	}
}
