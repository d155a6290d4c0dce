package pod

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ephemeralContainers checks containers added to a running pod to look into it.
func (c *checker) ephemeralContainers(at *field.Path, s *scope) {
	targets, names := sets.New[string](), sets.New[string]()
	for _, ctrs := range [][]corev1.Container{s.spec.Containers, s.spec.InitContainers} {
		for i := range ctrs {
			targets.Insert(ctrs[i].Name)
			names.Insert(ctrs[i].Name)
		}
	}
	for i := range s.spec.EphemeralContainers {
		e, p := &s.spec.EphemeralContainers[i], at.Index(i)
		ctr := asContainer(e)
		c.container(p, ctr, s)
		c.imageUnpadded(p.Child("image"), e.Image)
		if names.Has(e.Name) {
			c.duplicate(p.Child("name"), e.Name)
		}
		names.Insert(e.Name)
		if t := e.TargetContainerName; t != "" && !targets.Has(t) {
			c.notFound(p.Child("targetContainerName"), t)
		}
		c.notForEphemeral(p, ctr)
	}
}

// notForEphemeral refuses what would make others depend on the container, or
// change what the pod was given by the scheduler.
func (c *checker) notForEphemeral(at *field.Path, ctr *corev1.Container) {
	const reason = "cannot be set for an Ephemeral Container"
	for _, f := range []struct {
		name  string
		value any
	}{
		{"ports", ctr.Ports},
		{"resources", ctr.Resources},
		{"resizePolicy", ctr.ResizePolicy},
		{"restartPolicy", ctr.RestartPolicy},
		{"restartPolicyRules", ctr.RestartPolicyRules},
		{"livenessProbe", ctr.LivenessProbe},
		{"readinessProbe", ctr.ReadinessProbe},
		{"startupProbe", ctr.StartupProbe},
		{"lifecycle", ctr.Lifecycle},
	} {
		if !reflect.ValueOf(f.value).IsZero() {
			c.forbidden(at.Child(f.name), reason)
		}
	}
	for i, m := range ctr.VolumeMounts {
		p := at.Child("volumeMounts").Index(i)
		if m.SubPath != "" {
			c.forbidden(p.Child("subPath"), reason)
		}
		if m.SubPathExpr != "" {
			c.forbidden(p.Child("subPathExpr"), reason)
		}
	}
}
