// Package privileged refuses privileged containers, in pods and in the templates
// of pods: kube-apiserver's --allow-privileged=false. There it is a part of
// validation, and so are the answers.
package privileged

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/apiserver/admission"
)

// Plugin is the admission plugin.
type Plugin struct{}

// Validate implements admission.Validator.
func (Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	spec, path := podSpec(a.Object)
	if spec == nil {
		return nil
	}
	var errs field.ErrorList
	refuse := func(list string, i int, c *corev1.SecurityContext) {
		if c != nil && c.Privileged != nil && *c.Privileged {
			errs = append(errs, field.Forbidden(path.Child(list).Index(i).Child("securityContext", "privileged"), "disallowed by cluster policy"))
		}
	}
	for i := range spec.Containers {
		refuse("containers", i, spec.Containers[i].SecurityContext)
	}
	for i := range spec.InitContainers {
		refuse("initContainers", i, spec.InitContainers[i].SecurityContext)
	}
	for i := range spec.EphemeralContainers {
		refuse("ephemeralContainers", i, spec.EphemeralContainers[i].SecurityContext)
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: a.Resource.Group, Kind: a.Resource.Kind}, a.Name, errs)
}

// podSpec is where an object says what runs, nil if it does not.
func podSpec(obj runtime.Object) (*corev1.PodSpec, *field.Path) {
	spec := field.NewPath("spec")
	template := spec.Child("template", "spec")
	switch o := obj.(type) {
	case *corev1.Pod:
		return &o.Spec, spec
	case *corev1.PodTemplate:
		return &o.Template.Spec, field.NewPath("template", "spec")
	case *corev1.ReplicationController:
		if o.Spec.Template != nil {
			return &o.Spec.Template.Spec, template
		}
	case *appsv1.ReplicaSet:
		return &o.Spec.Template.Spec, template
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec, template
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec, template
	case *appsv1.StatefulSet:
		return &o.Spec.Template.Spec, template
	case *batchv1.Job:
		return &o.Spec.Template.Spec, template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec, spec.Child("jobTemplate", "spec", "template", "spec")
	}
	return nil, nil
}
