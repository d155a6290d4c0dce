// Package job runs the pods of Jobs to their end: as many at once and in all as
// each Job asks for, again after failures as often as it allows.
//
// A step plans (pure, in the files plan*.go), acts on the pods, and writes the
// status; a job whose end is decided has that written first. Every step can be
// cut short after any write: the next one finds in the pods' finalizers and in
// the status what is left to do.
package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// Loop is the Job controller. Its keys are jobs, and stray pods (see strays.go).
type Loop struct {
	client client.Interface
	events events.Recorder
	jobs   *api.Resource
	pods   *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{client: c, events: recorder, jobs: c.Registry().Must("batch", "jobs"), pods: c.Registry().Must("", "pods")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "job-controller" }

// Sources are the jobs, and the pods that they have, might adopt, or left
// behind.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.jobs, Keys: l.keysOfJob},
		{Resource: l.pods, Keys: l.keysOfPod},
	}
}

// managed says whether a job is this loop's, and not that of a controller of
// the user's.
func managed(j *batchv1.Job) bool {
	return ptr.Deref(j.Spec.ManagedBy, batchv1.JobControllerName) == batchv1.JobControllerName
}

// Step takes one job further, or sets a stray pod free.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	if name, ok := strayPod(key); ok {
		return 0, l.free(ctx, name)
	}
	j, ok := l.client.View().Get(l.jobs, key).(*batchv1.Job)
	if !ok || !managed(j) || finished(j) {
		return 0, nil
	}
	pods, err := l.claim(ctx, j)
	if err != nil {
		return 0, err
	}
	d := plan(j, pods, now)
	var failed error
	if !d.ending && len(d.create)+len(d.remove) > 0 {
		failed = errors.Join(l.make(ctx, j, d.create), l.withdraw(ctx, j, d.remove))
		d = plan(j, l.owned(j), now) // what was written is in the view by now
	}
	if err := l.report(ctx, j, d.status); err != nil {
		return 0, err
	}
	if d.ending {
		failed = errors.Join(failed, l.end(ctx, j, d.remove))
	}
	failed = errors.Join(failed, l.release(ctx, d.release))
	return d.after, failed
}

// claim adopts and releases as the job's selector says, and answers with the
// job's pods.
func (l *Loop) claim(ctx context.Context, j *batchv1.Job) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of job %s/%s: %w", j.Namespace, j.Name, err)
	}
	candidates := controller.Candidates[*corev1.Pod](l.client.View(), l.pods, j)
	owner := controller.Owner{Resource: l.jobs, Kind: kind, Object: j, Finalizer: batchv1.JobTrackingFinalizer}
	return controller.Settle(ctx, l.client, owner, l.pods, controller.Claim(j, selector, candidates))
}

// owned are the pods that the job controls.
func (l *Loop) owned(j *batchv1.Job) []*corev1.Pod {
	return controller.Owned[*corev1.Pod](l.client.View(), l.pods, j)
}

func (l *Loop) say(j *batchv1.Job, kindOf, reason, message string) {
	l.events.Event(events.About(kind, j, ""), kindOf, reason, message)
}

// make creates pods.
func (l *Loop) make(ctx context.Context, j *batchv1.Job, create []creation) error {
	_, err := controller.SlowStart(ctx, len(create), func(ctx context.Context, i int) error {
		p, err := l.client.Create(ctx, l.pods, newPod(j, create[i]), metav1.CreateOptions{})
		if err != nil {
			if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				l.say(j, corev1.EventTypeWarning, "FailedCreate", "Error creating: "+err.Error())
			}
			return err
		}
		l.say(j, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: "+p.GetName())
		return nil
	})
	if err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return fmt.Errorf("create pod of job %s/%s: %w", j.Namespace, j.Name, err)
	}
	return nil
}

// withdraw removes pods that are too many. Each is taken out of the count
// first, unless it has changed since it was chosen: it might have ended.
func (l *Loop) withdraw(ctx context.Context, j *batchv1.Job, pods []*corev1.Pod) error {
	return controller.AtOnce(ctx, len(pods), func(ctx context.Context, i int) error {
		p := pods[i]
		if tracked(p) {
			err := l.drop(ctx, p, controller.OfVersion(p))
			if apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("release pod %s/%s: %w", p.Namespace, p.Name, err)
			}
		}
		return l.delete(ctx, j, p)
	})
}

// end deletes the pods of a job that is over.
func (l *Loop) end(ctx context.Context, j *batchv1.Job, pods []*corev1.Pod) error {
	return controller.AtOnce(ctx, len(pods), func(ctx context.Context, i int) error { return l.delete(ctx, j, pods[i]) })
}

func (l *Loop) delete(ctx context.Context, j *batchv1.Job, p *corev1.Pod) error {
	err := l.client.Delete(ctx, api.RefTo(l.pods, p), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		l.say(j, corev1.EventTypeWarning, "FailedDelete", "Error deleting: "+err.Error())
		return fmt.Errorf("delete pod %s/%s of job %s: %w", p.Namespace, p.Name, j.Name, err)
	}
	l.say(j, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: "+p.Name)
	return nil
}

// release lets go of pods that are accounted for.
func (l *Loop) release(ctx context.Context, pods []*corev1.Pod) error {
	return controller.AtOnce(ctx, len(pods), func(ctx context.Context, i int) error {
		p := pods[i]
		if err := l.drop(ctx, p); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("release pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		return nil
	})
}

// report writes the status if it changed, and tells of the change.
func (l *Loop) report(ctx context.Context, j *batchv1.Job, st batchv1.JobStatus) error {
	if equality.Semantic.DeepEqual(st, j.Status) {
		return nil
	}
	changed := j.DeepCopy()
	changed.Status = st
	if _, err := l.client.Update(ctx, l.jobs, changed, "status"); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("update status of job %s/%s: %w", j.Namespace, j.Name, err)
	}
	for _, n := range news(j, &st) {
		l.say(j, n.kind, n.reason, n.message)
	}
	return nil
}
