package kinds

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ingressRules checks the spec of an ingress. Its flags suspend rules that came
// after objects had been let in without them.
type ingressRules struct {
	errs field.ErrorList

	secretNames   bool // names of TLS secrets that no secret can have
	wildcardRules bool // anything below a host with a wildcard
}

func (r *ingressRules) add(errs ...*field.Error) { r.errs = append(r.errs, errs...) }

func (r *ingressRules) each(path *field.Path, value any, msgs []string) {
	r.add(invalidEach(path, value, msgs)...)
}

// validateIngress forgives what old already has wrong; old is nil on create.
func validateIngress(i, old *networkingv1.Ingress) field.ErrorList {
	r := &ingressRules{}
	if old != nil {
		r.secretNames = hasBadTLSSecret(old)
		r.wildcardRules = hasBadWildcardRule(old)
	}
	r.spec(&i.Spec, field.NewPath("spec"))
	return r.errs
}

func validateIngressClassAnnotation(i *networkingv1.Ingress) field.ErrorList {
	class, ok := i.Annotations[ingressClassAnnotation]
	if !ok || i.Spec.IngressClassName == nil || class == *i.Spec.IngressClassName {
		return nil
	}
	// Without metadata, as Kubernetes reports it.
	return field.ErrorList{field.Invalid(field.NewPath("annotations", ingressClassAnnotation), class,
		"must match `ingressClassName` when both are specified")}
}

func hasBadTLSSecret(i *networkingv1.Ingress) bool {
	for _, tls := range i.Spec.TLS {
		if tls.SecretName != "" && len(apivalidation.NameIsDNSSubdomain(tls.SecretName, false)) > 0 {
			return true
		}
	}
	return false
}

func hasBadWildcardRule(i *networkingv1.Ingress) bool {
	for n := range i.Spec.Rules {
		rule := &i.Spec.Rules[n]
		r := &ingressRules{}
		if r.http(rule.HTTP, nil); strings.Contains(rule.Host, "*") && len(r.errs) > 0 {
			return true
		}
	}
	return false
}

