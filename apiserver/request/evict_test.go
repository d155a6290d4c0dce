package request_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// evicting is a cluster with the running pod "p", labelled app=web.
type evicting struct {
	fixture
	clock *testingclock.FakePassiveClock
}

func evictFixture(t *testing.T, ready bool) evicting {
	t.Helper()
	clock := testingclock.NewFakePassiveClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	f := evicting{newFixture(t, func(c *request.Config) { c.Clock = clock }), clock}
	pod := createIn(f.fixture, "v1", "pods", "default", &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}).DeepCopy()
	pod.Status.Phase = corev1.PodRunning
	state := corev1.ConditionFalse
	if ready {
		state = corev1.ConditionTrue
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: state}}
	f.status("v1", "pods", pod)
	return f
}

func (f fixture) status(version, plural string, obj api.Object) {
	f.t.Helper()
	info := requesttest.Info("update", version, plural, "default", obj.GetName())
	info.Subresource = "status"
	if _, _, err := f.Update(f.t.Context(), info, request.Body{Object: obj}, &metav1.UpdateOptions{}); err != nil {
		f.t.Fatal(err)
	}
}

// budget makes a budget for the pod, with a status.
func (f fixture) budget(name string, status policyv1.PodDisruptionBudgetStatus, change ...func(*policyv1.PodDisruptionBudgetSpec)) {
	f.t.Helper()
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
	}}
	for _, f := range change {
		f(&b.Spec)
	}
	b = createIn(f, "policy/v1", "poddisruptionbudgets", "default", b).DeepCopy()
	b.Status = status
	f.status("policy/v1", "poddisruptionbudgets", b)
}

func (f fixture) evict(opts *metav1.DeleteOptions) error { return f.evictNamed("p", opts) }

func (f fixture) evictNamed(name string, opts *metav1.DeleteOptions) error {
	info := requesttest.Info("create", "v1", "pods", "default", name)
	info.Subresource = "eviction"
	_, err := f.Create(f.t.Context(), info, request.Body{Object: &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}, DeleteOptions: opts}}, &metav1.CreateOptions{})
	return err
}

func (f fixture) evictedPod() *corev1.Pod {
	f.t.Helper()
	obj, err := f.Get(f.t.Context(), requesttest.Info("get", "v1", "pods", "default", "p"), &metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return obj.(*corev1.Pod)
}

// "API-initiated Eviction", "How API-initiated eviction works", and the words in
// which Kubernetes refuses.
func TestBudgetsRefuse(t *testing.T) {
	const over = "Cannot evict pod as it would violate the pod's disruption budget."
	failed := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: "why", LastTransitionTime: metav1.Now()}
	other := failed
	other.Reason = "Other"
	for _, c := range []struct {
		name         string
		status       policyv1.PodDisruptionBudgetStatus
		code, retry  int32
		message, why string
	}{
		{"not seen yet", policyv1.PodDisruptionBudgetStatus{}, 429, 10, over, "The disruption budget b is still being processed by the server."},
		{"too few", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DesiredHealthy: 2, CurrentHealthy: 1}, 429, 0, over, "The disruption budget b needs 2 healthy pods and has 1 currently"},
		{"not counted", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, Conditions: []metav1.Condition{failed}}, 429, 0, over, "The disruption budget b does not allow evicting pods currently because it failed sync: why"},
		{"said otherwise", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 2, DesiredHealthy: 1, Conditions: []metav1.Condition{other}}, 429, 0, over, "The disruption budget b does not allow evicting pods currently (Other): why"},
		{"plain", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 2, DesiredHealthy: 1}, 429, 0, over, "The disruption budget b does not allow evicting pods currently"},
	} {
		f := evictFixture(t, true)
		f.budget("b", c.status)
		err := f.evict(nil)
		s, ok := err.(apierrors.APIStatus)
		if !ok || s.Status().Code != c.code || s.Status().Message != c.message || s.Status().Details.RetryAfterSeconds != c.retry {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if causes := s.Status().Details.Causes; len(causes) != 1 || causes[0].Type != policyv1.DisruptionBudgetCause || causes[0].Message != c.why {
			t.Errorf("%s: causes are %+v", c.name, causes)
		}
		if f.evictedPod().DeletionTimestamp != nil {
			t.Errorf("%s: the pod goes", c.name)
		}
	}
	f := evictFixture(t, true)
	f.budget("a", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1})
	f.budget("b", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1})
	if err := f.evict(nil); err == nil || !strings.Contains(err.Error(), "more than one PodDisruptionBudget") {
		t.Errorf("two budgets: %v", err)
	}
}

