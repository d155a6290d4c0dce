package controller_test

import (
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func (w *world) deleteJob(name string, policy metav1.DeletionPropagation) {
	w.Helper()
	remove(w, w.job(name), metav1.DeleteOptions{PropagationPolicy: &policy})
}

// A deleted job takes its pods along, whose finalizer nobody else would drop.
func TestDeletedJobFreesItsPods(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t)
			w.run(jobs)
			w.run(collector)
			create(w, aJob("j", 2, 5))
			w.live()
			w.exits(w.running()[0], 0)
			w.deleteJob("j", policy)
			w.live()
			if len(w.pods()) != 0 || w.job("j") != nil {
				t.Errorf("%d pods are left, the job is %v", len(w.pods()), w.job("j"))
			}
			w.rests()
		})
	}
}

func TestOrphanedPodsOfAJobAreFree(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	w.run(collector)
	create(w, aJob("j", 2, 5))
	w.live()
	w.deleteJob("j", metav1.DeletePropagationOrphan)
	w.live()
	if len(w.running()) != 2 || w.job("j") != nil {
		t.Fatalf("%d pods run, the job is %v", len(w.running()), w.job("j"))
	}
	for _, p := range w.pods() {
		if len(p.Finalizers) > 0 || len(p.OwnerReferences) > 0 {
			t.Errorf("pod %s has finalizers %v and owners %v", p.Name, p.Finalizers, p.OwnerReferences)
		}
	}
	w.rests()
}

// Documentation: "Jobs", "Specifying your own Pod selector".
func TestJobAdoptsAndReleases(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	labels := map[string]string{"mine": "yes"}
	t1 := template(labels, "one")
	orphan := aPod("orphan", t1)
	create(w, orphan)
	j := aJob("j", 2, 3)
	j.Spec.ManualSelector, j.Spec.Selector = ptr.To(true), &metav1.LabelSelector{MatchLabels: labels}
	j.Spec.Template.Labels = labels
	create(w, j)
	w.live()
	orphan = w.pod("orphan")
	if len(w.pods()) != 2 || !slices.Contains(orphan.Finalizers, batchv1.JobTrackingFinalizer) || len(orphan.OwnerReferences) != 1 {
		t.Fatalf("%d pods; the orphan has finalizers %v and owners %v", len(w.pods()), orphan.Finalizers, orphan.OwnerReferences)
	}
	update(w, orphan, "", func(p *corev1.Pod) { p.Labels = map[string]string{"mine": "no"} })
	w.live()
	orphan = w.pod("orphan")
	if len(orphan.Finalizers) > 0 || len(orphan.OwnerReferences) > 0 {
		t.Errorf("after its label changed, the pod has finalizers %v and owners %v", orphan.Finalizers, orphan.OwnerReferences)
	}
	if len(w.pods()) != 3 || w.job("j").Status.Active != 2 || w.job("j").Status.Failed != 0 {
		t.Errorf("%d pods, status %+v", len(w.pods()), w.job("j").Status)
	}
	w.rests()
}

// Documentation: "Automatic Cleanup for Finished Jobs".
func TestFinishedJobGoesAfterItsTime(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	w.run(ttls)
	w.run(collector)
	j := aJob("j", 1, 1)
	j.Spec.TTLSecondsAfterFinished = ptr.To[int32](100)
	create(w, j)
	w.live()
	w.pass(time.Hour)
	w.exits(w.running()[0], 0)
	w.live()
	w.pass(99 * time.Second)
	if w.job("j") == nil {
		t.Fatal("the job went too early")
	}
	w.rests()
	update(w, w.job("j"), "", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr.To[int32](200) })
	w.pass(50 * time.Second)
	if w.job("j") == nil {
		t.Fatal("the job went though its time was extended")
	}
	w.pass(51 * time.Second)
	w.live()
	if w.job("j") != nil || len(w.pods()) != 0 {
		t.Errorf("the job is %v, %d pods are left", w.job("j"), len(w.pods()))
	}
	w.rests()
}

// A clock that is put back while a job runs does not keep it from completing: the
// API refuses a completion before the start.
func TestJobCompletesWhenTheClockIsPutBack(t *testing.T) {
	w := newWorld(t)
	w.run(jobs)
	create(w, aJob("pi", 1, 1))
	w.live()
	w.clock.SetTime(w.clock.Now().Add(-time.Hour))
	w.exits(w.running()[0], 0)
	w.settle()
	if j := w.job("pi"); ended(j) != batchv1.JobComplete || !j.Status.CompletionTime.Equal(j.Status.StartTime) {
		t.Errorf("the status is %+v", j.Status)
	}
	w.rests()
}
