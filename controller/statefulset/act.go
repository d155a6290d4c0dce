package statefulset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/revision"
)

// act carries out a decision: first what claims and adopted pods need, then
// creations, then removals.
func (l *Loop) act(ctx context.Context, s *snapshot, d decision, history []*appsv1.ControllerRevision) error {
	if s.set.DeletionTimestamp != nil {
		return nil
	}
	if err := l.identify(ctx, s); err != nil {
		return err
	}
	if err := l.keepClaims(ctx, s); err != nil {
		return err
	}
	_, err := controller.SlowStart(ctx, len(d.create), func(ctx context.Context, i int) error {
		return l.create(ctx, s, d.create[i], history)
	})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // the namespace takes the set along
	}
	if err != nil {
		return err
	}
	return controller.AtOnce(ctx, len(d.remove), func(ctx context.Context, i int) error { return l.remove(ctx, s, d.remove[i]) })
}

// tell notes an event about what was done to a pod, in the words of Kubernetes.
func (l *Loop) tell(set *appsv1.StatefulSet, verb, pod string, err error) {
	about := events.About(kind, set, "")
	if err != nil {
		l.events.Event(about, corev1.EventTypeWarning, "Failed"+verb, fmt.Sprintf("%s Pod %s in StatefulSet %s failed error: %v", verb, pod, set.Name, err))
		return
	}
	l.events.Event(about, corev1.EventTypeNormal, "Successful"+verb, fmt.Sprintf("%s Pod %s in StatefulSet %s successful", verb, pod, set.Name))
}

// identify gives adopted pods the labels that they lack.
func (l *Loop) identify(ctx context.Context, s *snapshot) error {
	for _, m := range s.inside {
		patch, err := identityPatch(m)
		if err != nil {
			return err
		}
		if patch == nil {
			continue
		}
		_, err = l.client.Patch(ctx, api.RefTo(l.pods, m.pod), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "")
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			continue // deleted, or made anew
		}
		if l.tell(s.set, "Update", m.pod.Name, err); err != nil {
			return fmt.Errorf("label pod %s/%s: %w", m.pod.Namespace, m.pod.Name, err)
		}
	}
	return nil
}

// keepClaims makes claims that pods wait for, and gives claims the owners that
// the retention policy asks for.
func (l *Loop) keepClaims(ctx context.Context, s *snapshot) error {
	for _, m := range s.inside {
		if m.pod.Status.Phase == corev1.PodPending && !going(m.pod) {
			if err := l.createClaims(ctx, s, m.pod.Name); err != nil {
				return err
			}
		}
	}
	for _, r := range s.retain() {
		if r.conflict {
			l.events.Event(events.About(kind, s.set, ""), corev1.EventTypeWarning, "ConflictingController",
				fmt.Sprintf("PersistentVolumeClaim %s has another controller: the retention policy does not apply to it", r.claim.Name))
		}
		claim := r.claim.DeepCopy()
		claim.OwnerReferences = r.owners
		if _, err := l.client.Update(ctx, l.claims, claim, ""); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("owners of claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	return nil
}

// createClaims makes those claims of a pod that are not there.
func (l *Loop) createClaims(ctx context.Context, s *snapshot, pod string) error {
	for _, claim := range newClaims(s.set, pod) {
		switch had := s.claims(claim.Name); {
		case had == nil:
		case going(had):
			return fmt.Errorf("claim %s is being deleted", claim.Name)
		default:
			continue
		}
		_, err := l.client.Create(ctx, l.claims, claim, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return err
		}
		about := events.About(kind, s.set, "")
		if err != nil {
			l.events.Event(about, corev1.EventTypeWarning, "FailedCreate", fmt.Sprintf("Create Claim %s for Pod %s in StatefulSet %s failed error: %v", claim.Name, pod, s.set.Name, err))
			return fmt.Errorf("create claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		l.events.Event(about, corev1.EventTypeNormal, "SuccessfulCreate", fmt.Sprintf("Create Claim %s Pod %s in StatefulSet %s success", claim.Name, pod, s.set.Name))
	}
	return nil
}

// create makes the pod of an ordinal, and its claims before it.
func (l *Loop) create(ctx context.Context, s *snapshot, ordinal int, history []*appsv1.ControllerRevision) error {
	name := podName(s.set, ordinal)
	template, of := &s.set.Spec.Template, s.revisionFor(ordinal)
	if of != s.update {
		var err error
		if template, err = revision.Template(find(history, of)); err != nil {
			return err
		}
	}
	err := l.createClaims(ctx, s, name)
	if err == nil {
		_, err = l.client.Create(ctx, l.pods, newPod(s.set, template, of, ordinal), metav1.CreateOptions{})
	}
	if apierrors.IsAlreadyExists(err) {
		if obstacle := l.client.View().Get(l.pods, api.Key{Namespace: s.set.Namespace, Name: name}); obstacle != nil {
			if !predecessor(s.set, obstacle) {
				l.tell(s.set, "Create", name, err)
			}
			return nil // the end of that pod wakes us
		}
	}
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		l.tell(s.set, "Create", name, err)
	}
	return err
}

// predecessor says whether a pod belongs to a set that had this one's name, and
// goes with it.
func predecessor(set *appsv1.StatefulSet, pod metav1.Object) bool {
	ref := metav1.GetControllerOfNoCopy(pod)
	return ref != nil && names(*ref, kind, set.Name) && ref.UID != set.UID
}

func (l *Loop) remove(ctx context.Context, s *snapshot, r removal) error {
	p := r.pod
	only := &metav1.Preconditions{UID: &p.UID}
	if r.why != "" {
		only.ResourceVersion = &p.ResourceVersion // it may have become ready
	}
	err := l.client.Delete(ctx, api.RefTo(l.pods, p), metav1.DeleteOptions{Preconditions: only})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if apierrors.IsConflict(err) {
		return err
	}
	if err == nil && r.why != "" {
		l.events.Event(events.About(kind, s.set, ""), corev1.EventTypeNormal, "ReplacingPod", s.message(r))
	}
	l.tell(s.set, "Delete", p.Name, err)
	return err
}