func TestBudgetsAreSpent(t *testing.T) {
	f := evictFixture(t, true)
	f.budget("b", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2})
	budget := func() *policyv1.PodDisruptionBudget {
		t.Helper()
		obj, err := f.Get(t.Context(), requesttest.Info("get", "policy/v1", "poddisruptionbudgets", "default", "b"), &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return obj.(*policyv1.PodDisruptionBudget)
	}
	if err := f.evict(&metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil || budget().Status.DisruptionsAllowed != 1 || f.evictedPod().DeletionTimestamp != nil {
		t.Errorf("a dry run: %v", err)
	}
	if err := f.evict(nil); err != nil {
		t.Fatal(err)
	}
	s := budget().Status
	if _, noted := s.DisruptedPods["p"]; !noted || s.DisruptionsAllowed != 0 || len(s.Conditions) != 1 || s.Conditions[0].Reason != policyv1.InsufficientPodsReason {
		t.Errorf("the budget is left with %+v", s)
	}
	pod := f.evictedPod()
	evicted := func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "EvictionByEvictionAPI" && c.Message == "Eviction API: evicting"
	}
	if pod.DeletionTimestamp == nil || !slices.ContainsFunc(pod.Status.Conditions, evicted) {
		t.Errorf("the pod is %+v", pod.Status.Conditions)
	}
	// One that goes already costs nothing.
	if err := f.evict(nil); err != nil {
		t.Errorf("again: %v", err)
	}
}

// "Unhealthy Pod Eviction Policy": what is not ready counts only where the rest
// is not enough.
func TestBudgetsSpareUnready(t *testing.T) {
	always := func(s *policyv1.PodDisruptionBudgetSpec) {
		s.UnhealthyPodEvictionPolicy = ptr.To(policyv1.AlwaysAllow)
	}
	enough := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1}
	less := policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 0, DesiredHealthy: 1}
	f := evictFixture(t, false)
	f.budget("b", less)
	if err := f.evict(nil); !apierrors.IsTooManyRequests(err) {
		t.Errorf("with too few others: %v", err)
	}
	f = evictFixture(t, false)
	f.budget("b", enough)
	if err := f.evict(nil); err != nil {
		t.Errorf("with enough others: %v", err)
	}
	f = evictFixture(t, false)
	f.budget("b", less, always)
	if err := f.evict(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(types.UID("x"))}}); !apierrors.IsConflict(err) && !apierrors.IsTooManyRequests(err) {
		t.Errorf("of another UID: %v", err)
	}
	if err := f.evict(nil); err != nil {
		t.Errorf("always: %v", err)
	}
}

