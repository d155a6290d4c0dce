package kinds

import (
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func networkPolicy() *api.Resource {
	return stored[networkingv1.NetworkPolicy, *networkingv1.NetworkPolicy, networkingv1.NetworkPolicyList](networkingv1.SchemeGroupVersion, &api.Resource{
		Plural:        "networkpolicies",
		Singular:      "networkpolicy",
		Kind:          "NetworkPolicy",
		ShortNames:    []string{"netpol"},
		Namespaced:    true,
		Prefix:        "networkpolicies",
		Inert:         "no node enforces it",
		Default:       on(defaultNetworkPolicy),
		PrepareCreate: on(func(p *networkingv1.NetworkPolicy) { p.Generation = 1 }),
		PrepareUpdate: onUpdate(func(p, old *networkingv1.NetworkPolicy) {
			defaultNetworkPolicy(p)
			// As in Kubernetes an empty list is another one than none.
			if !reflect.DeepEqual(p.Spec, old.Spec) {
				p.Generation = old.Generation + 1
			}
		}),
		Validate: validates(func(p *networkingv1.NetworkPolicy) field.ErrorList {
			return (&policyRules{}).spec(&p.Spec, field.NewPath("spec"))
		}),
		ValidateUpdate: validatesUpdate(func(p, old *networkingv1.NetworkPolicy) field.ErrorList {
			return policyLeniency(old).spec(&p.Spec, field.NewPath("spec"))
		}),
		Warnings:                 warns(warnNetworkPolicy),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Pod-Selector", "string", networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"]),
				ageColumn(),
			},
			Row: cells(func(p *networkingv1.NetworkPolicy, now time.Time) []any {
				return []any{p.Name, metav1.FormatLabelSelector(&p.Spec.PodSelector), age(p.CreationTimestamp, now)}
			}),
		},
	})
}

// defaultNetworkPolicy: a policy that does not say which way it is about is
// about traffic in, and about traffic out if it has rules for that.
func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	spec := &p.Spec
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	eachDirection(spec, nil, func(ports []networkingv1.NetworkPolicyPort, _ []networkingv1.NetworkPolicyPeer, _, _ *field.Path) {
		for i := range ports {
			if ports[i].Protocol == nil {
				ports[i].Protocol = ptr.To(corev1.ProtocolTCP)
			}
		}
	})
}

// eachDirection passes over the rules of both directions, whose parts are alike.
func eachDirection(spec *networkingv1.NetworkPolicySpec, path *field.Path, f func(ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, portsAt, peersAt *field.Path)) {
	for i, rule := range spec.Ingress {
		at := path.Child("ingress").Index(i)
		f(rule.Ports, rule.From, at.Child("ports"), at.Child("from"))
	}
	for i, rule := range spec.Egress {
		at := path.Child("egress").Index(i)
		f(rule.Ports, rule.To, at.Child("ports"), at.Child("to"))
	}
}

// eachBlock passes over the blocks of addresses of a policy.
func eachBlock(spec *networkingv1.NetworkPolicySpec, path *field.Path, f func(*networkingv1.IPBlock, *field.Path)) {
	eachDirection(spec, path, func(_ []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, _, at *field.Path) {
		for i := range peers {
			if peers[i].IPBlock != nil {
				f(peers[i].IPBlock, at.Index(i).Child("ipBlock"))
			}
		}
	})
}

// policyRules is what the old object lets pass; nothing on create.
type policyRules struct {
	labels metav1validation.LabelSelectorValidationOptions
	known  []string // blocks of addresses, however written
}

func policyLeniency(old *networkingv1.NetworkPolicy) *policyRules {
	r := &policyRules{}
	r.labels.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(&old.Spec.PodSelector, r.labels, nil)) > 0
	eachBlock(&old.Spec, nil, func(b *networkingv1.IPBlock, _ *field.Path) {
		r.known = append(append(r.known, b.CIDR), b.Except...)
	})
	return r
}

func (r *policyRules) spec(spec *networkingv1.NetworkPolicySpec, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(&spec.PodSelector, r.labels, path.Child("podSelector"))
	eachDirection(spec, path, func(ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer, portsAt, peersAt *field.Path) {
		for i := range ports {
			errs = append(errs, validatePolicyPort(&ports[i], portsAt.Index(i))...)
		}
		for i := range peers {
			errs = append(errs, r.peer(&peers[i], peersAt.Index(i))...)
		}
	})
	at := path.Child("policyTypes")
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	if len(spec.PolicyTypes) > len(types) {
		return append(errs, field.Invalid(at, &spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range spec.PolicyTypes {
		if !slices.Contains(types, t) {
			errs = append(errs, field.NotSupported(at.Index(i), t, types))
		}
	}
	return errs
}

func validatePolicyPort(p *networkingv1.NetworkPolicyPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Protocol != nil && !slices.Contains(protocols, *p.Protocol) {
		errs = append(errs, field.NotSupported(path.Child("protocol"), *p.Protocol,
			[]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}))
	}
	port, end := path.Child("port"), path.Child("endPort")
	switch {
	case p.Port == nil:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
		}
	case p.Port.Type == intstr.Int:
		errs = append(errs, isPort(p.Port.IntVal, port)...)
		if p.EndPort != nil {
			if *p.EndPort < p.Port.IntVal {
				errs = append(errs, field.Invalid(end, *p.EndPort, "must be greater than or equal to `port`"))
			}
			errs = append(errs, isPort(*p.EndPort, end)...)
		}
	default:
		if p.EndPort != nil {
			errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
		}
		errs = append(errs, invalidEach(port, p.Port.StrVal, validation.IsValidPortName(p.Port.StrVal))...)
	}
	return errs
}

func (r *policyRules) peer(p *networkingv1.NetworkPolicyPeer, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(p.PodSelector, r.labels, path.Child("podSelector"))
	errs = append(errs, metav1validation.ValidateLabelSelector(p.NamespaceSelector, r.labels, path.Child("namespaceSelector"))...)
	selects := p.PodSelector != nil || p.NamespaceSelector != nil
	switch {
	case p.IPBlock != nil:
		errs = append(errs, r.block(p.IPBlock, path.Child("ipBlock"))...)
		if selects {
			errs = append(errs, field.Forbidden(path, "may not specify both ipBlock and another peer"))
		}
	case !selects:
		errs = append(errs, field.Required(path, "must specify a peer"))
	}
	return errs
}

func (r *policyRules) block(b *networkingv1.IPBlock, path *field.Path) field.ErrorList {
	at := path.Child("cidr")
	if b.CIDR == "" {
		return field.ErrorList{field.Required(at, "").MarkBeta()}
	}
	errs := validation.IsValidCIDRForLegacyField(at, b.CIDR, true, r.known)
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return errs // which say so
	}
	for i, except := range b.Except {
		at := path.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(at, except, true, r.known)...)
		_, part, err := netutils.ParseCIDRSloppy(except)
		if err != nil {
			continue
		}
		wholeBits, _ := whole.Mask.Size()
		partBits, _ := part.Mask.Size()
		if !whole.Contains(part.IP) || wholeBits >= partBits {
			errs = append(errs, field.Invalid(at, except, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

func warnNetworkPolicy(p, _ *networkingv1.NetworkPolicy) []string {
	var warnings []string
	eachBlock(&p.Spec, field.NewPath("spec"), func(b *networkingv1.IPBlock, at *field.Path) {
		warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("cidr"), b.CIDR)...)
		for i, except := range b.Except {
			warnings = append(warnings, validation.GetWarningsForCIDR(at.Child("except").Index(i), except)...)
		}
	})
	return warnings
}
