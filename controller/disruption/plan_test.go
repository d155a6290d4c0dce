package disruption

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

// someHealthy are n pods of which the first are ready.
func someHealthy(ready, n int) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range n {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
		if i < ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		pods = append(pods, p)
	}
	return pods
}

func minAvailable(s string) policyv1.PodDisruptionBudgetSpec {
	return policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.Parse(s))}
}

func maxUnavailable(s string) policyv1.PodDisruptionBudgetSpec {
	return policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.Parse(s))}
}

// Documentation: "Specifying a Disruption Budget for your Application", "Think
// about how your application reacts to disruptions", "Rounding logic when
// specifying percentages".
func TestBudgetsInNumbersAndPercents(t *testing.T) {
	for _, c := range []struct {
		name                        string
		spec                        policyv1.PodDisruptionBudgetSpec
		ready, pods                 int
		scale                       int32
		expected, desired, mayBeOut int32
	}{
		{"a number that must stay", minAvailable("2"), 3, 4, 0, 4, 2, 1},
		{"all must stay", minAvailable("100%"), 4, 4, 4, 4, 4, 0},
		{"half, rounded up", minAvailable("50%"), 7, 7, 7, 7, 4, 3},
		{"a number that may go", maxUnavailable("1"), 3, 3, 3, 3, 2, 1},
		{"a number that may go, of which one is missing", maxUnavailable("1"), 2, 2, 3, 3, 2, 0},
		{"a share that may go, rounded up", maxUnavailable("30%"), 7, 7, 7, 7, 4, 3},
		{"more may go than there are", maxUnavailable("9"), 2, 3, 3, 3, 0, 2},
		{"none may go", maxUnavailable("0"), 3, 3, 3, 3, 3, 0},
		{"pods that nobody owns, in shares", maxUnavailable("50%"), 2, 2, 0, 0, 0, 0},
		{"no pods", minAvailable("0"), 0, 0, 0, 0, 0, 0},
		{"too few", minAvailable("3"), 1, 3, 0, 3, 3, 0},
		{"neither", policyv1.PodDisruptionBudgetSpec{}, 2, 2, 0, 0, 0, 0},
	} {
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Spec: c.spec}
		v, err := plan(b, someHealthy(c.ready, c.pods), c.scale, now)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		allowed := metav1.Condition{Type: "DisruptionAllowed", Status: "False", Reason: "InsufficientPods", ObservedGeneration: 7, LastTransitionTime: ago(0)}
		if c.mayBeOut > 0 {
			allowed.Status, allowed.Reason = "True", "SufficientPods"
		}
		want := policyv1.PodDisruptionBudgetStatus{
			ObservedGeneration: 7, CurrentHealthy: int32(c.ready), DesiredHealthy: c.desired, ExpectedPods: c.expected, DisruptionsAllowed: c.mayBeOut,
			Conditions: []metav1.Condition{allowed},
		}
		if diff := cmp.Diff(want, v.status); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
	if _, err := plan(&policyv1.PodDisruptionBudget{Spec: maxUnavailable("x%")}, nil, 1, now); err == nil {
		t.Error("nonsense is counted")
	}
}

// A pod that a budget let go counts as gone until it is, or for two minutes.
func TestDisruptedPodsExpire(t *testing.T) {
	pods := someHealthy(4, 4)
	pods[0].DeletionTimestamp = ptr.To(ago(0))
	b := &policyv1.PodDisruptionBudget{Spec: minAvailable("1"), Status: policyv1.PodDisruptionBudgetStatus{
		DisruptedPods: map[string]metav1.Time{"p0": ago(time.Second), "p1": ago(30 * time.Second), "p2": ago(2 * time.Minute), "gone": ago(0)},
	}}
	v, err := plan(b, pods, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]metav1.Time{"p1": ago(30 * time.Second)}, v.status.DisruptedPods); diff != "" {
		t.Error(diff)
	}
	if v.status.CurrentHealthy != 2 || v.status.DisruptionsAllowed != 1 || v.after != 90*time.Second || len(v.late) != 1 || v.late[0].Name != "p2" {
		t.Errorf("healthy %d, allowed %d, after %s, late %v", v.status.CurrentHealthy, v.status.DisruptionsAllowed, v.after, v.late)
	}
}

// What cannot be counted lets nothing go, and says why.
func TestBudgetThatCannotBeCounted(t *testing.T) {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: maxUnavailable("1")}
	v, _ := plan(b, someHealthy(3, 3), 3, now)
	b.Status = v.status
	s := failed(b, errors.New("no crystal ball"), now)
	c := meta.FindStatusCondition(s.Conditions, "DisruptionAllowed")
	if s.DisruptionsAllowed != 0 || s.CurrentHealthy != 3 || c.Status != "False" || c.Reason != "SyncFailed" || c.Message != "no crystal ball" {
		t.Errorf("status = %+v", s)
	}
	if b.Status.DisruptionsAllowed != 1 {
		t.Error("the budget's own status was written to")
	}
	b.Status = s
	v, _ = plan(b, someHealthy(3, 3), 3, now)
	if c := meta.FindStatusCondition(v.status.Conditions, "DisruptionAllowed"); c.Reason != "SufficientPods" || c.Message != "" {
		t.Errorf("condition = %+v", c)
	}
}

