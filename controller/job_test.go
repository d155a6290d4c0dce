package controller_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/job"
	"hansa.dev/hansa/controller/ttl"
	"hansa.dev/hansa/internal/podstate"
)

func jobs(c client.Interface, r events.Recorder) controller.Loop { return job.New(c, r) }
func ttls(c client.Interface, _ events.Recorder) controller.Loop { return ttl.New(c) }

func aJob(name string, parallelism, completions int32) *batchv1.Job {
	t := template(nil, "one")
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       batchv1.JobSpec{Parallelism: ptr.To(parallelism), Completions: ptr.To(completions), Template: t},
	}
}

func indexed(j *batchv1.Job) *batchv1.Job {
	j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
	return j
}

func ended(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) {
			return c.Type
		}
	}
	return ""
}

func (w *world) job(name string) *batchv1.Job { return get[*batchv1.Job](w, "default", name) }

// running are the pods that have not ended and are not on their way out.
func (w *world) running() []*corev1.Pod {
	return slices.DeleteFunc(all[*corev1.Pod](w, "default"), func(p *corev1.Pod) bool { return !podstate.Active(p) })
}

// Documentation: "Jobs", the first example.
func TestJobRunsToCompletion(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	create(w, aJob("pi", 2, 3))
	w.live()
	if j := w.job("pi"); j.Status.Active != 2 || *j.Status.Ready != 2 || j.Status.StartTime == nil {
		t.Errorf("status = %+v", j.Status)
	}
	w.exits(w.running()[0], 0)
	w.live()
	if n := len(w.running()); n != 2 {
		t.Errorf("%d pods run after the first success, want 2", n)
	}
	for _, p := range w.running() {
		w.exits(p, 0)
	}
	w.live()
	j := w.job("pi")
	if ended(j) != batchv1.JobComplete || j.Status.Succeeded != 3 || j.Status.Active != 0 || j.Status.CompletionTime == nil {
		t.Errorf("status = %+v", j.Status)
	}
	w.said("Normal SuccessfulCreate Created pod: pi-", "Normal Completed Job completed")
	for _, p := range all[*corev1.Pod](w, "default") {
		if len(p.Finalizers) > 0 {
			t.Errorf("pod %s still has %v", p.Name, p.Finalizers)
		}
	}
	w.rests()
}

// outcomes is what the test's agent did to the pods that were tracked.
type outcomes map[types.UID]corev1.PodPhase

func (o outcomes) count(phase corev1.PodPhase) (n int) {
	for _, p := range o {
		if p == phase {
			n++
		}
	}
	return n
}

// Every pod that ends is counted once, and never twice, whatever dies when
// (KEP 2307, "Job tracking without lingering Pods").
func TestJobCountsEachPodOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := newWorldIn(t, r)
		loop := w.run(jobs)
		completions := rapid.Int32Range(1, 6).Draw(r, "completions")
		j := aJob("j", rapid.Int32Range(1, 4).Draw(r, "parallelism"), completions)
		isIndexed := rapid.Bool().Draw(r, "indexed")
		if isIndexed {
			indexed(j)
		}
		j.Spec.BackoffLimit = ptr.To(rapid.Int32Range(0, 8).Draw(r, "backoffLimit"))
		if rapid.Bool().Draw(r, "waits for the end") {
			j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
		}
		create(w, j)
		seen := outcomes{}
		indexes := map[string]bool{}
		for range 200 {
			if rapid.Bool().Draw(r, "dies") {
				loop.client.dieAt(rapid.IntRange(0, 6).Draw(r, "at write"), rapid.Bool().Draw(r, "after it"))
			}
			w.settle()
			if ended(w.job("j")) != "" {
				break
			}
			pods := all[*corev1.Pod](w, "default")
			if len(pods) == 0 {
				w.pass(time.Minute)
				continue
			}
			p := pods[rapid.IntRange(0, len(pods)-1).Draw(r, "pod")]
			switch what := rapid.SampledFrom([]string{"succeed", "fail", "delete", "time"}).Draw(r, "what"); {
			case what == "time" || podstate.Finished(p):
				w.pass(10 * time.Minute)
			case p.DeletionTimestamp != nil:
				w.gone(p)
			case what == "delete":
				remove(w, p, metav1.DeleteOptions{})
				if *j.Spec.PodReplacementPolicy == batchv1.TerminatingOrFailed {
					seen[p.UID] = corev1.PodFailed
				}
			case what == "succeed":
				w.exits(p, 0)
				seen[p.UID] = corev1.PodSucceeded
				indexes[p.Annotations[batchv1.JobCompletionIndexAnnotation]] = true
			default:
				w.exits(p, 1)
				seen[p.UID] = corev1.PodFailed
			}
		}
		loop.client.heal()
		for range 20 {
			w.settle()
			for _, p := range all[*corev1.Pod](w, "default") {
				if p.DeletionTimestamp != nil {
					w.gone(p)
				}
			}
		}
		w.check(r, isIndexed, seen, indexes)
		w.rests()
	})
}

func (w *world) check(r *rapid.T, isIndexed bool, seen outcomes, indexes map[string]bool) {
	j := w.job("j")
	s := j.Status
	if u := s.UncountedTerminatedPods; len(u.Succeeded)+len(u.Failed) > 0 {
		r.Errorf("at rest, pods are not counted: %+v", u)
	}
	succeeded := seen.count(corev1.PodSucceeded)
	if isIndexed {
		succeeded = len(indexes)
	}
	if int(s.Succeeded) != succeeded {
		r.Errorf("succeeded = %d, want %d", s.Succeeded, succeeded)
	}
	failed := seen.count(corev1.PodFailed)
	switch ended(j) {
	case batchv1.JobFailed:
		// The pods that the failed job stopped count too.
		if int(s.Failed) < failed || int(s.Failed) > failed+int(*j.Spec.Parallelism) {
			r.Errorf("failed = %d, want %d and the pods that were stopped", s.Failed, failed)
		}
	case batchv1.JobComplete:
		if int(s.Failed) != failed {
			r.Errorf("failed = %d, want %d", s.Failed, failed)
		}
	}
	if ended(j) == "" {
		r.Logf("not ended: %+v", s)
	}
	for _, p := range all[*corev1.Pod](w, "default") {
		if podstate.Finished(p) && len(p.Finalizers) > 0 {
			r.Errorf("pod %s was not released: %v", p.Name, fmt.Sprint(p.Finalizers))
		}
	}
}
