package pod

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// scope is what the checks of a container need to know about the pod around it.
type scope struct {
	spec    *corev1.PodSpec
	volumes map[string]*corev1.VolumeSource // the valid ones, by name
	claims  sets.Set[string]                // names of the pod's resource claims
	// hostUsers: the containers' user ids are the host's.
	hostUsers bool
}

// spec checks a pod's spec, in the order in which Kubernetes tells of it. meta is
// nil for a template, whose pods' names are not known yet.
func (c *checker) spec(at *field.Path, spec *corev1.PodSpec, meta *metav1.ObjectMeta) {
	if spec.TerminationGracePeriodSeconds == nil {
		c.required(at.Child("terminationGracePeriodSeconds"), "")
	}
	s := &scope{
		spec:      spec,
		volumes:   c.volumes(at.Child("volumes"), spec.Volumes, meta),
		claims:    claimNames(spec.ResourceClaims),
		hostUsers: spec.HostUsers == nil || *spec.HostUsers,
	}
	c.podResourceClaims(at.Child("resourceClaims"), spec.ResourceClaims, meta)
	c.containers(at.Child("containers"), s)
	c.initContainers(at.Child("initContainers"), s)
	c.ephemeralContainers(at.Child("ephemeralContainers"), s)
	c.podResources(at.Child("resources"), s)
	c.hostNetworkPorts(at.Child("containers"), spec)
	requiredOneOf(c, at.Child("restartPolicy"), spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	c.dnsPolicy(at, spec)
	c.add(metavalidation.ValidateLabels(spec.NodeSelector, at.Child("nodeSelector"))...)
	c.podSecurityContext(at.Child("securityContext"), spec)
	if isTrue(spec.ShareProcessNamespace) && spec.HostPID {
		c.invalid(at.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	c.affinity(at.Child("affinity"), spec.Affinity)
	c.dnsConfig(at, spec)
	c.gates(at, spec)
	c.topologySpread(at.Child("topologySpreadConstraints"), spec.TopologySpreadConstraints)
	c.hostProcess(at, spec)
	c.hostNamespaces(at, spec)
	c.hostnameOverride(at, spec)
	c.placeAndNames(at, spec)
	c.tolerations(at.Child("tolerations"), spec.Tolerations)
	c.hostAliases(at.Child("hostAliases"), spec.HostAliases)
	c.classes(at, spec)
	if spec.Overhead != nil {
		c.resourceRequirements(at.Child("overhead"), &corev1.ResourceRequirements{Limits: spec.Overhead}, containerResource, nil)
	}
	c.operatingSystem(at, spec)
	if spec.SchedulingGroup != nil {
		c.schedulingGroup(at.Child("schedulingGroup"), spec.SchedulingGroup)
	}
	c.envFileVolumes(at, spec)
}

// placeAndNames checks whom and what a pod names, for how long it may run and how it
// is called.
func (c *checker) placeAndNames(at *field.Path, spec *corev1.PodSpec) {
	if spec.ServiceAccountName != "" {
		c.reasons(at.Child("serviceAccountName"), spec.ServiceAccountName, apivalidation.ValidateServiceAccountName(spec.ServiceAccountName, false))
	}
	if spec.NodeName != "" {
		c.reasons(at.Child("nodeName"), spec.NodeName, apivalidation.NameIsDNSSubdomain(spec.NodeName, false))
	}
	if s := spec.ActiveDeadlineSeconds; s != nil && (*s < 1 || *s > math.MaxInt32) {
		c.invalid(at.Child("activeDeadlineSeconds"), *s, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	if spec.Hostname != "" {
		c.dnsLabel(at.Child("hostname"), spec.Hostname)
	}
	if spec.Subdomain != "" {
		c.dnsLabel(at.Child("subdomain"), spec.Subdomain)
	}
}

// classes checks the names of classes, and how a pod makes others go.
func (c *checker) classes(at *field.Path, spec *corev1.PodSpec) {
	if spec.PriorityClassName != "" {
		c.reasons(at.Child("priorityClassName"), spec.PriorityClassName, apivalidation.NameIsDNSSubdomain(spec.PriorityClassName, false))
	}
	if n := spec.RuntimeClassName; n != nil {
		c.reasons(at.Child("runtimeClassName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
	}
	if p := spec.PreemptionPolicy; p != nil {
		requiredOneOf(c, at.Child("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
}

// gates: names of conditions that readiness waits for, and of those that hold
// scheduling back.
func (c *checker) gates(at *field.Path, spec *corev1.PodSpec) {
	for i, g := range spec.ReadinessGates {
		c.qualifiedName(at.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType))
	}
	seen := sets.New[string]()
	for i, g := range spec.SchedulingGates {
		item := at.Child("schedulingGates").Index(i)
		c.qualifiedName(item, g.Name)
		if seen.Has(g.Name) {
			c.duplicate(item, g.Name)
		}
		seen.Insert(g.Name)
	}
}

func (c *checker) schedulingGroup(at *field.Path, g *corev1.PodSchedulingGroup) {
	name := at.Child("podGroupName")
	if g.PodGroupName == nil {
		c.invalid(name, g.PodGroupName, "must specify one of: `podGroupName`")
		return
	}
	c.reasons(name, *g.PodGroupName, apivalidation.NameIsDNSSubdomain(*g.PodGroupName, false))
}

// hostNamespaces: with user ids of its own, a pod may not enter the host's
// other namespaces, nor use raw devices, which cannot be mapped.
func (c *checker) hostNamespaces(at *field.Path, spec *corev1.PodSpec) {
	if spec.HostUsers == nil || *spec.HostUsers {
		return
	}
	const reason = "when `hostUsers` is false"
	if spec.HostNetwork && !c.hostNetworkWithUserNamespace {
		c.forbidden(at.Child("hostNetwork"), reason)
	}
	if spec.HostPID {
		c.forbidden(at.Child("HostPID"), reason)
	}
	if spec.HostIPC {
		c.forbidden(at.Child("HostIPC"), reason)
	}
	if c.devicesWithUserNamespace {
		return
	}
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		if len(ctr.VolumeDevices) > 0 {
			c.forbidden(p.Child("volumeDevices"), reason)
		}
	})
}

// hostNetworkPorts: in the host's network a port is opened where the container
// opens it. A template may leave it to be defaulted.
func (c *checker) hostNetworkPorts(at *field.Path, spec *corev1.PodSpec) {
	if !spec.HostNetwork {
		return
	}
	for i := range spec.Containers {
		for j, port := range spec.Containers[i].Ports {
			if port.HostPort == port.ContainerPort || port.HostPort == 0 && !c.isPod {
				continue
			}
			c.invalid(at.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort, "must match `containerPort` when `hostNetwork` is true")
		}
	}
}
