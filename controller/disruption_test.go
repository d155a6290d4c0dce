package controller_test

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/disruption"
	"hansa.dev/hansa/internal/podstate"
)

func disruptions(c client.Interface, r events.Recorder) controller.Loop { return disruption.New(c, r) }

func aBudget(name, app string, change func(*policyv1.PodDisruptionBudgetSpec)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: policyv1.PodDisruptionBudgetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
	}}
	change(&b.Spec)
	return b
}

func atLeast(s string) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(spec *policyv1.PodDisruptionBudgetSpec) { spec.MinAvailable = ptr.To(intstr.Parse(s)) }
}

func atMost(s string) func(*policyv1.PodDisruptionBudgetSpec) {
	return func(spec *policyv1.PodDisruptionBudgetSpec) { spec.MaxUnavailable = ptr.To(intstr.Parse(s)) }
}

func (w *world) budget(name string) policyv1.PodDisruptionBudgetStatus {
	w.Helper()
	b := get[*policyv1.PodDisruptionBudget](w, "default", name)
	if b.Status.ObservedGeneration != b.Generation {
		w.Errorf("budget %s of generation %d was seen in %d", name, b.Generation, b.Status.ObservedGeneration)
	}
	return b.Status
}

// allows checks how many pods a budget lets go, and what it says of that.
func (w *world) allows(name string, want int32, reason string) {
	w.Helper()
	s := w.budget(name)
	c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	if s.DisruptionsAllowed != want || c == nil || c.Reason != reason {
		w.Errorf("budget %s: %+v", name, s)
	}
}

func (w *world) evict(p *corev1.Pod) error {
	_, err := w.api.Post(w.Context(), api.RefTo(w.row(p), p), "eviction", &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}})
	return err
}

func guarded(t *testing.T) *world {
	w := workloads(t)
	w.run(disruptions)
	return w
}

// Documentation: "Specifying a Disruption Budget for your Application".
func TestPodDisruptionBudget(t *testing.T) {
	w := guarded(t)
	create(w, aBudget("b", "web", atLeast("2")))
	w.settle()
	w.allows("b", 0, "InsufficientPods")
	w.said("Normal NoPods No matching pods found")
	create(w, aDeployment("web", 3))
	w.live()
	if s := w.budget("b"); s.CurrentHealthy != 3 || s.DesiredHealthy != 2 || s.ExpectedPods != 3 {
		t.Errorf("status = %+v", s)
	}
	w.allows("b", 1, "SufficientPods")
	w.rests()

	first, second := w.running()[0], w.running()[1]
	if err := w.evict(first); err != nil {
		t.Fatal(err)
	}
	if err := w.evict(second); !apierrors.IsTooManyRequests(err) {
		t.Errorf("the second one: %v", err)
	}
	if s := w.budget("b"); s.DisruptedPods[first.Name].Time.IsZero() || len(s.DisruptedPods) != 1 {
		t.Errorf("disrupted: %v", s.DisruptedPods)
	}
	w.settle()
	w.allows("b", 0, "InsufficientPods")
	if s := w.budget("b"); len(s.DisruptedPods) != 0 || s.CurrentHealthy != 2 {
		t.Errorf("status = %+v", s)
	}
	// As soon as another pod is in its place, the second one may go.
	w.live()
	w.allows("b", 1, "SufficientPods")
	if err := w.evict(second); err != nil {
		t.Error(err)
	}
	w.live()
	// Pods that are not ready are not counted.
	update(w, w.running()[0], "status", func(p *corev1.Pod) { setReady(p, false, w.stamp()) })
	w.settle()
	w.allows("b", 0, "InsufficientPods")
	// What the budget asks for may change.
	update(w, get[*policyv1.PodDisruptionBudget](w, "default", "b"), "", func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = ptr.To(intstr.FromInt32(1)) })
	w.settle()
	w.allows("b", 1, "SufficientPods")
	w.rests()
}

