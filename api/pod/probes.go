package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// hooksAndProbes checks the lifecycle and the probes of a container that keeps
// running.
func (c *checker) hooksAndProbes(at *field.Path, ctr *corev1.Container, spec *corev1.PodSpec) {
	if ctr.Lifecycle != nil {
		c.lifecycle(at.Child("lifecycle"), ctr.Lifecycle, spec)
	}
	if p := ctr.LivenessProbe; p != nil {
		c.probe(at.Child("livenessProbe"), p)
		c.successOnce(at.Child("livenessProbe"), p)
	}
	if p := ctr.ReadinessProbe; p != nil {
		c.probe(at.Child("readinessProbe"), p)
		if p.TerminationGracePeriodSeconds != nil {
			c.invalid(at.Child("readinessProbe", "terminationGracePeriodSeconds"), p.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
		}
	}
	if p := ctr.StartupProbe; p != nil {
		c.probe(at.Child("startupProbe"), p)
		c.successOnce(at.Child("startupProbe"), p)
	}
}

func (c *checker) probe(at *field.Path, p *corev1.Probe) {
	c.handler(at, handler{exec: p.Exec, httpGet: p.HTTPGet, tcpSocket: p.TCPSocket, grpc: p.GRPC}, nil)
	c.nonNegative(at.Child("initialDelaySeconds"), int64(p.InitialDelaySeconds))
	c.nonNegative(at.Child("timeoutSeconds"), int64(p.TimeoutSeconds))
	c.nonNegative(at.Child("periodSeconds"), int64(p.PeriodSeconds))
	c.nonNegative(at.Child("successThreshold"), int64(p.SuccessThreshold))
	c.nonNegative(at.Child("failureThreshold"), int64(p.FailureThreshold))
	if s := p.TerminationGracePeriodSeconds; s != nil && *s <= 0 {
		c.invalid(at.Child("terminationGracePeriodSeconds"), *s, "must be greater than 0")
	}
}

func (c *checker) successOnce(at *field.Path, p *corev1.Probe) {
	if p.SuccessThreshold != 1 {
		c.invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1")
	}
}

func (c *checker) lifecycle(at *field.Path, l *corev1.Lifecycle, spec *corev1.PodSpec) {
	hook := func(name string, h *corev1.LifecycleHandler) {
		if h != nil {
			c.handler(at.Child(name), handler{exec: h.Exec, httpGet: h.HTTPGet, tcpSocket: h.TCPSocket, sleep: h.Sleep}, spec.TerminationGracePeriodSeconds)
		}
	}
	hook("postStart", l.PostStart)
	hook("preStop", l.PreStop)
	if l.StopSignal != nil {
		c.stopSignal(at.Child("stopSignal"), *l.StopSignal, spec.OS)
	}
}

// handler is what probes and hooks can do, of which exactly one must be set.
type handler struct {
	exec      *corev1.ExecAction
	httpGet   *corev1.HTTPGetAction
	tcpSocket *corev1.TCPSocketAction
	grpc      *corev1.GRPCAction
	sleep     *corev1.SleepAction
}

// handler checks the first action that is set, and that there is no other.
// grace, in seconds, bounds how long a hook may sleep; nil means unknown.
func (c *checker) handler(at *field.Path, h handler, grace *int64) {
	one := exclusive{c: c, at: at, reason: "may not specify more than 1 handler type"}
	one.of("exec", h.exec != nil, func(p *field.Path) {
		if len(h.exec.Command) == 0 {
			c.required(p.Child("command"), "")
		}
	})
	one.of("httpGet", h.httpGet != nil, func(p *field.Path) { c.httpGet(p, h.httpGet) })
	one.of("tcpSocket", h.tcpSocket != nil, func(p *field.Path) { c.port(p.Child("port"), h.tcpSocket.Port) })
	one.of("grpc", h.grpc != nil, func(p *field.Path) { c.port(p.Child("port"), intstr.FromInt32(h.grpc.Port)) })
	one.of("sleep", h.sleep != nil, func(p *field.Path) {
		if grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			c.invalid(p, h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
		}
	})
	if !one.found {
		c.required(at, "must specify a handler type")
	}
}

// exclusive walks over alternatives of which one may be set: the first that is
// gets checked, the others are forbidden.
type exclusive struct {
	c      *checker
	at     *field.Path
	reason string
	found  bool
}

func (e *exclusive) of(name string, set bool, check func(*field.Path)) {
	switch {
	case !set:
	case e.found:
		e.c.forbidden(e.at.Child(name), e.reason)
	default:
		e.found = true
		check(e.at.Child(name))
	}
}

func (c *checker) httpGet(at *field.Path, a *corev1.HTTPGetAction) {
	c.nonEmpty(at.Child("path"), a.Path)
	c.port(at.Child("port"), a.Port)
	oneOf(c, at.Child("scheme"), a.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, h := range a.HTTPHeaders {
		c.reasons(at.Child("httpHeaders"), h.Name, validation.IsHTTPHeaderName(h.Name))
	}
}

func (c *checker) port(at *field.Path, port intstr.IntOrString) {
	c.add(ValidatePortNumOrName(port, at)...)
}

// ValidatePortNumOrName checks a port given by number or by the name of a
// container's port.
func ValidatePortNumOrName(port intstr.IntOrString, path *field.Path) field.ErrorList {
	c := &checker{}
	switch port.Type {
	case intstr.Int:
		c.reasons(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	case intstr.String:
		c.reasons(path, port.StrVal, validation.IsValidPortName(port.StrVal))
	default:
		c.add(field.InternalError(path, fmt.Errorf("unknown type: %v", port.Type)))
	}
	return c.errs
}
