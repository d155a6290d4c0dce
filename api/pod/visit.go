package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// eachContainer visits all containers: init, regular, ephemeral. An ephemeral
// one is seen through the fields it has in common with the others; writes reach
// the spec.
func eachContainer(spec *corev1.PodSpec, specPath *field.Path, visit func(*corev1.Container, *field.Path)) {
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i], specPath.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		visit(&spec.Containers[i], specPath.Child("containers").Index(i))
	}
	for i := range spec.EphemeralContainers {
		visit(asContainer(&spec.EphemeralContainers[i]), specPath.Child("ephemeralContainers").Index(i))
	}
}

// asContainer relies on EphemeralContainerCommon having Container's fields, in
// the same order; the compiler checks it.
func asContainer(e *corev1.EphemeralContainer) *corev1.Container {
	return (*corev1.Container)(&e.EphemeralContainerCommon)
}

// isSidecar says whether an init container keeps running beside the others.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func probesOf(c *corev1.Container) []*corev1.Probe {
	var probes []*corev1.Probe
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			probes = append(probes, p)
		}
	}
	return probes
}

func hooksOf(c *corev1.Container) []*corev1.LifecycleHandler {
	var hooks []*corev1.LifecycleHandler
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				hooks = append(hooks, h)
			}
		}
	}
	return hooks
}

// eachContainerStatus visits the statuses of all containers; writes reach the
// status.
func eachContainerStatus(s *corev1.PodStatus, visit func(*corev1.ContainerStatus)) {
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			visit(&list[i])
		}
	}
}
