package pod

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Default fills in what the client left out of a pod, in place. Idempotent.
//
// It also brings fields that name the same thing twice into agreement
// (serviceAccount with serviceAccountName, podIP with podIPs), which upstream
// does while converting.
func Default(p *corev1.Pod) {
	dropInitContainerAnnotations(&p.ObjectMeta)
	spec := &p.Spec
	defaultRequestsFromLimits(spec.InitContainers)
	defaultRequestsFromLimits(spec.Containers)
	// Of pods only: templates keep what they say.
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		spec.TerminationGracePeriodSeconds = ptr(int64(1))
	}
	if spec.EnableServiceLinks == nil {
		spec.EnableServiceLinks = ptr(corev1.DefaultEnableServiceLinks)
	}
	if spec.HostNetwork {
		defaultHostPorts(spec.InitContainers)
		defaultHostPorts(spec.Containers)
	}
	defaultSpec(spec)
	defaultStatus(&p.Status)
}

// DefaultTemplate fills in what a pod template shows when read back. What
// belongs to the pods made from it (requests from limits, service links, host
// ports) is left to them, so that it appears in pods only. Idempotent.
func DefaultTemplate(t *corev1.PodTemplateSpec) {
	dropInitContainerAnnotations(&t.ObjectMeta)
	defaultSpec(&t.Spec)
}

func ptr[T any](v T) *T { return &v }

// setIfEmpty gives *field the value if it has none.
func setIfEmpty[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// setIfNil points *field at the value if it points nowhere.
func setIfNil[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// legacyInitContainerAnnotations held init containers before 1.8.
var legacyInitContainerAnnotations = []string{
	"pod.beta.kubernetes.io/init-containers",
	"pod.alpha.kubernetes.io/init-containers",
	"pod.beta.kubernetes.io/init-container-statuses",
	"pod.alpha.kubernetes.io/init-container-statuses",
}

func dropInitContainerAnnotations(meta *metav1.ObjectMeta) {
	for _, k := range legacyInitContainerAnnotations {
		delete(meta.Annotations, k)
	}
}

func defaultSpec(spec *corev1.PodSpec) {
	setIfEmpty(&spec.DNSPolicy, corev1.DNSClusterFirst)
	setIfEmpty(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	setIfEmpty(&spec.SchedulerName, corev1.DefaultSchedulerName)
	setIfNil(&spec.SecurityContext, corev1.PodSecurityContext{})
	setIfNil(&spec.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))

	// serviceAccount is the old name of serviceAccountName, which wins.
	setIfEmpty(&spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName

	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) { defaultContainer(c) })

	roundUp(spec.Overhead)
	if spec.Resources != nil {
		roundUp(spec.Resources.Limits)
		roundUp(spec.Resources.Requests)
	}
}

func defaultContainer(c *corev1.Container) {
	setIfEmpty(&c.ImagePullPolicy, pullPolicyFor(c.Image))
	setIfEmpty(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setIfEmpty(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		setIfEmpty(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		from := c.Env[i].ValueFrom
		if from == nil {
			continue
		}
		defaultFieldRef(from.FieldRef)
		if from.FileKeyRef != nil {
			setIfNil(&from.FileKeyRef.Optional, false)
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	for _, probe := range probesOf(c) {
		defaultProbe(probe)
	}
	for _, hook := range hooksOf(c) {
		defaultHTTPGet(hook.HTTPGet)
	}
}

func defaultProbe(p *corev1.Probe) {
	setIfEmpty(&p.TimeoutSeconds, 1)
	setIfEmpty(&p.PeriodSeconds, 10)
	setIfEmpty(&p.SuccessThreshold, 1)
	setIfEmpty(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		setIfNil(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(a *corev1.HTTPGetAction) {
	if a != nil {
		setIfEmpty(&a.Path, "/")
		setIfEmpty(&a.Scheme, corev1.URISchemeHTTP)
	}
}

func defaultFieldRef(r *corev1.ObjectFieldSelector) {
	if r != nil {
		setIfEmpty(&r.APIVersion, "v1")
	}
}

// defaultHostPorts opens every declared port of a pod in the host's network.
func defaultHostPorts(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			p := &containers[i].Ports[j]
			setIfEmpty(&p.HostPort, p.ContainerPort)
		}
	}
}

// defaultStatus keeps the singular addresses equal to the first of the plural
// ones: the singular wins when they differ.
func defaultStatus(s *corev1.PodStatus) {
	if s.PodIP == "" && len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	if s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP) {
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	eachContainerStatus(s, func(c *corev1.ContainerStatus) {
		roundUp(c.AllocatedResources)
		if c.Resources != nil {
			roundUp(c.Resources.Limits)
			roundUp(c.Resources.Requests)
		}
	})
	roundUp(s.AllocatedResources)
	if s.Resources != nil {
		roundUp(s.Resources.Limits)
		roundUp(s.Resources.Requests)
	}
}
