package kinds

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func endpoints() *api.Resource {
	row := stored[corev1.Endpoints, *corev1.Endpoints, corev1.EndpointsList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:     "endpoints",
		Singular:   "endpoints",
		Kind:       "Endpoints",
		ShortNames: []string{"ep"},
		Namespaced: true,
		Prefix:     "services/endpoints",
		ChecksBase: true,
		Default:    on(defaultEndpoints),
		Validate:   validates(func(e *corev1.Endpoints) field.ErrorList { return validateEndpoints(e, nil) }),
		ValidateUpdate: validatesUpdate(func(e, old *corev1.Endpoints) field.ErrorList {
			return validateEndpoints(e, old)
		}),
		Warnings:                 warns(warnEndpoints),
		AllowCreateOnUpdate:      true,
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]),
				ageColumn(),
			},
			Row: cells(func(e *corev1.Endpoints, now time.Time) []any {
				return []any{e.Name, endpointsCell(e), age(e.CreationTimestamp, now)}
			}),
		},
	})
	row.Versions[0].Deprecated = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
	return row
}

func defaultEndpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if port := &e.Subsets[i].Ports[j]; port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// validateEndpoints accepts subsets that are those of old, whatever is wrong
// with them: earlier versions of Kubernetes were less strict.
func validateEndpoints(e, old *corev1.Endpoints) field.ErrorList {
	var errs field.ErrorList
	for i := range e.Subsets {
		errs = append(errs, validateSubset(&e.Subsets[i], field.NewPath("subsets").Index(i))...)
	}
	if len(errs) > 0 && old != nil && equality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
		return nil
	}
	return errs
}

func validateSubset(subset *corev1.EndpointSubset, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(subset.Addresses)+len(subset.NotReadyAddresses) == 0 {
		errs = append(errs, field.Required(path, "must specify `addresses` or `notReadyAddresses`"))
	}
	for i := range subset.Addresses {
		errs = append(errs, validateEndpointAddress(&subset.Addresses[i], path.Child("addresses").Index(i))...)
	}
	for i := range subset.NotReadyAddresses {
		errs = append(errs, validateEndpointAddress(&subset.NotReadyAddresses[i], path.Child("notReadyAddresses").Index(i))...)
	}
	for i := range subset.Ports {
		errs = append(errs, validateEndpointPort(&subset.Ports[i], len(subset.Ports) > 1, path.Child("ports").Index(i))...)
	}
	return errs
}

func validateEndpointAddress(a *corev1.EndpointAddress, path *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(path.Child("ip"), a.IP, true, nil)
	if a.Hostname != "" {
		errs = append(errs, isDNSLabel(a.Hostname, path.Child("hostname"))...)
	}
	if a.NodeName != nil {
		errs = append(errs, invalidEach(path.Child("nodeName"), *a.NodeName, apivalidation.NameIsDNSSubdomain(*a.NodeName, false))...)
	}
	return append(errs, isRoutableIP(a.IP, path.Child("ip"))...)
}

func validateEndpointPort(p *corev1.EndpointPort, named bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Name != "" {
		errs = append(errs, isDNSLabel(p.Name, path.Child("name"))...)
	} else if named {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	errs = append(errs, isPort(p.Port, path.Child("port"))...)
	errs = append(errs, oneOf(p.Protocol, path.Child("protocol"), protocols...)...)
	if p.AppProtocol != nil {
		errs = append(errs, isQualifiedName(*p.AppProtocol, path.Child("appProtocol"))...)
	}
	return errs
}

// warnEndpoints trusts the loop that writes addresses in canonical form.
func warnEndpoints(e, _ *corev1.Endpoints) []string {
	if e.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
		return nil
	}
	var warnings []string
	for i, subset := range e.Subsets {
		path := field.NewPath("subsets").Index(i)
		for j, a := range subset.Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range subset.NotReadyAddresses {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return warnings
}

// shownEndpoints is how many addresses a cell lists before it only counts.
const shownEndpoints = 3

func endpointsCell(e *corev1.Endpoints) string {
	if len(e.Subsets) == 0 {
		return unset
	}
	var list []string
	for _, subset := range e.Subsets {
		if len(subset.Ports) == 0 {
			for _, a := range subset.Addresses {
				list = append(list, a.IP)
			}
		}
		for _, p := range subset.Ports {
			for _, a := range subset.Addresses {
				list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return firstFew(list)
}

func firstFew(list []string) string {
	if len(list) <= shownEndpoints {
		return strings.Join(list, ",")
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(list[:shownEndpoints], ","), len(list)-shownEndpoints)
}
