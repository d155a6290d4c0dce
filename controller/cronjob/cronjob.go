// Package cronjob starts the jobs of CronJobs at the times that their schedules
// give.
//
// A run is known by its scheduled time, from which its job has its name: so a run
// happens once, whatever dies when. The status is written after a job is made; a
// job that no status tells of is found by its name and annotation.
package cronjob

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

var kind = batchv1.SchemeGroupVersion.WithKind("CronJob")

// Loop is the CronJob controller; its keys are cron jobs.
type Loop struct {
	client client.Interface
	events events.Recorder
	crons  *api.Resource
	jobs   *api.Resource
	local  *time.Location
	jumps  Jumps

	mu   sync.Mutex
	seen map[api.Key]*sighting
}

// sighting is what the loop remembers of a cron job between two looks. A process
// that knows nothing yet may tell an event once more, and may start a run that a
// schedule changed meanwhile gives for a time in the past.
type sighting struct {
	uid      types.UID
	schedule string // with the zone
	since    time.Time
	notes    []note
}

// Jumps has jumped called each time that the clock was set, with what it moved, until
// stop is called. A wait until a run is as long as it seemed before that.
type Jumps func(jumped func(by time.Duration)) (stop func())

// New makes the loop; it acts as the client's identity. local is the time zone of
// schedules that name none.
func New(c client.Interface, recorder events.Recorder, local *time.Location, jumps Jumps) *Loop {
	r := c.Registry()
	return &Loop{client: c, events: recorder, crons: r.Must("batch", "cronjobs"), jobs: r.Must("batch", "jobs"), local: local, jumps: jumps, seen: map[api.Key]*sighting{}}
}

// Listen wakes every cron job when the clock was set.
func (l *Loop) Listen(wake func(api.Key)) (cancel func()) {
	return l.jumps(func(time.Duration) {
		for c := range l.client.View().List(l.crons, "") {
			wake(api.Key{Namespace: c.GetNamespace(), Name: c.GetName()})
		}
	})
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "cronjob-controller" }

// Sources are the cron jobs, and the jobs that they have.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.crons},
		{Resource: l.jobs, Keys: func(old, new api.Object) []api.Key {
			return controller.KeysOfOwners(old, new, kind.Kind, func(api.Object) []api.Key { return nil })
		}},
	}
}

// Step starts the job that is due, if one is, and brings the status up to date.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	c, ok := l.client.View().Get(l.crons, key).(*batchv1.CronJob)
	if !ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.seen, key)
		return 0, nil
	}
	seen := l.see(key, c, now)
	d := plan(snapshot{cron: c, jobs: l.owned(c), since: seen.since, local: l.local, now: now})
	for _, j := range d.replace {
		if err := l.delete(ctx, c, j); err != nil {
			return 0, err
		}
	}
	var failed error
	if d.run != nil {
		failed = l.run(ctx, c, *d.run, &d.status)
	}
	if err := l.report(ctx, c, d.status); err != nil {
		return 0, err
	}
	for _, j := range d.remove {
		if err := l.delete(ctx, c, j); err != nil {
			return 0, err
		}
	}
	for _, n := range d.notes {
		if !slices.Contains(seen.notes, n) {
			l.event(c, n.kind, n.reason, n.message)
		}
	}
	seen.notes = d.notes
	return d.after, failed
}

// see looks up what is known of a cron job. It belongs to the one who looks at the
// key.
func (l *Loop) see(key api.Key, c *batchv1.CronJob, now time.Time) *sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	schedule := ptr.Deref(c.Spec.TimeZone, "") + " " + c.Spec.Schedule
	s := l.seen[key]
	switch {
	case s == nil || s.uid != c.UID:
		s = &sighting{uid: c.UID, schedule: schedule}
		l.seen[key] = s
	case s.schedule != schedule:
		s.schedule, s.since = schedule, now
	}
	if _, ok := lastRun(c, c.Status.LastScheduleTime, now); s.since.After(now) || !ok && s.since.IsZero() {
		s.since = now
	}
	return s
}

// owned are the jobs that the cron job controls.
func (l *Loop) owned(c *batchv1.CronJob) []*batchv1.Job {
	return controller.Owned[*batchv1.Job](l.client.View(), l.jobs, c)
}

func (l *Loop) event(c *batchv1.CronJob, kindOf, reason, message string) {
	l.events.Event(events.About(kind, c, ""), kindOf, reason, message)
}

// run makes the job for a scheduled time, and notes it in a status.
func (l *Loop) run(ctx context.Context, c *batchv1.CronJob, at time.Time, st *batchv1.CronJobStatus) error {
	j, err := newJob(c, at)
	if err != nil {
		return err
	}
	o, err := l.client.Create(ctx, l.jobs, j, metav1.CreateOptions{})
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // the namespace takes the cron job along
	}
	if err != nil {
		l.event(c, corev1.EventTypeWarning, "FailedCreate", fmt.Sprintf("Error creating job: %v", err))
		if apierrors.IsAlreadyExists(err) {
			return nil // somebody else's job has the name; the next run has another
		}
		return fmt.Errorf("create job %s/%s: %w", j.Namespace, j.Name, err)
	}
	l.event(c, corev1.EventTypeNormal, "SuccessfulCreate", "Created job "+o.GetName())
	st.Active = append(st.Active, refTo(o.(*batchv1.Job)))
	st.LastScheduleTime = &metav1.Time{Time: at}
	return nil
}

// delete removes a job and what it owns.
func (l *Loop) delete(ctx context.Context, c *batchv1.CronJob, j *batchv1.Job) error {
	err := l.client.Delete(ctx, api.RefTo(l.jobs, j), metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationBackground), Preconditions: &metav1.Preconditions{UID: &j.UID},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		l.event(c, corev1.EventTypeWarning, "FailedDelete", fmt.Sprintf("Deleted job: %v", err))
		return fmt.Errorf("delete job %s/%s: %w", j.Namespace, j.Name, err)
	}
	l.event(c, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted job "+j.Name)
	return nil
}

// report writes the status if it changed.
func (l *Loop) report(ctx context.Context, c *batchv1.CronJob, st batchv1.CronJobStatus) error {
	if equality.Semantic.DeepEqual(st, c.Status) {
		return nil
	}
	changed := c.DeepCopy()
	changed.Status = st
	if _, err := l.client.Update(ctx, l.crons, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of cron job %s/%s: %w", c.Namespace, c.Name, err)
	}
	return nil
}
