package work

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// finish deletes the object: the pod has ended and its node holds nothing for
// it any more. The status that says how it ended is written first. The UID is a
// precondition, for a pod of the same name may have come.
func (w *Worker) finish() step {
	p := w.state.Pod
	w.report(w.node.Clock.Now())
	return func(ctx context.Context) (func(), error) {
		if err := w.node.Statuses.Flush(ctx, p.UID); err != nil {
			return nil, err
		}
		err := w.node.Client.Delete(ctx, api.RefTo(w.node.Pods, p), metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0),
			Preconditions:      &metav1.Preconditions{UID: &p.UID},
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil, nil // gone already
		}
		if err != nil {
			return nil, fmt.Errorf("delete pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		return nil, nil
	}
}

// remove takes away what is left of a pod that the API has no more.
func (w *Worker) remove() step {
	p := w.state.Pod
	var sandboxes []string
	if id := w.state.Sandbox.ID; id != "" {
		sandboxes = append(sandboxes, id)
	}
	for id := range w.state.Garbage {
		sandboxes = append(sandboxes, id)
	}
	var runs []string
	for _, c := range w.state.Containers {
		for _, r := range slices.Concat(c.Runs, c.Cut) {
			runs = append(runs, r.ID)
		}
	}
	return func(ctx context.Context) (func(), error) {
		// The logs first: who saw the pod go looks for them where they are kept.
		errs := []error{w.node.Logs.Take(p.Namespace, p.Name, string(p.UID))}
		for _, id := range runs {
			errs = append(errs, w.node.Runtime.RemoveContainer(ctx, id))
		}
		for _, id := range sandboxes {
			errs = append(errs, w.node.Runtime.RemoveSandbox(ctx, id))
		}
		errs = append(errs, w.node.Volumes.Remove(p.UID))
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		w.node.Users.Release(p.UID)
		return nil, nil
	}
}