// However many ask at once for however few pods, each pod that goes was counted
// once, and no more go than the budget allows.
func TestEvictionsAtOnceAreCountedOnce(t *testing.T) {
	f := evictFixture(t, true)
	const pods, allowed, tries = 6, 3, 4
	name := func(i int) string { return "q" + string(rune('0'+i)) }
	for i := range pods {
		pod := createIn(f.fixture, "v1", "pods", "default", &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name(i), Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}).DeepCopy()
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		f.status("v1", "pods", pod)
	}
	f.clock.SetTime(f.clock.Now().Add(time.Minute))
	f.budget("b", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: allowed, CurrentHealthy: pods + 1, DesiredHealthy: pods + 1 - allowed, ExpectedPods: pods + 1})
	var asking sync.WaitGroup
	for range tries {
		for i := range pods {
			asking.Go(func() {
				if err := f.evictNamed(name(i), nil); err != nil && !apierrors.IsTooManyRequests(err) {
					t.Errorf("%s: %v", name(i), err)
				}
			})
		}
	}
	asking.Wait()
	going := map[string]bool{}
	for i := range pods {
		obj, err := f.Get(t.Context(), requesttest.Info("get", "v1", "pods", "default", name(i)), &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if obj.(*corev1.Pod).DeletionTimestamp != nil {
			going[name(i)] = true
		}
	}
	obj, err := f.Get(t.Context(), requesttest.Info("get", "policy/v1", "poddisruptionbudgets", "default", "b"), &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := obj.(*policyv1.PodDisruptionBudget).Status
	if len(going) != allowed || len(s.DisruptedPods) != allowed || s.DisruptionsAllowed != 0 {
		t.Errorf("%v go, of which the budget knows %v, and %d are left", going, s.DisruptedPods, s.DisruptionsAllowed)
	}
	for p := range s.DisruptedPods {
		if !going[p] {
			t.Errorf("%s was counted and stays", p)
		}
	}
}

// A pod that was counted and stays, as what should have deleted it failed, is not
// counted again; another one of its name is, and so is an old count.
func TestEvictionTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		noted time.Duration // since when the pod is noted, from its creation on
		age   time.Duration
		code  int32
	}{
		{"just now", time.Minute, 2 * time.Minute, 0},
		{"before this pod", -time.Second, time.Second, 429},
		{"long ago", time.Second, 2*time.Minute + time.Second, 429},
	} {
		f := evictFixture(t, true)
		made := f.evictedPod().CreationTimestamp
		f.clock.SetTime(made.Add(c.age))
		f.budget("b", policyv1.PodDisruptionBudgetStatus{
			ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1,
			DisruptedPods: map[string]metav1.Time{"p": metav1.NewTime(made.Add(c.noted))},
		})
		err := f.evict(&metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		if again := f.evict(nil); (err == nil) != (again == nil) {
			t.Errorf("%s: a dry run says %v, the eviction %v", c.name, err, again)
		}
		var code int32
		if s, ok := err.(apierrors.APIStatus); ok {
			code = s.Status().Code
		}
		if code != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// "API-initiated Eviction": what has not begun, or has ended, needs no budget.
func TestBudgetsAreNotAsked(t *testing.T) {
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed} {
		f := evictFixture(t, true)
		pod := f.evictedPod().DeepCopy()
		pod.Status.Phase = phase
		f.status("v1", "pods", pod)
		f.budget("b", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1})
		old := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: ptr.To("1")}}
		if err := f.evict(old); !apierrors.IsConflict(err) {
			t.Errorf("%s, of another version: %v", phase, err)
		}
		if err := f.evict(nil); err != nil {
			t.Errorf("%s: %v", phase, err)
		}
	}
}

func TestEvictionsThatAreRefused(t *testing.T) {
	f := evictFixture(t, true)
	if err := f.evict(&metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)}); !apierrors.IsInvalid(err) ||
		!strings.Contains(err.Error(), "can not be set for pod eviction, try after removing the option") {
		t.Errorf("an unsafe one: %v", err)
	}
	info := requesttest.Info("create", "v1", "pods", "default", "p")
	info.Subresource = "eviction"
	_, err := f.Create(t.Context(), info, request.Body{Object: &policyv1.Eviction{}}, &metav1.CreateOptions{})
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "name in URL does not match name in Eviction object") {
		t.Errorf("one without a name: %v", err)
	}
	if f.evictedPod().DeletionTimestamp != nil {
		t.Error("the pod goes")
	}
}