// Budgets in shares follow what the owners of their pods ask for, at once.
func TestBudgetFollowsScale(t *testing.T) {
	w := guarded(t)
	w.run(replication)
	create(w, aBudget("b", "web", atMost("50%")))
	create(w, aDeployment("web", 4))
	w.live()
	w.allows("b", 2, "SufficientPods")
	if s := w.budget("b"); s.ExpectedPods != 4 || s.DesiredHealthy != 2 {
		t.Errorf("status = %+v", s)
	}
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](6) })
	for _, d := range w.loops {
		if d.loop.Name() == disruption.Name {
			for len(d.ready) > 0 {
				d.step()
			}
		}
	}
	if s := w.budget("b"); s.ExpectedPods != 6 || s.DesiredHealthy != 3 || s.DisruptionsAllowed != 1 {
		t.Errorf("before there are more pods: %+v", s)
	}
	w.live()
	// While it rolls, pods of both sets are of one owner.
	w.setImage("web", "two")
	w.settle()
	if s := w.budget("b"); s.ExpectedPods != 6 {
		t.Errorf("while it rolls: %+v", s)
	}
	w.live()

	// Several owners add up; pods without one do not count.
	other := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}, Spec: corev1.ReplicationControllerSpec{
		Replicas: ptr.To[int32](2), Template: ptr.To(template(map[string]string{"app": "web", "of": "other"}, "one")),
	}}
	create(w, other)
	w.live()
	if s := w.budget("b"); s.ExpectedPods != 8 {
		t.Errorf("with another owner: %+v", s)
	}
	w.events = nil
	lone := aPod("lone", template(map[string]string{"app": "web"}, "one"))
	w.live()
	w.runs(create(w, lone))
	w.settle()
	if s := w.budget("b"); s.ExpectedPods != 8 || s.CurrentHealthy != 9 {
		t.Errorf("with a pod that nobody owns: %+v", s)
	}
	w.rests()
}

// Pods that no scale stands behind cannot be counted in shares.
func TestBudgetOfPodsWithoutScale(t *testing.T) {
	w := guarded(t)
	w.run(jobs)
	j := aJob("pi", 2, 2)
	j.Spec.Template.Labels = map[string]string{"app": "pi"}
	create(w, j)
	create(w, aBudget("b", "pi", atMost("1")))
	w.live()
	b := get[*policyv1.PodDisruptionBudget](w, "default", "b")
	c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
	const why = "jobs.batch does not implement the scale subresource"
	if b.Status.DisruptionsAllowed != 0 || c == nil || c.Reason != policyv1.SyncFailedReason || c.Message != why {
		t.Errorf("status = %+v", b.Status)
	}
	w.said("Warning CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: " + why)
	w.rests()
	// A number of pods does not ask for their owners.
	create(w, aBudget("c", "pi", atLeast("1")))
	w.settle()
	w.allows("c", 1, "SufficientPods")

	lone := aPod("lone", template(map[string]string{"app": "lone"}, "one"))
	lone.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Gadget", Name: "g", UID: "g", Controller: ptr.To(true)}}
	create(w, lone)
	create(w, aBudget("d", "lone", atMost("1")))
	w.settle()
	w.said(`no matches for kind "Gadget" in version "example.com/v1"`)
	free := aPod("free", template(map[string]string{"app": "free"}, "one"))
	create(w, free)
	create(w, aBudget("e", "free", atMost("1")))
	w.settle()
	w.said("Warning UnmanagedPods Pods selected by this PodDisruptionBudget")
}

