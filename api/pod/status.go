package pod

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ValidateStatusUpdate says what is wrong with a new status of a pod. The spec
// must be old's (PrepareStatusUpdate sees to it).
func ValidateStatusUpdate(p, old *corev1.Pod) field.ErrorList {
	c := &checker{isPod: true}
	_, c.deletionCost = deletionCostFlaw(old.Annotations)
	c.podAnnotations(field.NewPath("metadata", "annotations"), p.Annotations, &p.Spec)
	c.annotationsKept(p.Annotations, old.Annotations)

	at := field.NewPath("status")
	s, was := &p.Status, &old.Status
	c.conditions(at.Child("conditions"), s.Conditions)
	if p.Spec.NodeName != old.Spec.NodeName {
		c.forbidden(at.Child("nodeName"), "may not be changed directly")
	}
	if n := s.NominatedNodeName; n != "" && n != was.NominatedNodeName {
		c.reasons(at.Child("nominatedNodeName"), n, apivalidation.NameIsDNSSubdomain(n, false))
		if old.Spec.NodeName != "" {
			c.forbidden(at.Child("nominatedNodeName"), "may not be set on pods that are already bound to a node")
		}
	}
	c.observedGeneration(at, s.ObservedGeneration)
	c.add(apivalidation.ValidateImmutableField(s.QOSClass, was.QOSClass, at.Child("qosClass"))...)

	c.restarts(at.Child("containerStatuses"), s.ContainerStatuses, was.ContainerStatuses, &old.Spec, old.Spec.Containers)
	c.restarts(at.Child("initContainerStatuses"), s.InitContainerStatuses, was.InitContainerStatuses, &old.Spec, old.Spec.InitContainers)
	c.ephemeralRestarts(at.Child("ephemeralContainerStatuses"), s.EphemeralContainerStatuses, was.EphemeralContainerStatuses)

	c.claimStatuses(at.Child("resourceClaimStatuses"), s.ResourceClaimStatuses, p.Spec.ResourceClaims)
	if s.ExtendedResourceClaimStatus != nil {
		c.extendedClaimStatus(at.Child("extendedResourceClaimStatus"), s.ExtendedResourceClaimStatus, &p.Spec)
	}
	c.statusAddresses(at, s, was)

	c.containerUsers(at.Child("containerStatuses"), s.ContainerStatuses, p.Spec.OS)
	c.containerUsers(at.Child("initContainerStatuses"), s.InitContainerStatuses, p.Spec.OS)
	c.containerUsers(at.Child("ephemeralContainerStatuses"), s.EphemeralContainerStatuses, p.Spec.OS)
	c.deviceHealth(at.Child("containerStatuses"), s.ContainerStatuses, p.Spec.Containers)
	c.deviceHealth(at.Child("initContainerStatuses"), s.InitContainerStatuses, p.Spec.InitContainers)
	for i, e := range s.EphemeralContainerStatuses {
		if len(e.AllocatedResourcesStatus) > 0 {
			c.forbidden(at.Child("ephemeralContainerStatuses").Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status")
		}
	}
	return c.errs
}

func (c *checker) observedGeneration(at *field.Path, g int64) {
	if g < 0 {
		c.invalid(at.Child("observedGeneration"), g, "must be a non-negative integer")
	}
}

func (c *checker) conditions(at *field.Path, list []corev1.PodCondition) {
	for i, condition := range list {
		c.observedGeneration(at.Index(i), condition.ObservedGeneration)
		switch condition.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			c.qualifiedName(at.Index(i).Child("Type"), string(condition.Type))
		}
	}
}

// restarts: a container that has ended runs again only if its policy says so.
func (c *checker) restarts(at *field.Path, list, old []corev1.ContainerStatus, spec *corev1.PodSpec, ctrs []corev1.Container) {
	if restartsAllContainers(spec) {
		return
	}
	c.revived(at, list, old, func(s *corev1.ContainerStatus) bool {
		i := slices.IndexFunc(ctrs, func(ctr corev1.Container) bool { return ctr.Name == s.Name })
		return i >= 0 && shouldRestart(&ctrs[i], spec.RestartPolicy, s.State.Terminated.ExitCode)
	})
}

func (c *checker) ephemeralRestarts(at *field.Path, list, old []corev1.ContainerStatus) {
	c.revived(at, list, old, func(*corev1.ContainerStatus) bool { return false })
}

