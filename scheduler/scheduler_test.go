package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/podstate"
)

// A pod that appears is bound without any timer in between.
func TestBindsAtOnce(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 2)
		b.start()
		b.wantAtOnce(func() {
			b.pod("a", "1")
			b.wantNode("a", "n")
		})
		if c := podstate.Condition(b.get("a"), corev1.PodScheduled); c == nil || c.Status != corev1.ConditionTrue {
			t.Errorf("condition is %+v, want true", c)
		}
		b.wantTold("Normal Scheduled a: Successfully assigned default/a to n")
	})
}

// What there is at the start counts before anything is decided.
func TestCountsWhatThereIs(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 2)
		b.pod("old", "2", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
		b.pod("a", "1")
		b.start()
		b.wantNode("a", "")
	})
}

// The message is upstream's, and so is the reason.
func TestRefusal(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 2)
		b.pod("old", "2", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
		b.start()
		b.pod("a", "1")
		message := "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
		b.wantCondition("a", "Unschedulable", message)
		b.wantTold("Warning FailedScheduling a: " + message)
		b.pod("big", "3")
		b.wantCondition("big", "Unschedulable",
			"0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	})
}

func TestNoNodes(t *testing.T) {
	run(t, func(b *bench) {
		b.start()
		b.pod("a", "1")
		b.wantCondition("a", "Unschedulable", "no nodes available to schedule pods")
		b.wantAtOnce(func() {
			b.node("n", 1)
			b.wantNode("a", "n")
		})
	})
}

// Pods of other schedulers, finished ones and gated ones are left alone.
func TestLeavesAlone(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 2)
		b.start()
		b.pod("foreign", "1", func(p *corev1.Pod) { p.Spec.SchedulerName = "other" })
		b.wantNode("foreign", "")
		b.pod("gated", "1", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/gate"}} })
		b.wantNode("gated", "")
		b.wantCondition("gated", "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
		b.wantTold()
		open := b.get("gated").DeepCopy()
		open.Spec.SchedulingGates = nil
		b.update("pods", open, "")
		b.wantNode("gated", "n")
	})
}

// A refused pod is tried again when something happens that helps, at once if
// nobody else waits, and not before.
func TestWakes(t *testing.T) {
	for name, c := range map[string]struct {
		pod  func(*corev1.Pod)
		help func(b *bench)
	}{
		"a pod leaves": {help: func(b *bench) { b.delete("pods", "default", "old") }},
		"a pod finishes": {help: func(b *bench) {
			p := b.get("old").DeepCopy()
			p.Status.Phase = corev1.PodSucceeded
			b.update("pods", p, "status")
		}},
		"a node comes": {help: func(b *bench) { b.node("m", 1) }},
		"a node grows": {help: func(b *bench) {
			n := b.client.View().Get(b.row("nodes"), api.Key{Name: "n"}).(*corev1.Node).DeepCopy()
			n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("3")
			b.update("nodes", n, "status")
		}},
		"a node is uncordoned": {
			help: func(b *bench) {
				n := b.client.View().Get(b.row("nodes"), api.Key{Name: "cordoned"}).(*corev1.Node).DeepCopy()
				n.Spec.Unschedulable = false
				b.update("nodes", n, "")
			},
		},
		"a node gets the label": {
			pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "fast"} },
			help: func(b *bench) {
				n := b.client.View().Get(b.row("nodes"), api.Key{Name: "roomy"}).(*corev1.Node).DeepCopy()
				n.Labels["disk"] = "fast"
				b.update("nodes", n, "")
			},
		},
		"a taint goes": {
			help: func(b *bench) {
				n := b.client.View().Get(b.row("nodes"), api.Key{Name: "tainted"}).(*corev1.Node).DeepCopy()
				n.Spec.Taints = nil
				b.update("nodes", n, "")
			},
		},
		"the pod tolerates": {
			help: func(b *bench) {
				p := b.get("a").DeepCopy()
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists})
				b.update("pods", p, "")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.node("n", 2)
				b.node("tainted", 2, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} })
				b.node("cordoned", 2, func(n *corev1.Node) { n.Spec.Unschedulable = true })
				if c.pod != nil {
					b.node("roomy", 2)
				}
				b.pod("old", "2", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
				b.start()
				var change []func(*corev1.Pod)
				if c.pod != nil {
					change = append(change, c.pod)
				}
				b.pod("a", "1", change...)
				b.wantNode("a", "")
				// Nothing of this helps.
				b.told()
				b.node("small", 0)
				b.create("configmaps", requesttest.ConfigMap("x"))
				b.wantTold()
				b.wantAtOnce(func() { c.help(b) })
				if b.get("a").Spec.NodeName == "" {
					t.Errorf("the pod was not tried again; told %q", b.told())
				}
			})
		})
	}
}

// After five minutes a pod is tried again though nothing seems to help.
func TestPatience(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.start()
		b.pod("a", "2")
		b.told()
		b.pass(patience - time.Second)
		b.wantTold()
		b.pass(2 * time.Second)
		if len(b.told()) != 1 {
			t.Error("the pod was not tried again")
		}
	})
}