func (r *ingressRules) spec(spec *networkingv1.IngressSpec, path *field.Path) {
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		r.add(field.Invalid(path, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		r.backend(spec.DefaultBackend, path.Child("defaultBackend"))
	}
	for i := range spec.Rules {
		r.rule(&spec.Rules[i], path.Child("rules").Index(i))
	}
	for i := range spec.TLS {
		r.tls(&spec.TLS[i], path.Child("tls").Index(i))
	}
	if name := spec.IngressClassName; name != nil {
		r.each(path.Child("ingressClassName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
}

// host accepts names in DNS, the first label of which may be a wildcard.
func (r *ingressRules) host(host string, path *field.Path) {
	if strings.Contains(host, "*") {
		r.each(path, host, validation.IsWildcardDNS1123Subdomain(host))
	} else {
		r.each(path, host, validation.IsDNS1123Subdomain(host))
	}
}

func (r *ingressRules) tls(tls *networkingv1.IngressTLS, path *field.Path) {
	for i, host := range tls.Hosts {
		r.host(host, path.Child("hosts").Index(i))
	}
	if tls.SecretName != "" && !r.secretNames {
		r.each(path.Child("secretName"), tls.SecretName, apivalidation.NameIsDNSSubdomain(tls.SecretName, false))
	}
}

func (r *ingressRules) rule(rule *networkingv1.IngressRule, path *field.Path) {
	if rule.Host != "" {
		at := path.Child("host")
		if netutils.ParseIPSloppy(rule.Host) != nil {
			r.add(field.Invalid(at, rule.Host, "must be a DNS name, not an IP address"))
		}
		r.host(rule.Host, at)
	}
	if !r.wildcardRules || !strings.Contains(rule.Host, "*") {
		r.http(rule.HTTP, path.Child("http"))
	}
}

func (r *ingressRules) http(http *networkingv1.HTTPIngressRuleValue, path *field.Path) {
	if http == nil {
		return
	}
	at := path.Child("paths")
	if len(http.Paths) == 0 {
		r.add(field.Required(at, ""))
	}
	for i := range http.Paths {
		r.path(&http.Paths[i], at.Index(i))
	}
}

func (r *ingressRules) path(p *networkingv1.HTTPIngressPath, path *field.Path) {
	if p.PathType == nil {
		r.add(field.Required(path.Child("pathType"), "pathType must be specified"))
		return
	}
	at := path.Child("path")
	absolute := strings.HasPrefix(p.Path, "/")
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !absolute {
			r.add(field.Invalid(at, p.Path, "must be an absolute path"))
		}
		for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(p.Path, part) {
				r.add(field.Invalid(at, p.Path, fmt.Sprintf("must not contain '%s'", part)))
			}
		}
		for _, end := range []string{"/..", "/."} {
			if strings.HasSuffix(p.Path, end) {
				r.add(field.Invalid(at, p.Path, fmt.Sprintf("cannot end with '%s'", end)))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !absolute {
			r.add(field.Invalid(at, p.Path, "must be an absolute path"))
		}
	default:
		r.add(field.NotSupported(path.Child("pathType"), *p.PathType, []networkingv1.PathType{
			networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix,
		}))
	}
	r.backend(&p.Backend, path.Child("backend"))
}

func (r *ingressRules) backend(b *networkingv1.IngressBackend, path *field.Path) {
	switch {
	case b.Resource != nil && b.Service != nil:
		r.add(field.Invalid(path, "", "cannot set both resource and service backends"))
	case b.Resource != nil:
		r.resource(b.Resource, path.Child("resource"))
	case b.Service != nil:
		r.service(b.Service, path)
	default:
		r.add(field.Invalid(path, "", "resource or service backend is required"))
	}
}

func (r *ingressRules) resource(ref *corev1.TypedLocalObjectReference, path *field.Path) {
	if ref.APIGroup != nil {
		r.each(path.Child("apiGroup"), *ref.APIGroup, validation.IsDNS1123Subdomain(*ref.APIGroup))
	}
	r.add(requiredSegment(ref.Kind, path.Child("kind"), "")...)
	r.add(requiredSegment(ref.Name, path.Child("name"), "")...)
}

func (r *ingressRules) service(s *networkingv1.IngressServiceBackend, path *field.Path) {
	name := path.Child("service", "name")
	if s.Name == "" {
		r.add(field.Required(name, ""))
	} else {
		r.each(name, s.Name, apivalidation.NameIsDNSLabel(s.Name, false))
	}
	port := path.Child("service", "port")
	switch {
	case s.Port.Name != "" && s.Port.Number != 0:
		r.add(field.Invalid(path, "", "cannot set both port name & port number"))
	case s.Port.Name != "":
		r.each(port.Child("name"), s.Port.Name, validation.IsValidPortName(s.Port.Name))
	case s.Port.Number != 0:
		r.add(isPort(s.Port.Number, port.Child("number"))...)
	default:
		r.add(field.Required(path, "port name or number is required"))
	}
}

// validateIngressStatus accepts addresses that old already has, however written.
func validateIngressStatus(i, old *networkingv1.Ingress) field.ErrorList {
	var known []string
	for _, entry := range old.Status.LoadBalancer.Ingress {
		if entry.IP != "" {
			known = append(known, entry.IP)
		}
	}
	var errs field.ErrorList
	path := field.NewPath("status", "loadBalancer", "ingress")
	for n, entry := range i.Status.LoadBalancer.Ingress {
		if entry.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(path.Index(n).Child("ip"), entry.IP, true, known)...)
		}
		if at := path.Index(n).Child("hostname"); entry.Hostname != "" {
			errs = append(errs, invalidEach(at, entry.Hostname, validation.IsDNS1123Subdomain(entry.Hostname))...)
			if netutils.ParseIPSloppy(entry.Hostname) != nil {
				errs = append(errs, field.Invalid(at, entry.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
