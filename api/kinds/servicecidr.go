package kinds

import (
	"net/netip"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"hansa.dev/hansa/api"
)

// DefaultServiceCIDR has the ranges that the server was started with.
const DefaultServiceCIDR = "kubernetes"

// RangeContains says whether an address is one that a range of service addresses
// can give: its first is the network's, IPv4's last one the broadcast's.
func RangeContains(p netip.Prefix, ip netip.Addr) bool {
	if p = p.Masked(); !p.Contains(ip) || ip == p.Addr() {
		return false
	}
	return !ip.Is4() || p.Contains(ip.Next())
}

func serviceCIDR() *api.Resource {
	gv := networkingv1.SchemeGroupVersion
	return stored[networkingv1.ServiceCIDR, *networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](gv, &api.Resource{
		Plural:        "servicecidrs",
		Singular:      "servicecidr",
		Kind:          "ServiceCIDR",
		Prefix:        "servicecidrs",
		PrepareCreate: on(func(c *networkingv1.ServiceCIDR) { c.Status = networkingv1.ServiceCIDRStatus{} }),
		PrepareUpdate: onUpdate(func(c, old *networkingv1.ServiceCIDR) { c.Status = *old.Status.DeepCopy() }),
		Validate: validates(func(c *networkingv1.ServiceCIDR) field.ErrorList {
			return validateCIDRs(&c.Spec, field.NewPath("spec", "cidrs"))
		}),
		ValidateUpdate:           validatesUpdate(validateServiceCIDRUpdate),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("CIDRs", "string", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]),
				ageColumn(),
			},
			Row: cells(func(c *networkingv1.ServiceCIDR, now time.Time) []any {
				return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), age(c.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(c, old *networkingv1.ServiceCIDR) {
					c.Spec = *old.Spec.DeepCopy()
					keepMeta(c, old)
				}),
				ValidateUpdate: validatesUpdate(func(_, _ *networkingv1.ServiceCIDR) field.ErrorList { return nil }),
				ResetFields:    resets(gv, "metadata", "spec"),
			},
		},
	})
}

// validateCIDRs accepts a range of each family at most.
func validateCIDRs(spec *networkingv1.ServiceCIDRSpec, path *field.Path) field.ErrorList {
	switch n := len(spec.CIDRs); {
	case n == 0:
		return field.ErrorList{field.Required(path, "at least one CIDR required")}
	case n > 2:
		return field.ErrorList{field.Invalid(path, spec, "may only hold up to 2 values")}
	}
	var errs field.ErrorList
	for i, cidr := range spec.CIDRs {
		errs = append(errs, validation.IsValidCIDR(path.Index(i), cidr)...)
	}
	if len(spec.CIDRs) == 2 {
		family := netutils.IPFamilyOfCIDRString(spec.CIDRs[0])
		if family != netutils.IPFamilyUnknown && family == netutils.IPFamilyOfCIDRString(spec.CIDRs[1]) {
			errs = append(errs, field.Invalid(path, spec.CIDRs,
				"may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
		}
	}
	return errs
}

// validateServiceCIDRUpdate lets a range of the other family be added, and
// nothing else be changed.
func validateServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	path := field.NewPath("spec", "cidrs")
	cidrs, were := c.Spec.CIDRs, old.Spec.CIDRs
	added := len(were) == 1 && len(cidrs) == 2
	if len(were) != len(cidrs) && !added {
		return field.ErrorList{field.Invalid(path, cidrs, apivalidation.FieldImmutableErrorMsg)}
	}
	var errs field.ErrorList
	for i, was := range were {
		if cidrs[i] != was {
			errs = append(errs, field.Invalid(path.Index(i), cidrs[i], apivalidation.FieldImmutableErrorMsg))
		}
	}
	if added {
		errs = append(errs, validateCIDRs(&c.Spec, path)...)
	}
	return errs
}
