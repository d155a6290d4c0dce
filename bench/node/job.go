package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/internal/ocibuild"
)

// job runs a Job to its end.
func (b *bench) job(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*timeout)
	defer cancel()
	const name = "job"
	finished, err := watch(ctx, b.watcher, named(jobs, name), func(e rig.Event[batchv1.Job]) (bool, error) {
		is := func(t batchv1.JobConditionType) bool {
			return slices.ContainsFunc(e.Object.Status.Conditions, func(c batchv1.JobCondition) bool {
				return c.Type == t && c.Status == corev1.ConditionTrue
			})
		}
		if is(batchv1.JobFailed) {
			return true, errors.New("the Job failed")
		}
		return is(batchv1.JobComplete), nil
	})
	if err != nil {
		return err
	}
	job := batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{
			Completions: ptr.To(int32(*completions)), Parallelism: ptr.To(int32(*parallelism)),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "main", Image: ocibuild.Busybox, Command: []string{"true"}, ImagePullPolicy: corev1.PullNever}},
			}},
		},
	}
	before, err := b.cluster.CPU()
	if err != nil {
		return err
	}
	if err := b.writer.Call(ctx, http.MethodPost, jobs, job, nil); err != nil {
		return err
	}
	accepted := time.Now()
	if err := <-finished; err != nil {
		return err
	}
	b.Seconds("job", time.Since(accepted))
	after, err := b.cluster.CPU()
	if err != nil {
		return err
	}
	b.Figure("job_cpu", float64((after-before).Milliseconds())/float64(*completions), "ms")
	return b.writer.Call(ctx, http.MethodDelete, jobs+"/"+name+"?propagationPolicy=Foreground", nil, nil)
}
