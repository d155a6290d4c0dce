package privileged

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
)

// Wherever a pod is described, the answer names the field (the field
// "privileged" of a SecurityContext, with --allow-privileged=false).
func TestPrivileged(t *testing.T) {
	privileged := &corev1.SecurityContext{Privileged: ptr.To(true)}
	spec := corev1.PodSpec{Containers: []corev1.Container{{}, {SecurityContext: privileged}}}
	template := corev1.PodTemplateSpec{Spec: spec}
	for _, c := range []struct {
		object runtime.Object
		field  string
	}{
		{&corev1.Pod{Spec: spec}, "spec.containers[1]"},
		{&corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{SecurityContext: privileged}}}}, "spec.initContainers[0]"},
		{&corev1.Pod{Spec: corev1.PodSpec{EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: privileged}}}}}, "spec.ephemeralContainers[0]"},
		{&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{SecurityContext: &corev1.SecurityContext{Privileged: ptr.To(false)}}}}}, ""},
		{&corev1.PodTemplate{Template: template}, "template.spec.containers[1]"},
		{&corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: &template}}, "spec.template.spec.containers[1]"},
		{&corev1.ReplicationController{}, ""},
		{&appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: template}}, "spec.template.spec.containers[1]"},
		{&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: template}}, "spec.template.spec.containers[1]"},
		{&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: template}}, "spec.template.spec.containers[1]"},
		{&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: template}}, "spec.template.spec.containers[1]"},
		{&batchv1.Job{Spec: batchv1.JobSpec{Template: template}}, "spec.template.spec.containers[1]"},
		{&batchv1.CronJob{Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}}}, "spec.jobTemplate.spec.template.spec.containers[1]"},
		{&corev1.ConfigMap{}, ""},
		{nil, ""},
	} {
		err := Plugin{}.Validate(t.Context(), &admission.Attributes{Operation: admission.Create, Resource: &api.Resource{Kind: "K"}, Name: "n", Object: c.object})
		want := ""
		if c.field != "" {
			want = `K "n" is invalid: ` + c.field + `.securityContext.privileged: Forbidden: disallowed by cluster policy`
		}
		if got := text(err); got != want {
			t.Errorf("%T: %q, want %q", c.object, got, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
