// Package ttl deletes jobs a while after they finished, when they ask for that
// (ttlSecondsAfterFinished).
package ttl

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Loop is the TTL-after-finished controller.
type Loop struct {
	client client.Interface
	jobs   *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	return &Loop{client: c, jobs: c.Registry().Must("batch", "jobs")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "ttl-after-finished-controller" }

// Sources are the jobs that have an end to their life.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{{Resource: l.jobs, Keys: func(_, new api.Object) []api.Key {
		if new == nil {
			return nil
		}
		if _, ok := expires(new.(*batchv1.Job)); !ok {
			return nil
		}
		return []api.Key{{Namespace: new.GetNamespace(), Name: new.GetName()}}
	}}}
}

// Step deletes a job whose time is over, together with its pods. The job must
// still be the very one that was looked at: its time may have been extended.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	j, ok := l.client.View().Get(l.jobs, key).(*batchv1.Job)
	if !ok {
		return 0, nil
	}
	end, ok := expires(j)
	if !ok {
		return 0, nil
	}
	if left := end.Sub(now); left > 0 {
		return left, nil
	}
	foreground := metav1.DeletePropagationForeground
	err := l.client.Delete(ctx, api.RefTo(l.jobs, j), metav1.DeleteOptions{
		PropagationPolicy: &foreground,
		Preconditions:     &metav1.Preconditions{UID: &j.UID, ResourceVersion: &j.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("delete finished job %s: %w", key, err)
	}
	return 0, nil
}

// expires is when a job's life ends, if it has finished and its life has an end.
func expires(j *batchv1.Job) (time.Time, bool) {
	if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return time.Time{}, false
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			if c.LastTransitionTime.IsZero() {
				return time.Time{}, false // nobody knows when it finished
			}
			return c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second), true
		}
	}
	return time.Time{}, false
}
