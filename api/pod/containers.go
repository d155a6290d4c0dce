package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) containers(at *field.Path, s *scope) {
	ctrs := s.spec.Containers
	if len(ctrs) == 0 {
		c.required(at, "")
		return
	}
	names := sets.New[string]()
	for i := range ctrs {
		ctr, p := &ctrs[i], at.Index(i)
		c.container(p, ctr, s)
		if names.Has(ctr.Name) {
			c.duplicate(p.Child("name"), ctr.Name)
		}
		names.Insert(ctr.Name)
		c.hooksAndProbes(p, ctr, s.spec)
		c.containerRestart(p, ctr, false)
	}
	// Regular containers run together, so that a host port serves one of them.
	c.hostPortsUnique(at, ctrs)
}

func (c *checker) initContainers(at *field.Path, s *scope) {
	names := sets.New[string]()
	for i := range s.spec.Containers {
		names.Insert(s.spec.Containers[i].Name)
	}
	for i := range s.spec.InitContainers {
		ctr, p := &s.spec.InitContainers[i], at.Index(i)
		c.container(p, ctr, s)
		c.containerRestart(p, ctr, true)
		if names.Has(ctr.Name) {
			c.duplicate(p.Child("name"), ctr.Name)
		}
		if ctr.Name != "" {
			names.Insert(ctr.Name)
		}
		// Init containers run one after the other. The path always names the
		// first of them: upstream's oddity, kept.
		c.hostPortsUnique(at, s.spec.InitContainers[i:i+1])
		if isSidecar(ctr) {
			c.hooksAndProbes(p, ctr, s.spec)
			continue
		}
		c.endsByItself(p, ctr)
	}
}

// endsByItself refuses what only makes sense for a container that keeps running.
func (c *checker) endsByItself(at *field.Path, ctr *corev1.Container) {
	const reason = "may not be set for init containers without restartPolicy=Always"
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"lifecycle", ctr.Lifecycle != nil},
		{"livenessProbe", ctr.LivenessProbe != nil},
		{"readinessProbe", ctr.ReadinessProbe != nil},
		{"startupProbe", ctr.StartupProbe != nil},
	} {
		if f.set {
			c.forbidden(at.Child(f.name), reason)
		}
	}
	if c.initResizeRestart {
		return
	}
	for i, p := range ctr.ResizePolicy {
		if p.RestartPolicy == corev1.RestartContainer {
			c.invalid(at.Child("resizePolicy").Index(i).Child("restartPolicy"), p.RestartPolicy,
				"must not be set to 'RestartContainer' for non-sidecar initContainers")
		}
	}
}

// container checks what all kinds of container have in common.
func (c *checker) container(at *field.Path, ctr *corev1.Container, s *scope) {
	if c.nonEmpty(at.Child("name"), ctr.Name) {
		c.dnsLabel(at.Child("name"), ctr.Name)
	}
	c.nonEmpty(at.Child("image"), ctr.Image)
	requiredOneOf(c, at.Child("terminationMessagePolicy"), ctr.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	c.ports(at.Child("ports"), ctr.Ports)
	c.env(at.Child("env"), ctr.Env)
	c.envFrom(at.Child("envFrom"), ctr.EnvFrom)
	c.volumeMounts(at.Child("volumeMounts"), ctr, s.volumes)
	c.volumeDevices(at.Child("volumeDevices"), ctr, s.volumes)
	c.pullPolicy(at.Child("imagePullPolicy"), ctr.ImagePullPolicy)
	c.resourceRequirements(at.Child("resources"), &ctr.Resources, containerResource, s.claims)
	c.resizePolicy(at.Child("resizePolicy"), ctr.ResizePolicy, s.spec.RestartPolicy)
	c.securityContext(at.Child("securityContext"), ctr.SecurityContext, s.hostUsers)
}

func (c *checker) pullPolicy(at *field.Path, p corev1.PullPolicy) {
	requiredOneOf(c, at, p, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func (c *checker) ports(at *field.Path, ports []corev1.ContainerPort) {
	names := sets.New[string]()
	for i, port := range ports {
		p := at.Index(i)
		if port.Name != "" {
			if reasons := validation.IsValidPortName(port.Name); len(reasons) > 0 {
				c.reasons(p.Child("name"), port.Name, reasons)
			} else if names.Has(port.Name) {
				c.duplicate(p.Child("name"), port.Name)
			}
			names.Insert(port.Name)
		}
		if port.ContainerPort == 0 {
			c.required(p.Child("containerPort"), "")
		} else {
			c.reasons(p.Child("containerPort"), port.ContainerPort, validation.IsValidPortNum(int(port.ContainerPort)))
		}
		if port.HostPort != 0 {
			c.reasons(p.Child("hostPort"), port.HostPort, validation.IsValidPortNum(int(port.HostPort)))
		}
		requiredOneOf(c, p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// hostPortsUnique: no two ports of these containers on one port of the host.
func (c *checker) hostPortsUnique(at *field.Path, ctrs []corev1.Container) {
	seen := sets.New[string]()
	for i := range ctrs {
		for j, port := range ctrs[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
			if seen.Has(key) {
				c.duplicate(at.Index(i).Child("ports").Index(j).Child("hostPort"), key)
			}
			seen.Insert(key)
		}
	}
}

func (c *checker) resizePolicy(at *field.Path, policies []corev1.ContainerResizePolicy, restart corev1.RestartPolicy) {
	seen := sets.New[corev1.ResourceName]()
	for i, p := range policies {
		if seen.Has(p.ResourceName) {
			c.duplicate(at.Index(i), p.ResourceName)
		}
		seen.Insert(p.ResourceName)
		requiredOneOf(c, at, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		requiredOneOf(c, at, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if restart == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			c.invalid(at, p.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}

// Bounds of restart rules.
const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// containerRestart checks a restart policy of a container's own, with its rules.
// Rules of init containers without a policy are not looked at.
func (c *checker) containerRestart(at *field.Path, ctr *corev1.Container, init bool) {
	policy, rules := ctr.RestartPolicy, ctr.RestartPolicyRules
	if policy == nil && len(rules) > 0 {
		c.required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
		if init {
			return
		}
	}
	optionalOneOf(c, at.Child("restartPolicy"), policy,
		corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	list := at.Child("restartPolicyRules")
	if len(rules) > maxRestartRules {
		c.add(field.TooMany(list, len(rules), maxRestartRules))
	}
	for i, rule := range rules {
		p := list.Index(i)
		oneOf(c, p.Child("action"), rule.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		codes := p.Child("exitCodes")
		if rule.ExitCodes == nil {
			c.required(codes, "must be specified")
			continue
		}
		oneOf(c, codes.Child("operator"), rule.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(rule.ExitCodes.Values); n > maxRestartExitCodes {
			c.add(field.TooMany(codes.Child("values"), n, maxRestartExitCodes))
		}
	}
}
