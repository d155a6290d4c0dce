package kinds

import (
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

// ipAddress is the claim of a service to one of its addresses, which the
// object's name is. The allocator of services writes them.
func ipAddress() *api.Resource {
	return stored[networkingv1.IPAddress, *networkingv1.IPAddress, networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, &api.Resource{
		Plural:     "ipaddresses",
		Singular:   "ipaddress",
		Kind:       "IPAddress",
		ShortNames: []string{"ip"},
		Prefix:     "ipaddresses",
		ChecksBase: true,
		NameRule:   isCanonicalIP,
		PlainNames: true,
		Validate:   validates(validateIPAddress),
		ValidateUpdate: validatesUpdate(func(a, old *networkingv1.IPAddress) field.ErrorList {
			return append(validateIPAddress(a), immutable(a.Spec.ParentRef, old.Spec.ParentRef, field.NewPath("spec", "parentRef"))...)
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("ParentRef", "string", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
			},
			Row: cells(func(a *networkingv1.IPAddress, _ time.Time) []any {
				return []any{a.Name, parentRefCell(a.Spec.ParentRef)}
			}),
		},
	})
}

// ServiceAddressManager is the label managed-by of the claims of services.
const ServiceAddressManager = "ipallocator.k8s.io"

// ServiceAddress is the claim of a service to an address.
func ServiceAddress(ip netip.Addr, s *corev1.Service) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: ip.String(),
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(IPFamilyOf(ip)),
				networkingv1.LabelManagedBy:       ServiceAddressManager,
			},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	}
}

// IPFamilyOf is the family of an address.
func IPFamilyOf(ip netip.Addr) corev1.IPFamily {
	if ip.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// isCanonicalIP is the rule for names that are addresses: there is one way to
// write each.
func isCanonicalIP(name string, _ bool) []string {
	var reasons []string
	for _, err := range validation.IsValidIP(nil, name) {
		reasons = append(reasons, err.Detail)
	}
	return reasons
}

func validateIPAddress(a *networkingv1.IPAddress) field.ErrorList {
	ref, path := a.Spec.ParentRef, field.NewPath("spec", "parentRef")
	if ref == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if ref.Group != "" { // the core group's name is empty
		errs = append(errs, invalidEach(path.Child("group"), ref.Group, validation.IsDNS1123Subdomain(ref.Group))...)
	}
	errs = append(errs, requiredSegment(ref.Resource, path.Child("resource"), "")...)
	errs = append(errs, requiredSegment(ref.Name, path.Child("name"), "")...)
	return append(errs, invalidEach(path.Child("namespace"), ref.Namespace, content.IsPathSegmentName(ref.Namespace))...)
}

func parentRefCell(ref *networkingv1.ParentReference) string {
	if ref == nil {
		return unset
	}
	parts := []string{strings.ToLower(schema.GroupResource{Group: ref.Group, Resource: ref.Resource}.String())}
	if ref.Namespace != "" {
		parts = append(parts, ref.Namespace)
	}
	return strings.Join(append(parts, ref.Name), "/")
}
