package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate says what is wrong with a new, defaulted pod.
func Validate(p *corev1.Pod) field.ErrorList {
	c := &checker{isPod: true}
	spec := field.NewPath("spec")
	c.podMetadataAndSpec(p)
	if len(p.Spec.EphemeralContainers) > 0 {
		c.forbidden(spec.Child("ephemeralContainers"), "cannot be set on create")
	}
	if p.Spec.NodeName != "" && len(p.Spec.SchedulingGates) > 0 {
		c.forbidden(spec.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	}
	c.profileAnnotationsMatch(p.Annotations, &p.Spec, spec)
	return c.errs
}

// podMetadataAndSpec is what holds for a pod at all times.
func (c *checker) podMetadataAndSpec(p *corev1.Pod) {
	c.podAnnotations(field.NewPath("metadata", "annotations"), p.Annotations, &p.Spec)
	spec := field.NewPath("spec")
	c.spec(spec, &p.Spec, &p.ObjectMeta)

	// What follows is asked of pods only, since templates were once let in
	// without it.
	if p.Spec.ServiceAccountName == "" {
		for i, v := range p.Spec.Volumes {
			if v.Projected == nil {
				continue
			}
			sources := spec.Child("volumes").Index(i).Child("projected", "sources")
			for j, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil {
					c.forbidden(sources.Index(j).Child("serviceAccountToken"), "must not be specified when serviceAccountName is not set")
				}
			}
		}
	}
	eachContainer(&p.Spec, spec, func(ctr *corev1.Container, at *field.Path) {
		c.imageUnpadded(at.Child("image"), ctr.Image)
	})
}

func (c *checker) imageUnpadded(at *field.Path, image string) {
	if strings.TrimSpace(image) != image {
		c.invalid(at, image, "must not have leading or trailing whitespace")
	}
}

// ValidateTemplate says what is wrong with a new, defaulted pod template at
// path, its labels and annotations included.
func ValidateTemplate(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	return (&checker{}).template(t, path)
}

// ValidateTemplateUpdate is ValidateTemplate for a template that replaces old:
// old flaws that stay are forgiven. Whether the template may change at all is
// for the owning kind to say.
func ValidateTemplateUpdate(t, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	return (&checker{leniency: leniencyFor(&old.Spec, &old.ObjectMeta)}).template(t, path)
}

func (c *checker) template(t *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	spec := path.Child("spec")
	c.templateLabels(t, path)
	c.spec(spec, &t.Spec, nil)
	c.profileAnnotationsMatch(t.Annotations, &t.Spec, spec)
	if len(t.Spec.EphemeralContainers) > 0 {
		c.forbidden(spec.Child("ephemeralContainers"), "ephemeral containers not allowed in pod template")
	}
	return c.errs
}

// ValidateTemplateLabels is the part of ValidateTemplate that is about labels and
// annotations. old is the template that t replaces, or nil.
func ValidateTemplateLabels(t, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	c := &checker{}
	if old != nil {
		c.leniency = leniencyFor(&old.Spec, &old.ObjectMeta)
	}
	c.templateLabels(t, path)
	return c.errs
}

func (c *checker) templateLabels(t *corev1.PodTemplateSpec, path *field.Path) {
	c.add(metavalidation.ValidateLabels(t.Labels, path.Child("labels"))...)
	c.add(apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	c.podAnnotations(path.Child("annotations"), t.Annotations, &t.Spec)
}

// ValidateBinding says what is wrong with the body of a pod's binding.
func ValidateBinding(b *corev1.Binding) field.ErrorList {
	c := &checker{}
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		c.add(field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if c.nonEmpty(target.Child("name"), b.Target.Name) && (b.Target.Kind == "" || b.Target.Kind == "Node") {
		for _, msg := range apivalidation.NameIsDNSSubdomain(b.Target.Name, false) {
			c.add(field.Invalid(target.Child("name"), b.Target.Name, msg))
		}
	}
	return c.errs
}

// ValidateLogOptions says what is wrong with the question for a log. Which stream is
// the node's to say.
func ValidateLogOptions(o *corev1.PodLogOptions) field.ErrorList {
	c := &checker{}
	if o.TailLines != nil {
		c.nonNegative(field.NewPath("tailLines"), *o.TailLines)
	}
	positive := func(name string, n *int64) {
		if n != nil && *n < 1 {
			c.add(field.Invalid(field.NewPath(name), *n, "must be greater than 0"))
		}
	}
	positive("limitBytes", o.LimitBytes)
	if o.SinceSeconds != nil && o.SinceTime != nil {
		c.forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified")
	} else {
		positive("sinceSeconds", o.SinceSeconds)
	}
	return c.errs
}

// hasMirrorAnnotation marks a pod that a node runs from a file of its own and
// only shows to the API.
func hasMirrorAnnotation(meta *metav1.ObjectMeta) bool {
	if meta == nil {
		return false
	}
	_, ok := meta.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}