// A condition that says the same is not written again.
func TestWritesConditionOnce(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.start()
		b.pod("a", "2")
		version := b.get("a").ResourceVersion
		b.pass(3 * patience)
		if v := b.get("a").ResourceVersion; v != version {
			t.Errorf("version went from %s to %s", version, v)
		}
	})
}

// Of pods that wait, the one with the highest priority comes first, then the
// oldest.
func TestPriorityOrder(t *testing.T) {
	run(t, func(b *bench) {
		for i, priority := range []int32{0, 5, 0, 5} {
			b.pod(fmt.Sprintf("p%d", i), "1", prioritized(priority), func(p *corev1.Pod) {
				p.Spec.PreemptionPolicy = new(corev1.PreemptNever)
			})
		}
		b.start()
		b.node("n", 3)
		for name, node := range map[string]string{"p0": "n", "p1": "n", "p2": "", "p3": "n"} {
			b.wantNode(name, node)
		}
	})
}

// Many pods are bound in batches, never more than fit. Decisions do not wait for
// the API: what is decided while it is busy gathers.
func TestManyPods(t *testing.T) {
	run(t, func(b *bench) {
		var mu sync.Mutex
		var sizes []int
		busy := make(chan struct{})
		b.client.fail(func(w []client.Write) error {
			<-busy
			mu.Lock()
			defer mu.Unlock()
			if w[0].Bind != nil {
				sizes = append(sizes, len(w))
			}
			return nil
		}, nil)
		for i := range 500 {
			if _, err := b.client.Create(b.t.Context(), b.row("pods"), podOf(fmt.Sprintf("p%d", i), "100m"), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		b.start()
		b.node("a", 20)
		b.node("b", 20)
		close(busy)
		synctest.Wait()
		on := map[string]int{}
		for obj := range b.client.View().List(b.row("pods"), "") {
			on[obj.(*corev1.Pod).Spec.NodeName]++
		}
		// 110 pods fit on each: the nodes' own limit.
		if on["a"] != 110 || on["b"] != 110 {
			t.Errorf("pods by node: %v", on)
		}
		mu.Lock()
		defer mu.Unlock()
		if most := writersAtOnce + (220+writesAtOnce-1)/writesAtOnce; len(sizes) > most || slices.Max(sizes) > writesAtOnce {
			t.Errorf("batches of %v, want %d at most", sizes, most)
		}
	})
}

// A binding that is refused frees what was assumed, and the pod is tried again
// after its backoff.
func TestBindingFails(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.start()
		refusal := apierrors.NewForbidden(corev1.Resource("pods/binding"), "a", errors.New("for now"))
		b.client.fail(func(w []client.Write) error {
			if w[0].Bind != nil {
				return refusal
			}
			return nil
		}, nil)
		b.pod("a", "1")
		b.wantCondition("a", "SchedulerError", "binding rejected: "+refusal.Error())
		b.wantTold("Warning FailedScheduling a: binding rejected: " + refusal.Error())
		b.client.fail(nil, nil)
		b.pod("b", "1") // takes the room that a has left
		b.wantNode("b", "n")
		b.delete("pods", "default", "b")
		b.wantNode("a", "")
		b.pass(firstBackoff)
		b.wantNode("a", "n")
	})
}

// A binding that was written although the answer is an error is found out.
func TestBindingUnknown(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.start()
		b.client.fail(nil, func(w []client.Write) error {
			if w[0].Bind != nil {
				return apierrors.NewTimeoutError("too slow", 1)
			}
			return nil
		})
		b.pod("a", "1")
		b.wantNode("a", "n")
		b.wantTold("Normal Scheduled a: Successfully assigned default/a to n")
		b.pod("b", "1")
		b.wantNode("b", "")
	})
}

// A pod that somebody else binds, or deletes, is let go.
func TestSomebodyElseBinds(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.node("m", 1)
		b.start()
		b.client.fail(func(w []client.Write) error {
			if w[0].Bind == nil {
				return nil
			}
			_, err := b.client.Post(context.Background(), w[0].Ref, "binding", &corev1.Binding{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: w[0].Ref.Name},
				Target:     corev1.ObjectReference{Kind: "Node", Name: "n"},
			})
			return err
		}, nil)
		b.pod("a", "1")
		b.wantNode("a", "n")
		b.client.fail(nil, nil)
		b.pod("b", "1")
		b.wantNode("b", "m")
		b.pod("c", "1")
		b.wantNode("c", "")
	})
}

