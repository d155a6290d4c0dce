package kinds

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func endpoints() *api.Resource {
	row := stored[corev1.Endpoints, *corev1.Endpoints, corev1.EndpointsList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:       "endpoints",
		Singular:     "endpoints",
		Kind:         "Endpoints",
		ShortNames:   []string{"ep"},
		Namespaced:   true,
		Prefix:       "services/endpoints",
		Default:      on(defaultEndpoints),
		Canonicalize: on(func(e *corev1.Endpoints) { e.Subsets = repackSubsets(e.Subsets) }),
		Validate:     validates(func(e *corev1.Endpoints) field.ErrorList { return validateEndpoints(e, nil) }),
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

// validateEndpoints accepts addresses that old already has, however written.
func validateEndpoints(e, old *corev1.Endpoints) field.ErrorList {
	var known []string
	if old != nil {
		for _, subset := range old.Subsets {
			for _, address := range slices.Concat(subset.Addresses, subset.NotReadyAddresses) {
				known = append(known, address.IP)
			}
		}
	}
	var errs field.ErrorList
	for i := range e.Subsets {
		subset, path := &e.Subsets[i], field.NewPath("subsets").Index(i)
		if len(subset.Addresses)+len(subset.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(path, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range subset.Addresses {
			errs = append(errs, validateEndpointAddress(&subset.Addresses[j], known, path.Child("addresses").Index(j))...)
		}
		for j := range subset.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(&subset.NotReadyAddresses[j], known, path.Child("notReadyAddresses").Index(j))...)
		}
		for j := range subset.Ports {
			errs = append(errs, validateEndpointPort(&subset.Ports[j], len(subset.Ports) > 1, path.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateEndpointAddress(a *corev1.EndpointAddress, known []string, path *field.Path) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(path.Child("ip"), a.IP, true, known)
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

// endpointKey tells addresses apart: one IP may stand for several targets.
type endpointKey struct {
	ip       string
	uid      types.UID
	notReady bool
}

// repackSubsets brings subsets into the one form in which every address is
// listed once, with all its ports; addresses with the same ports share a
// subset. An address that is both ready and not is not ready on that port.
func repackSubsets(subsets []corev1.EndpointSubset) []corev1.EndpointSubset {
	if len(subsets) == 0 {
		return subsets
	}
	addresses := map[endpointKey]corev1.EndpointAddress{}
	byAddress := map[endpointKey]map[string]corev1.EndpointPort{}
	add := func(list []corev1.EndpointAddress, notReady bool, ports []corev1.EndpointPort) {
		for _, a := range list {
			key := endpointKey{ip: a.IP, notReady: notReady}
			if a.TargetRef != nil {
				key.uid = a.TargetRef.UID
			}
			addresses[key] = a
			if byAddress[key] == nil {
				byAddress[key] = map[string]corev1.EndpointPort{}
			}
			if len(ports) == 0 {
				byAddress[key][noPorts] = corev1.EndpointPort{}
			}
			for _, p := range ports {
				byAddress[key][portKey(p)] = p
			}
		}
	}
	for i := range subsets {
		add(subsets[i].Addresses, false, subsets[i].Ports)
		add(subsets[i].NotReadyAddresses, true, subsets[i].Ports)
	}
	for key, ports := range byAddress {
		if key.notReady {
			continue
		}
		for name := range byAddress[endpointKey{ip: key.ip, uid: key.uid, notReady: true}] {
			delete(ports, name)
		}
		if len(ports) == 0 {
			delete(byAddress, key)
		}
	}

	return groupByPorts(addresses, byAddress)
}

// groupByPorts makes one subset of all addresses that have the same ports.
func groupByPorts(addresses map[endpointKey]corev1.EndpointAddress, byAddress map[endpointKey]map[string]corev1.EndpointPort) []corev1.EndpointSubset {
	grouped := map[string]*corev1.EndpointSubset{}
	for key, ports := range byAddress {
		names := make([]string, 0, len(ports))
		for name := range ports {
			names = append(names, name)
		}
		slices.Sort(names)
		id := strings.Join(names, "\x00")
		subset := grouped[id]
		if subset == nil {
			subset = &corev1.EndpointSubset{}
			for _, name := range names {
				if name != noPorts {
					subset.Ports = append(subset.Ports, ports[name])
				}
			}
			grouped[id] = subset
		}
		if key.notReady {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, addresses[key])
		} else {
			subset.Addresses = append(subset.Addresses, addresses[key])
		}
	}
	return sortedSubsets(grouped)
}

// noPorts stands for the port of an address in a subset without any.
const noPorts = ""

func portKey(p corev1.EndpointPort) string {
	return fmt.Sprintf("%s/%05d/%s/%s", p.Name, p.Port, p.Protocol, ptr.Deref(p.AppProtocol, ""))
}

func sortedSubsets(grouped map[string]*corev1.EndpointSubset) []corev1.EndpointSubset {
	byAddress := func(a, b corev1.EndpointAddress) int {
		var left, right types.UID
		if a.TargetRef != nil {
			left = a.TargetRef.UID
		}
		if b.TargetRef != nil {
			right = b.TargetRef.UID
		}
		return cmp.Or(strings.Compare(a.IP, b.IP), strings.Compare(string(left), string(right)))
	}
	ids := make([]string, 0, len(grouped))
	for id := range grouped {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	result := make([]corev1.EndpointSubset, 0, len(ids))
	for _, id := range ids {
		slices.SortFunc(grouped[id].Addresses, byAddress)
		slices.SortFunc(grouped[id].NotReadyAddresses, byAddress)
		result = append(result, *grouped[id])
	}
	return result
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