// "If the pod is not deleted …": an eviction that came to nothing is forgotten
// after two minutes, and its pod's mark as well.
func TestEvictionThatCameToNothing(t *testing.T) {
	w := guarded(t)
	create(w, aBudget("b", "web", atLeast("1")))
	create(w, aDeployment("web", 2))
	w.live()
	p := w.running()[0]
	b := get[*policyv1.PodDisruptionBudget](w, "default", "b")
	update(w, b, "status", func(b *policyv1.PodDisruptionBudget) {
		b.Status.DisruptionsAllowed, b.Status.DisruptedPods = 0, map[string]metav1.Time{p.Name: w.stamp()}
	})
	update(w, p, "status", func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting", LastTransitionTime: w.stamp()})
	})
	w.pass(119 * time.Second)
	w.allows("b", 0, "InsufficientPods")
	if c := podstate.Condition(w.pod(p.Name), corev1.DisruptionTarget); c.Status != corev1.ConditionTrue {
		t.Errorf("condition = %+v", c)
	}
	w.pass(2 * time.Second)
	w.allows("b", 1, "SufficientPods")
	w.said("Warning NotDeleted Pod was expected by PDB default/b to be deleted but it wasn't")
	if c := podstate.Condition(w.pod(p.Name), corev1.DisruptionTarget); c.Status != corev1.ConditionFalse || c.Reason != "" {
		t.Errorf("condition = %+v", c)
	}
	w.rests()
}

func TestPodOfSeveralBudgets(t *testing.T) {
	w := guarded(t)
	create(w, aBudget("a", "web", atLeast("1")))
	create(w, aBudget("b", "web", atMost("1")))
	create(w, aDeployment("web", 2))
	w.live()
	w.allows("a", 1, "SufficientPods")
	w.allows("b", 1, "SufficientPods")
	w.said("Warning MultiplePodDisruptionBudgets Pod \"default\"/\"web-", "matches multiple PodDisruptionBudgets.  Chose \"a\" arbitrarily.")
	if err := w.evict(w.running()[0]); err == nil || apierrors.ReasonForError(err) == metav1.StatusReasonTooManyRequests {
		t.Errorf("eviction: %v", err)
	}
}

// However evictions, the loop, and deaths of its process fall, no more pods go
// than the budget can spare.
func TestEvictionsKeepTheBudget(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := newWorldIn(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		w.run(deployments)
		w.run(replicaSets)
		loop := w.run(disruptions)
		replicas := rapid.Int32Range(1, 6).Draw(r, "replicas")
		least := rapid.Int32Range(0, replicas).Draw(r, "least")
		create(w, aDeployment("web", replicas))
		w.live()
		b := aBudget("b", "web", func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = ptr.To(intstr.FromInt32(least)) })
		if rapid.Bool().Draw(r, "by max") {
			b = aBudget("b", "web", func(s *policyv1.PodDisruptionBudgetSpec) {
				s.MaxUnavailable = ptr.To(intstr.FromInt32(replicas - least))
			})
		}
		create(w, b)
		healthy := func() (n int32) {
			for _, p := range w.running() {
				if podstate.Ready(p) {
					n++
				}
			}
			return n
		}
		r.Repeat(map[string]func(*rapid.T){
			"evict": func(r *rapid.T) {
				if pods := w.running(); len(pods) > 0 {
					p := pods[rapid.IntRange(0, len(pods)-1).Draw(r, "pod")]
					if err := w.evict(p); err != nil && !apierrors.IsTooManyRequests(err) {
						r.Fatalf("evict %s: %v", p.Name, err)
					}
				}
			},
			"step": func(r *rapid.T) {
				var busy []*driver
				for _, d := range w.loops {
					if len(d.ready) > 0 {
						busy = append(busy, d)
					}
				}
				if len(busy) > 0 {
					busy[rapid.IntRange(0, len(busy)-1).Draw(r, "which")].step()
				}
			},
			"agent": func(*rapid.T) { w.agent() },
			"crash": func(r *rapid.T) {
				loop.client.dieAt(rapid.IntRange(0, 2).Draw(r, "write"), rapid.Bool().Draw(r, "after"))
			},
			"time": func(r *rapid.T) { w.clock.Step(time.Duration(rapid.IntRange(1, 50).Draw(r, "seconds")) * time.Second) },
			"": func(r *rapid.T) {
				if n := healthy(); n < least {
					r.Fatalf("%d pods are healthy, %d must be", n, least)
				}
			},
		})
		loop.restart()
		w.live()
		if s := w.budget("b"); s.CurrentHealthy != replicas || s.DesiredHealthy != least || s.DisruptionsAllowed != replicas-least {
			r.Errorf("in the end: %+v", s)
		}
	})
}