// Pods of a higher priority make room for themselves: the victims are told why
// and leave gracefully; the room is kept for who made it.
func TestPreemption(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 2)
		b.start()
		b.pod("low", "1", prioritized(1))
		b.pod("mid", "1", prioritized(5))
		b.told()
		b.pod("high", "1", prioritized(10))
		victim := b.get("low")
		c := podstate.Condition(victim, corev1.DisruptionTarget)
		if c == nil || c.Reason != "PreemptionByScheduler" || c.Message != "default-scheduler: preempting to accommodate a higher priority pod" {
			t.Errorf("the victim has the condition %+v", c)
		}
		if victim.DeletionTimestamp == nil || b.get("mid").DeletionTimestamp != nil {
			t.Error("the wrong pod goes")
		}
		if n := b.get("high").Status.NominatedNodeName; n != "n" {
			t.Errorf("high is nominated to %q", n)
		}
		b.wantCondition("high", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")
		told := b.told()
		slices.Sort(told)
		want := []string{
			"Normal Preempted low: Preempted by pod " + string(b.get("high").UID) + " on node n",
			"Warning FailedScheduling high: 0/1 nodes are available: 1 Insufficient cpu.",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told %q", told)
		}
		b.pod("thief", "1", prioritized(7))
		if b.get("mid").DeletionTimestamp == nil {
			t.Error("the thief does not make room of its own")
		}
		b.delete("pods", "default", "low")
		b.wantNode("high", "n")
		b.wantNode("thief", "")
		b.delete("pods", "default", "mid")
		b.wantNode("thief", "n")
		if n := b.get("high").Status.NominatedNodeName; n != "" {
			t.Errorf("high is still nominated to %q", n)
		}
	})
}

// "PodDisruptionBudget is supported, but not guaranteed".
func TestPreemptionSparesBudgets(t *testing.T) {
	run(t, func(b *bench) {
		budget := &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "default"},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}},
		}
		if _, err := b.client.Create(b.t.Context(), b.client.Registry().Must("policy", "poddisruptionbudgets"), budget, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		b.node("n", 2)
		b.start()
		b.pod("guarded", "1", prioritized(1), func(p *corev1.Pod) { p.Labels = map[string]string{"app": "guarded"} })
		b.pod("free", "1", prioritized(5))
		b.pod("high", "1", prioritized(10))
		if b.get("free").DeletionTimestamp == nil || b.get("guarded").DeletionTimestamp != nil {
			t.Error("the wrong pod goes")
		}
		b.pod("highest", "1", prioritized(20))
		if b.get("guarded").DeletionTimestamp == nil {
			t.Error("where there is no other way the budget is not broken")
		}
	})
}

// Who may not preempt says so.
func TestPreemptionPolicy(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.start()
		b.pod("low", "1", prioritized(1))
		b.pod("high", "1", prioritized(10), func(p *corev1.Pod) { p.Spec.PreemptionPolicy = new(corev1.PreemptNever) })
		b.wantCondition("high", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.")
	})
}

// A restarted scheduler keeps the promises that the API shows.
func TestRestartKeepsPromises(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.pod("low", "1", prioritized(1), func(p *corev1.Pod) { p.Spec.NodeName = "n" })
		b.pod("high", "1", prioritized(10))
		p := b.get("high").DeepCopy()
		p.Status.NominatedNodeName = "n"
		b.update("pods", p, "status")
		b.pod("other", "1", prioritized(5))
		b.start()
		b.delete("pods", "default", "low")
		b.wantNode("high", "n")
		b.wantNode("other", "")
	})
}

// Pods of a replica set or of a service are spread without asking.
func TestSpreadsOwned(t *testing.T) {
	run(t, func(b *bench) {
		b.create("services", &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, ClusterIP: "None"},
		})
		// Without the service, the large node would take all.
		b.node("large", 100)
		b.node("small", 2)
		b.start()
		for i := range 4 {
			b.pod(fmt.Sprintf("p%d", i), "100m", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} })
		}
		on := map[string]int{}
		for i := range 4 {
			on[b.get(fmt.Sprintf("p%d", i)).Spec.NodeName]++
		}
		if on["large"] != 2 || on["small"] != 2 {
			t.Errorf("pods by node: %v", on)
		}
	})
}

func TestExplain(t *testing.T) {
	run(t, func(b *bench) {
		b.node("n", 1)
		b.node("c", 2, func(n *corev1.Node) { n.Spec.Unschedulable = true })
		b.start()
		b.pod("a", "2")
		verdicts, err := b.s.Explain(b.t.Context(), api.Key{Namespace: "default", Name: "a"})
		if err != nil || len(verdicts) != 2 {
			t.Fatalf("explain gave %v, %v", verdicts, err)
		}
		got := strings.TrimSpace(fmt.Sprintln(verdicts[0].Node, verdicts[0].Refused, verdicts[0].Reasons, verdicts[1].Node, verdicts[1].Refused, verdicts[1].Reasons))
		if got != "c NodeUnschedulable [node(s) were unschedulable] n NodeResourcesFit [Insufficient cpu]" {
			t.Errorf("explain gave %s", got)
		}
		if _, err := b.s.Explain(b.t.Context(), api.Key{Namespace: "default", Name: "gone"}); !errors.Is(err, ErrNotPending) {
			t.Errorf("explain of nothing gave %v", err)
		}
	})
}
