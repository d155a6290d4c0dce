package request

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// evict is the hook that deletes a pod on behalf of somebody who may not simply
// delete it, if the pod's disruption budget can spare it:
//
//	pod ends anyway, or has not begun ──▶ delete
//	pod is not ready, and its budget lets such go ──▶ delete, if it still is so
//	otherwise ──▶ take one from the budget's allowance, then delete
func (h *Handler) evict(ctx context.Context, info *Info, _ api.Object, body runtime.Object, dryRun bool) (runtime.Object, error) {
	eviction := body.(*policyv1.Eviction)
	if eviction.Name != info.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	opts := eviction.DeleteOptions
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	if ptr.Deref(opts.IgnoreStoreReadErrorWithClusterBreakingPotential, false) {
		return nil, apierrors.NewInvalid(policyv1.SchemeGroupVersion.WithKind("Eviction").GroupKind(), info.Name, field.ErrorList{
			field.Invalid(field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential"), true, "can not be set for pod eviction, try after removing the option"),
		})
	}
	if dryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	main := *info
	main.Subresource = ""
	e := &evicting{h: h, info: &main, opts: opts}
	if err := e.run(ctx); err != nil {
		return nil, err
	}
	return success(http.StatusCreated), nil
}

// evicting is one eviction on its way.
type evicting struct {
	h    *Handler
	info *Info // of the pod
	opts *metav1.DeleteOptions
}

// evictionTries bounds how often a pod may change while it is being evicted.
const evictionTries = 20

func (e *evicting) run(ctx context.Context) error {
	given := e.opts.Preconditions != nil && e.opts.Preconditions.ResourceVersion != nil
	var pod *corev1.Pod
	for range evictionTries {
		obj, err := e.h.read(ctx, e.info, "")
		if err != nil {
			return err
		}
		pod = obj.(*corev1.Pod)
		ends := podEnds(pod)
		if !ends && pod.Status.Phase != corev1.PodPending {
			break
		}
		seen := pod.ResourceVersion
		if given || ends {
			seen = ""
		}
		if err = e.delete(ctx, seen); !apierrors.IsConflict(err) || given {
			return err
		}
	}
	budget, err := e.budgetOf(ctx, pod)
	if err != nil || budget == nil {
		if err != nil {
			return err
		}
		return e.delete(ctx, "")
	}
	if !ready(pod) && sparesUnready(budget) {
		// The pod must not have become ready meanwhile.
		err := e.delete(ctx, pod.ResourceVersion)
		if apierrors.IsConflict(err) && !given {
			return processing(budget.Name)
		}
		return err
	}
	if err := e.take(ctx, budget, pod); err != nil {
		return err
	}
	return e.delete(ctx, "")
}

// podEnds says whether a pod needs no protection, as nothing of it is left.
func podEnds(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// sparesUnready says whether a pod that is not ready may go without counting.
func sparesUnready(b *policyv1.PodDisruptionBudget) bool {
	return ptr.Deref(b.Spec.UnhealthyPodEvictionPolicy, policyv1.IfHealthyBudget) == policyv1.AlwaysAllow ||
		b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// budgetOf is the budget that selects a pod, or nil.
func (e *evicting) budgetOf(ctx context.Context, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	row := e.h.Registry.Must(policyv1.GroupName, "poddisruptionbudgets")
	list, err := e.h.Store.List(ctx, store.Query{Resource: row, Namespace: pod.Namespace}, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	for _, obj := range list.Items {
		b := obj.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		if found != nil {
			return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = b
	}
	return found, nil
}

// take notes in a budget that the pod goes, if it allows that. One that is noted
// already, by another eviction of it, costs nothing more.
func (e *evicting) take(ctx context.Context, budget *policyv1.PodDisruptionBudget, pod *corev1.Pod) error {
	status := &Info{
		User: e.info.User, Verb: "update", Namespace: budget.Namespace, Name: budget.Name, Subresource: "status",
		Served: e.h.Registry.ByGVR(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")),
	}
	if len(e.opts.DryRun) > 0 {
		if e.taken(budget, pod) {
			return nil
		}
		return allows(budget)
	}
	_, err := e.h.update(ctx, status.ref(), func(cur api.Object) (store.Outcome, error) {
		if cur == nil {
			return store.Outcome{}, apierrors.NewNotFound(status.resource(), status.Name)
		}
		if e.taken(cur.(*policyv1.PodDisruptionBudget), pod) {
			return store.Outcome{Unchanged: true}, nil
		}
		next := cur.DeepCopyObject().(*policyv1.PodDisruptionBudget)
		if err := allows(next); err != nil {
			return store.Outcome{}, err
		}
		s := &next.Status
		if s.DisruptionsAllowed--; s.DisruptionsAllowed == 0 {
			now := e.h.now()
			meta.SetStatusCondition(&s.Conditions, metav1.Condition{
				Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
				ObservedGeneration: s.ObservedGeneration, LastTransitionTime: now,
			})
		}
		if s.DisruptedPods == nil {
			s.DisruptedPods = map[string]metav1.Time{}
		}
		s.DisruptedPods[pod.Name] = e.h.now()
		return store.Outcome{Object: next}, e.h.track(status, next, cur, "kube-apiserver")
	})
	return err
}

// takenFor is how long a budget holds a pod for gone that it has let go. After
// that its loop counts it again.
const takenFor = 2 * time.Minute

// taken says whether a budget has let this very pod go, and not another one of
// its name.
func (e *evicting) taken(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	at, ok := b.Status.DisruptedPods[pod.Name]
	return ok && at.After(pod.CreationTimestamp.Time) && e.h.now().Sub(at.Time) < takenFor
}

// maxDisrupted is how many evictions a budget may have whose end its loop has
// not seen.
const maxDisrupted = 2000

// allows refuses an eviction that a budget cannot spare, in Kubernetes' words.
func allows(b *policyv1.PodDisruptionBudget) error {
	s := &b.Status
	refuse := func(err *apierrors.StatusError, why string) error {
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s %s", b.Name, why),
		})
		return err
	}
	forbidden := func(why string) *apierrors.StatusError {
		return apierrors.NewForbidden(schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudget"}, b.Name, errors.New(why))
	}
	const refused = "does not allow evicting pods currently"
	switch {
	case s.ObservedGeneration < b.Generation:
		return processing(b.Name)
	case s.DisruptionsAllowed < 0:
		return refuse(forbidden("pdb disruptions allowed is negative"), refused+": pdb disruptions allowed is negative")
	case len(s.DisruptedPods) > maxDisrupted:
		return refuse(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"),
			refused+": too many pending evictions not confirmed by PDB controller")
	case s.DisruptionsAllowed > 0:
		return nil
	}
	why := refused
	c := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	told := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""
	switch {
	case told && c.Reason == policyv1.SyncFailedReason:
		why = fmt.Sprintf("%s because it failed sync: %s", refused, c.Message)
	case s.CurrentHealthy <= s.DesiredHealthy:
		why = fmt.Sprintf("needs %d healthy pods and has %d currently", s.DesiredHealthy, s.CurrentHealthy)
	case told:
		why = fmt.Sprintf("%s (%s): %s", refused, c.Reason, c.Message)
	}
	return refuse(apierrors.NewTooManyRequests(overBudget, 0), why)
}

const overBudget = "Cannot evict pod as it would violate the pod's disruption budget."

// processing is the refusal while a budget's status is behind.
func processing(name string) error {
	err := apierrors.NewTooManyRequests(overBudget, 10)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s is still being processed by the server.", name),
	})
	return err
}

// delete deletes the pod, which says from then on why. seen, if not empty, is
// the only version of it that may go.
func (e *evicting) delete(ctx context.Context, seen string) error {
	if errs := validation.ValidateDeleteOptions(e.opts); len(errs) > 0 {
		return invalidOptions("DeleteOptions", errs)
	}
	d := &deletion{h: e.h, info: e.info, opts: e.opts.DeepCopy(), admitted: true}
	if seen != "" {
		if d.opts.Preconditions == nil {
			d.opts.Preconditions = &metav1.Preconditions{}
		}
		d.opts.Preconditions.ResourceVersion = &seen
	}
	if len(d.opts.DryRun) == 0 {
		obj, err := e.h.update(ctx, e.info.ref(), func(cur api.Object) (store.Outcome, error) {
			if cur == nil {
				return store.Outcome{}, apierrors.NewNotFound(e.info.resource(), e.info.Name)
			}
			if err := d.checkPreconditions(cur); err != nil {
				return store.Outcome{}, err
			}
			next := cur.DeepCopyObject().(*corev1.Pod)
			if !target(next, e.h.now()) {
				return store.Outcome{Unchanged: true}, nil
			}
			return store.Outcome{Object: next}, nil
		})
		if err != nil {
			return err
		}
		if p := d.opts.Preconditions; p != nil && p.ResourceVersion != nil {
			p.ResourceVersion = ptr.To(obj.GetResourceVersion())
		}
	}
	_, err := d.write(ctx)
	return err
}

// target gives a pod the condition of one that is evicted; it reports whether
// that changed anything.
func target(pod *corev1.Pod, now metav1.Time) bool {
	want := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting", LastTransitionTime: now}
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type != want.Type {
			continue
		}
		if c.Status == want.Status {
			want.LastTransitionTime = c.LastTransitionTime
		}
		want.LastProbeTime, want.ObservedGeneration = c.LastProbeTime, c.ObservedGeneration
		same := *c == want
		*c = want
		return !same
	}
	pod.Status.Conditions = append(pod.Status.Conditions, want)
	return true
}
