package job

import (
	"fmt"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/controller"
)

// indexEnv is the variable in which a container finds its completion index.
const indexEnv = "JOB_COMPLETION_INDEX"

// longestPrefix of a generated name leaves room for its random end in a label.
const longestPrefix = 58

// newPod is the pod that a creation asks for.
func newPod(j *batchv1.Job, c creation) *corev1.Pod {
	p := controller.PodFromTemplate(&j.Spec.Template, j, kind)
	if !tracked(p) {
		p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if c.index == noIndex {
		return p
	}
	index := strconv.Itoa(c.index)
	p.Annotations[batchv1.JobCompletionIndexAnnotation] = index
	p.Labels[batchv1.JobCompletionIndexAnnotation] = index
	if j.Spec.BackoffLimitPerIndex != nil {
		p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(c.counted)
		if c.ignored > 0 {
			p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(c.ignored)
		}
	}
	p.Spec.Hostname = fmt.Sprintf("%s-%s", j.Name, index)
	end := "-" + index + "-"
	p.GenerateName = j.Name[:min(len(j.Name), longestPrefix-len(end))] + end
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			addIndex(&list[i])
		}
	}
	return p
}

// addIndex gives a container the variable, unless it has one of that name.
func addIndex(c *corev1.Container) {
	for _, v := range c.Env {
		if v.Name == indexEnv {
			return
		}
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)},
	}})
}

// piece is an event to be told.
type piece struct{ kind, reason, message string }

// news is what a change of a job's status means to its owner.
func news(j *batchv1.Job, st *batchv1.JobStatus) []piece {
	var out []piece
	for _, c := range st.Conditions {
		was := condition(j.Status.Conditions, c.Type)
		switch {
		case was != nil && was.Status == c.Status:
		case c.Type == batchv1.JobSuspended && c.Status == corev1.ConditionTrue:
			out = append(out, piece{corev1.EventTypeNormal, "Suspended", c.Message})
		case c.Type == batchv1.JobSuspended:
			out = append(out, piece{corev1.EventTypeNormal, "Resumed", c.Message})
		case c.Type == batchv1.JobComplete:
			if n := j.Spec.Completions; n != nil && st.Succeeded > *n {
				out = append(out, piece{corev1.EventTypeWarning, "TooManySucceededPods", "Too many succeeded pods running after completion count reached"})
			}
			out = append(out, piece{corev1.EventTypeNormal, "Completed", "Job completed"})
		case c.Type == batchv1.JobFailed:
			out = append(out, piece{corev1.EventTypeWarning, c.Reason, c.Message})
		}
	}
	return out
}
