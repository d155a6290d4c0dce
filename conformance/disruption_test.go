package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

// guard makes a budget for pods labelled app=guarded.
func guard(t *testing.T, ns string, spec policyv1.PodDisruptionBudgetSpec) {
	t.Helper()
	spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: spec}
	if _, err := kube.PolicyV1().PodDisruptionBudgets(ns).Create(t.Context(), b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func reguard(t *testing.T, ns string, change func(*policyv1.PodDisruptionBudgetSpec)) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		b, err := kube.PolicyV1().PodDisruptionBudgets(ns).Get(t.Context(), "b", metav1.GetOptions{})
		if err == nil {
			change(&b.Spec)
			_, err = kube.PolicyV1().PodDisruptionBudgets(ns).Update(t.Context(), b, metav1.UpdateOptions{})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// guarded makes a pod that a node is said to run, and that is said to be ready.
func guarded(t *testing.T, ns, node, name string, owners ...metav1.OwnerReference) {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "guarded"}, OwnerReferences: owners},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if _, err := kube.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, name, "status"), contentType: mergePatch,
		body: `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`}, nil)
}

// counted waits until the budget's status is as wanted.
func counted(t *testing.T, ns string, expected, desired, healthy, allowed int32, reason string) {
	t.Helper()
	var b *policyv1.PodDisruptionBudget
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the budget's status is %+v", b.Status)
		}
	})
	eventually(t, fmt.Sprintf("%d of %d pods are healthy, %d must be", healthy, expected, desired), func() bool {
		var err error
		if b, err = kube.PolicyV1().PodDisruptionBudgets(ns).Get(t.Context(), "b", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		s := b.Status
		c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
		return s.ObservedGeneration == b.Generation && s.ExpectedPods == expected && s.DesiredHealthy == desired && s.CurrentHealthy == healthy &&
			s.DisruptionsAllowed == allowed && c != nil && c.Reason == reason
	})
}

func evict(t *testing.T, ns, name string) error {
	t.Helper()
	return kube.CoreV1().Pods(ns).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// "Specifying a Disruption Budget": its status is computed; an eviction is blocked
// until the budget allows it, and marks the pod.
func TestDisruptionBudget(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	guard(t, ns, policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(2))})
	counted(t, ns, 0, 2, 0, 0, "InsufficientPods")
	guarded(t, ns, node, "one")
	guarded(t, ns, node, "two")
	counted(t, ns, 2, 2, 2, 0, "InsufficientPods")
	err := evict(t, ns, "one")
	var s *apierrors.StatusError
	if !errors.As(err, &s) || s.ErrStatus.Code != http.StatusTooManyRequests || len(s.ErrStatus.Details.Causes) != 1 ||
		s.ErrStatus.Details.Causes[0].Type != policyv1.DisruptionBudgetCause || s.ErrStatus.Details.Causes[0].Message != "The disruption budget b needs 2 healthy pods and has 2 currently" {
		t.Errorf("eviction: %v", err)
	}
	reguard(t, ns, func(s *policyv1.PodDisruptionBudgetSpec) { s.MinAvailable = ptr.To(intstr.Parse("1")) })
	counted(t, ns, 2, 1, 2, 1, "SufficientPods")
	if err := evict(t, ns, "one"); err != nil {
		t.Fatal(err)
	}
	one, err := kube.CoreV1().Pods(ns).Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var mark corev1.PodCondition
	for _, c := range one.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			mark = c
		}
	}
	if one.DeletionTimestamp == nil || mark.Status != "True" || mark.Reason != "EvictionByEvictionAPI" || mark.Message != "Eviction API: evicting" {
		t.Errorf("the evicted pod has %+v", mark)
	}
	counted(t, ns, 2, 1, 1, 0, "InsufficientPods")
	// A status of somebody else's is put right.
	admin.want(t, http.StatusOK, call{method: "PATCH", path: under("policy/v1", "poddisruptionbudgets", ns, "b", "status"), contentType: mergePatch,
		body: `{"status":{"currentHealthy":9,"disruptionsAllowed":8}}`}, nil)
	counted(t, ns, 2, 1, 1, 0, "InsufficientPods")
	// What is wrong with two budgets is not that of a pod.
	two := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "everything"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}}}
	if _, err := kube.PolicyV1().PodDisruptionBudgets(ns).Create(t.Context(), two, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	admin.do(t, call{method: "POST", path: at("pods", ns, "two", "eviction"), body: "{apiVersion: policy/v1, kind: Eviction, metadata: {name: two}}"}).
		refused(t, http.StatusInternalServerError, "", "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
}

// "Unhealthy Pod Eviction Policy".
func TestUnhealthyPodEvictionPolicy(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	guard(t, ns, policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(2))})
	for _, name := range []string{"one", "two", "sick"} {
		guarded(t, ns, node, name)
	}
	sicken := func(name string) {
		admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, name, "status"), contentType: mergePatch,
			body: `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`}, nil)
	}
	sicken("sick")
	counted(t, ns, 3, 2, 2, 0, "InsufficientPods")
	if err := evict(t, ns, "sick"); err != nil {
		t.Errorf("with enough others (IfHealthyBudget): %v", err)
	}
	sicken("two")
	counted(t, ns, 3, 2, 1, 0, "InsufficientPods")
	if err := evict(t, ns, "two"); !apierrors.IsTooManyRequests(err) {
		t.Errorf("without enough others (IfHealthyBudget): %v", err)
	}
	reguard(t, ns, func(s *policyv1.PodDisruptionBudgetSpec) { s.UnhealthyPodEvictionPolicy = ptr.To(policyv1.AlwaysAllow) })
	counted(t, ns, 3, 2, 1, 0, "InsufficientPods")
	if err := evict(t, ns, "two"); err != nil {
		t.Errorf("without enough others (AlwaysAllow): %v", err)
	}
	if err := evict(t, ns, "one"); !apierrors.IsTooManyRequests(err) {
		t.Errorf("the healthy one: %v", err)
	}
}

// "Arbitrary workloads and arbitrary selectors": an owner of any kind that has the
// scale subresource says how many pods there should be.
func TestDisruptionBudgetOfCustomResource(t *testing.T) {
	ns, node, gvr := namespace(t), ghost(t), define(t, gadget)
	gadgets := dynamicClient(t).Resource(gvr).Namespace(ns)
	owner, err := gadgets.Create(t.Context(), gadgetNamed(gvr, "g", map[string]any{"replicas": int64(4)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ref := *metav1.NewControllerRef(owner, gvr.GroupVersion().WithKind("Gadget"))
	guard(t, ns, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromString("50%"))})
	for _, name := range []string{"one", "two", "three"} {
		guarded(t, ns, node, name, ref)
	}
	counted(t, ns, 4, 2, 3, 1, "SufficientPods")
	if _, err := gadgets.Patch(t.Context(), "g", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{}, "scale"); err != nil {
		t.Fatal(err)
	}
	counted(t, ns, 2, 1, 3, 2, "SufficientPods")
	undefine(t, gvr.Group)
	eventually(t, "the budget cannot be counted", func() bool {
		b, err := kube.PolicyV1().PodDisruptionBudgets(ns).Get(t.Context(), "b", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
		return c.Reason == policyv1.SyncFailedReason && b.Status.DisruptionsAllowed == 0
	})
}
