package ttl

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Documentation: "Automatic Cleanup for Finished Jobs".
func TestExpires(t *testing.T) {
	at := metav1.NewTime(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	ended := func(kind batchv1.JobConditionType, status corev1.ConditionStatus, at metav1.Time) *batchv1.Job {
		return &batchv1.Job{
			Spec:   batchv1.JobSpec{TTLSecondsAfterFinished: ptr.To[int32](100)},
			Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: kind, Status: status, LastTransitionTime: at}}},
		}
	}
	for name, c := range map[string]struct {
		job  *batchv1.Job
		want bool
	}{
		"complete":              {ended(batchv1.JobComplete, corev1.ConditionTrue, at), true},
		"failed":                {ended(batchv1.JobFailed, corev1.ConditionTrue, at), true},
		"suspended":             {ended(batchv1.JobSuspended, corev1.ConditionTrue, at), false},
		"not complete":          {ended(batchv1.JobComplete, corev1.ConditionFalse, at), false},
		"nobody knows when":     {ended(batchv1.JobComplete, corev1.ConditionTrue, metav1.Time{}), false},
		"without an end to its": {&batchv1.Job{Status: ended(batchv1.JobComplete, corev1.ConditionTrue, at).Status}, false},
	} {
		end, got := expires(c.job)
		if got != c.want || got && !end.Equal(at.Add(100*time.Second)) {
			t.Errorf("%s: %s, %v", name, end, got)
		}
	}
}