// revived reports containers that have ended in old and not in list, unless they
// may. The index in the path is that of old.
func (c *checker) revived(at *field.Path, list, old []corev1.ContainerStatus, may func(*corev1.ContainerStatus) bool) {
	for i := range old {
		if old[i].State.Terminated == nil {
			continue
		}
		j := slices.IndexFunc(list, func(s corev1.ContainerStatus) bool {
			return s.Name == old[i].Name && s.State.Terminated == nil
		})
		if j >= 0 && !may(&old[i]) {
			c.forbidden(at.Index(i).Child("state"), "may not be transitioned to non-terminated state")
		}
	}
}

// restartsAllContainers: one container's rule may start all others again,
// whatever their own policies.
func restartsAllContainers(spec *corev1.PodSpec) bool {
	for _, ctrs := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range ctrs {
			for _, r := range ctrs[i].RestartPolicyRules {
				if r.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// shouldRestart: the first rule that matches the exit code decides, then the
// container's own policy, then the pod's.
func shouldRestart(ctr *corev1.Container, pod corev1.RestartPolicy, exitCode int32) bool {
	policy := pod
	if ctr.RestartPolicy != nil {
		for _, r := range ctr.RestartPolicyRules {
			if r.ExitCodes == nil {
				continue
			}
			in := slices.Contains(r.ExitCodes.Values, exitCode)
			matches := in && r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn ||
				!in && r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn
			if matches {
				if r.Action == corev1.ContainerRestartRuleActionRestart {
					return true
				}
				break
			}
		}
		policy = corev1.RestartPolicy(*ctr.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

func (c *checker) claimStatuses(at *field.Path, list []corev1.PodResourceClaimStatus, claims []corev1.PodResourceClaim) {
	seen := sets.New[string]()
	for i, s := range list {
		p := at.Index(i)
		if !slices.ContainsFunc(claims, func(claim corev1.PodResourceClaim) bool { return claim.Name == s.Name }) {
			c.invalid(p.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		if seen.Has(s.Name) {
			c.duplicate(p.Child("name"), s.Name)
		}
		seen.Insert(s.Name)
		if n := s.ResourceClaimName; n != nil {
			c.reasons(p.Child("resourceClaimName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
		}
	}
}

func (c *checker) extendedClaimStatus(at *field.Path, s *corev1.PodExtendedResourceClaimStatus, spec *corev1.PodSpec) {
	ctrs := map[string]*corev1.Container{}
	eachContainer(&corev1.PodSpec{InitContainers: spec.InitContainers, Containers: spec.Containers}, nil,
		func(ctr *corev1.Container, _ *field.Path) { ctrs[ctr.Name] = ctr })
	list := at.Child("requestMappings")
	if len(s.RequestMappings) == 0 {
		c.required(list, "at least one request mapping is required")
	}
	seen := sets.New[corev1.ContainerExtendedResourceRequest]()
	for i, m := range s.RequestMappings {
		p := list.Index(i)
		if ctr := ctrs[m.ContainerName]; ctr == nil {
			c.invalid(p.Child("containerName"), m.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name")
		} else if _, ok := ctr.Resources.Requests[corev1.ResourceName(m.ResourceName)]; !ok {
			c.invalid(p.Child("resourceName"), m.ResourceName,
				"must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests")
		}
		c.dnsLabel(at.Child("requestName"), m.RequestName)
		if seen.Has(m) {
			c.duplicate(p.Child("containerName"), m.ContainerName)
			c.duplicate(p.Child("resourceName"), m.ResourceName)
			c.duplicate(p.Child("requestName"), m.RequestName)
		}
		seen.Insert(m)
	}
	if name := at.Child("resourceClaimName"); c.nonEmpty(name, s.ResourceClaimName) {
		c.reasons(name, s.ResourceClaimName, apivalidation.NameIsDNSSubdomain(s.ResourceClaimName, false))
	}
}

// statusAddresses: one address of each family at most, of the pod and of its
// host; addresses that were there are kept as they are.
func (c *checker) statusAddresses(at *field.Path, s, old *corev1.PodStatus) {
	podIPs := func(s *corev1.PodStatus) (ips []string) {
		for _, ip := range s.PodIPs {
			ips = append(ips, ip.IP)
		}
		return ips
	}
	hostIPs := func(s *corev1.PodStatus) (ips []string) {
		for _, ip := range s.HostIPs {
			ips = append(ips, ip.IP)
		}
		return ips
	}
	c.onePerFamily(at.Child("podIPs"), podIPs(s), podIPs(old), s.PodIPs)
	if (s.PodIP != "") != (len(s.PodIPs) > 0) {
		c.invalid(at.Child("podIPs"), s.PodIPs, "podIP and podIPs must either both be set or both be unset")
	}
	hosts := at.Child("hostIPs")
	if len(s.HostIPs) > 0 && s.HostIPs[0].IP != s.HostIP {
		c.invalid(hosts.Index(0).Child("ip"), s.HostIPs[0].IP, "must be equal to `hostIP`")
	}
	c.onePerFamily(hosts, hostIPs(s), hostIPs(old), s.HostIPs)
}

func (c *checker) onePerFamily(at *field.Path, ips, keep []string, shown any) {
	for i, ip := range ips {
		c.ip(at.Index(i), ip, keep)
	}
	if len(ips) < 2 {
		return
	}
	dual, err := netutils.IsDualStackIPStrings(ips)
	if err != nil {
		c.add(field.InternalError(at, fmt.Errorf("failed to check for dual stack with error:%w", err)))
	}
	if !dual || len(ips) > 2 {
		c.invalid(at, shown, "may specify no more than one IP for each IP family")
	}
}

func (c *checker) containerUsers(at *field.Path, list []corev1.ContainerStatus, os *corev1.PodOS) {
	for i := range list {
		if list[i].User == nil || list[i].User.Linux == nil {
			continue
		}
		u, p := list[i].User.Linux, at.Index(i).Child("user", "linux")
		if os != nil && os.Name == corev1.Windows {
			c.forbidden(p, "cannot be set for a windows pod")
			continue
		}
		// The runtime may report any uid_t, what a pod may ask for ends earlier.
		if u.UID < 0 || u.UID > math.MaxUint32 {
			c.invalid(p.Child("uid"), u.UID, fmt.Sprintf("must be between 0 and %d, inclusive", uint32(math.MaxUint32)))
		}
		c.groupID(p.Child("gid"), &u.GID)
		for j := range u.SupplementalGroups {
			c.groupID(p.Child("supplementalGroups").Index(j), &u.SupplementalGroups[j])
		}
	}
}

// deviceHealth checks what is reported about devices: of resources that the
// container asked for, each device once. Containers that are not there (any
// more) are passed over.
func (c *checker) deviceHealth(at *field.Path, list []corev1.ContainerStatus, ctrs []corev1.Container) {
	for i := range list {
		n := slices.IndexFunc(ctrs, func(ctr corev1.Container) bool { return ctr.Name == list[i].Name })
		for j, r := range list[i].AllocatedResourcesStatus {
			p := at.Index(i).Child("allocatedResourcesStatus").Index(j)
			if n >= 0 {
				c.resourceAskedFor(p.Child("name"), r.Name, &ctrs[n].Resources)
			}
			seen := sets.New[corev1.ResourceID]()
			for k, d := range r.Resources {
				device := p.Child("resources").Index(k)
				oneOf(c, device.Child("health"), d.Health,
					corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
				if d.Message != nil && *d.Message == "" {
					c.required(device.Child("message"), "must be non-empty if specified")
				} else if len(deref(d.Message)) > corev1.ResourceHealthMessageMaxLength {
					c.add(field.TooLong(device.Child("message"), "", corev1.ResourceHealthMessageMaxLength))
				}
				if seen.Has(d.ResourceID) {
					c.duplicate(device.Child("resourceID"), d.ResourceID)
				}
				seen.Insert(d.ResourceID)
			}
		}
	}
}

func (c *checker) resourceAskedFor(at *field.Path, name corev1.ResourceName, r *corev1.ResourceRequirements) {
	claim, ok := strings.CutPrefix(string(name), "claim:")
	if !ok {
		if _, asked := r.Requests[name]; !asked {
			c.invalid(at, name, "must match one of the container's resource requests")
		}
		return
	}
	asked := slices.ContainsFunc(r.Claims, func(used corev1.ResourceClaim) bool {
		full := used.Name
		if used.Request != "" {
			full += "/" + used.Request
		}
		return full == claim
	})
	if !asked {
		c.invalid(at, name, "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty")
	}
}