func TestReplicasOfOwners(t *testing.T) {
	owned := func(name, uid string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if uid != "" {
			p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(uid), Controller: ptr.To(true)}}
		}
		return p
	}
	// Sets old and new are of one deployment of 5; other asks for 2.
	owner := func(_ *corev1.Pod, ref *metav1.OwnerReference) (scaled, error) {
		switch ref.UID {
		case "old", "new":
			return scaled{"deployment", 5}, nil
		case "other":
			return scaled{"other", 2}, nil
		case "odd":
			return scaled{}, errors.New("odd")
		}
		return scaled{}, nil
	}
	for _, c := range []struct {
		owners    []string
		want      int32
		unmanaged bool
		err       string
	}{
		{nil, 0, false, ""},
		{[]string{"old", "new", "new", "other"}, 7, false, ""},
		{[]string{"other", ""}, 2, true, ""},
		{[]string{"other", "missing"}, 0, false, `found no controllers for pod "p1"`},
		{[]string{"odd"}, 0, false, "odd"},
	} {
		var pods []*corev1.Pod
		for i, uid := range c.owners {
			pods = append(pods, owned(fmt.Sprintf("p%d", i), uid))
		}
		got, unmanaged, err := replicas(pods, owner)
		if got != c.want || unmanaged != c.unmanaged || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("%v: %d, %t, %v", c.owners, got, unmanaged, err)
		}
	}
}

// "DisruptionTarget" that nobody follows up is taken back after two minutes.
func TestStaleMarks(t *testing.T) {
	mark := func(change func(*corev1.Pod, *corev1.PodCondition)) *corev1.Pod {
		p := someHealthy(1, 1)[0]
		p.Generation = 3
		c := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "m", LastTransitionTime: ago(time.Minute)}
		change(p, &c)
		p.Status.Conditions = append(p.Status.Conditions, c)
		return p
	}
	for name, change := range map[string]func(*corev1.Pod, *corev1.PodCondition){
		"false":            func(_ *corev1.Pod, c *corev1.PodCondition) { c.Status = corev1.ConditionFalse },
		"by its node":      func(_ *corev1.Pod, c *corev1.PodCondition) { c.Reason = corev1.PodReasonTerminationByKubelet },
		"on its way":       func(p *corev1.Pod, _ *corev1.PodCondition) { p.DeletionTimestamp = ptr.To(ago(0)) },
		"ended":            func(p *corev1.Pod, _ *corev1.PodCondition) { p.Status.Phase = corev1.PodFailed },
		"of another thing": func(_ *corev1.Pod, c *corev1.PodCondition) { c.Type = "Other" },
	} {
		if yes, _ := marked(mark(change), now); yes {
			t.Errorf("%s: is marked", name)
		}
	}
	p := mark(func(*corev1.Pod, *corev1.PodCondition) {})
	if yes, left := marked(p, now); !yes || left != time.Minute {
		t.Errorf("marked %t for %s more", yes, left)
	}
	if yes, left := marked(p, now.Add(time.Hour)); !yes || left != 0 {
		t.Errorf("later marked %t for %s more", yes, left)
	}
	want := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse, LastTransitionTime: ago(0), ObservedGeneration: 3}
	if diff := cmp.Diff(want, unmark(p, now).Status.Conditions[1]); diff != "" {
		t.Error(diff)
	}
}

// Whatever goes by what a budget allows, one at a time, what must stay healthy
// stays; and a status that is computed again is the same.
func TestAllowanceNeverGoesTooFar(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(0, 12).Draw(r, "pods")
		pods := someHealthy(rapid.IntRange(0, n).Draw(r, "ready"), n)
		scale := int32(rapid.IntRange(0, 14).Draw(r, "scale"))
		bound := rapid.OneOf(rapid.Map(rapid.IntRange(0, 15), func(i int) string { return fmt.Sprint(i) }),
			rapid.Map(rapid.IntRange(0, 100), func(i int) string { return fmt.Sprintf("%d%%", i) })).Draw(r, "bound")
		spec := minAvailable(bound)
		if rapid.Bool().Draw(r, "max") {
			spec = maxUnavailable(bound)
		}
		b := &policyv1.PodDisruptionBudget{Spec: spec}
		healthyAtFirst := int32(-1)
		for range n + 1 {
			v, err := plan(b, pods, scale, now)
			if err != nil {
				r.Fatal(err)
			}
			s := v.status
			if healthyAtFirst < 0 {
				healthyAtFirst = s.CurrentHealthy
			}
			if s.CurrentHealthy < min(s.DesiredHealthy, healthyAtFirst) {
				r.Fatalf("%d are healthy of %d that must be", s.CurrentHealthy, s.DesiredHealthy)
			}
			b.Status = s
			again, _ := plan(b, pods, scale, now.Add(time.Minute))
			if diff := cmp.Diff(s, again.status); diff != "" {
				r.Fatalf("computed again:\n%s", diff)
			}
			if s.DisruptionsAllowed == 0 {
				return
			}
			// As the eviction does it, which may be followed by the deletion or not.
			p := pods[s.CurrentHealthy-1]
			for i := range pods {
				if _, out := s.DisruptedPods[pods[i].Name]; !out && pods[i].DeletionTimestamp == nil && i < int(healthyAtFirst) {
					p = pods[i]
				}
			}
			if b.Status.DisruptedPods == nil {
				b.Status.DisruptedPods = map[string]metav1.Time{}
			}
			b.Status.DisruptedPods[p.Name] = metav1.NewTime(now)
			if rapid.Bool().Draw(r, "deleted") {
				p.DeletionTimestamp = ptr.To(ago(0))
			}
		}
		r.Fatal("it never ends")
	})
}
