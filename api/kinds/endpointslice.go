package kinds

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func endpointSlice() *api.Resource {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return stored[discoveryv1.EndpointSlice, *discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](discoveryv1.SchemeGroupVersion, &api.Resource{
		Plural:     "endpointslices",
		Singular:   "endpointslice",
		Kind:       "EndpointSlice",
		Namespaced: true,
		Prefix:     "endpointslices",
		ChecksBase: true,
		Default:    on(defaultEndpointSlice),
		PrepareCreate: on(func(s *discoveryv1.EndpointSlice) {
			s.Generation = 1
			dropTopology(s, nil)
		}),
		PrepareUpdate: onUpdate(prepareEndpointSlice),
		Validate: validates(func(s *discoveryv1.EndpointSlice) field.ErrorList {
			return validateEndpointSlice(s, nil)
		}),
		ValidateUpdate: validatesUpdate(func(s, old *discoveryv1.EndpointSlice) field.ErrorList {
			return append(validateEndpointSlice(s, old), immutable(s.AddressType, old.AddressType, field.NewPath("addressType")).MarkBeta()...)
		}),
		Warnings:                 warns(warnEndpointSlice),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("AddressType", "string", doc["addressType"]),
				column("Ports", "string", doc["ports"]),
				column("Endpoints", "string", doc["endpoints"]),
				ageColumn(),
			},
			Row: cells(func(s *discoveryv1.EndpointSlice, now time.Time) []any {
				return []any{s.Name, string(s.AddressType), slicePortsCell(s), sliceAddressesCell(s), age(s.CreationTimestamp, now)}
			}),
		},
	})
}

func defaultEndpointSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = ptr.To("")
		}
		if p.Protocol == nil {
			p.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// prepareEndpointSlice counts every change outside of metadata, and of labels,
// as a new generation.
func prepareEndpointSlice(s, old *discoveryv1.EndpointSlice) {
	defaultEndpointSlice(s)
	same := s.AddressType == old.AddressType &&
		equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) &&
		equality.Semantic.DeepEqual(s.Ports, old.Ports) &&
		equality.Semantic.DeepEqual(s.Labels, old.Labels)
	if !same {
		s.Generation = old.Generation + 1
	}
	dropTopology(s, old)
}

// dropTopology ignores writes to deprecatedTopology, as its documentation says.
// A node name that was stored there before moves to nodeName.
func dropTopology(s, old *discoveryv1.EndpointSlice) {
	nodes := sets.New[string]()
	if old != nil {
		if equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
			return
		}
		for _, e := range old.Endpoints {
			nodes.Insert(e.DeprecatedTopology[corev1.LabelHostname])
		}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		node := e.DeprecatedTopology[corev1.LabelHostname]
		if e.NodeName == nil && node != "" && nodes.Has(node) && len(apivalidation.NameIsDNSSubdomain(node, false)) == 0 {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
	}
}

const (
	maxSliceEndpoints    = 1000
	maxSlicePorts        = 20000
	maxEndpointAddresses = 100
	maxTopologyLabels    = 16
	maxHints             = 8
)

// validateEndpointSlice accepts endpoints that are those of old, whatever is
// wrong with them: earlier versions of Kubernetes were less strict.
func validateEndpointSlice(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := oneOf(s.AddressType, field.NewPath("addressType"),
		discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6).MarkBeta()
	errs = append(errs, validateSlicePorts(s.Ports, field.NewPath("ports"))...)
	bad := validateSliceEndpoints(s, field.NewPath("endpoints"))
	if len(bad) > 0 && old != nil && equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
		return errs
	}
	return append(errs, bad...)
}

func validateSliceEndpoints(s *discoveryv1.EndpointSlice, path *field.Path) field.ErrorList {
	if len(s.Endpoints) > maxSliceEndpoints {
		return field.ErrorList{field.TooMany(path, len(s.Endpoints), maxSliceEndpoints)}
	}
	var errs field.ErrorList
	for i := range s.Endpoints {
		errs = append(errs, validateSliceEndpoint(&s.Endpoints[i], s.AddressType, path.Index(i))...)
	}
	return errs
}

func validateSliceEndpoint(e *discoveryv1.Endpoint, addressType discoveryv1.AddressType, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	addresses := path.Child("addresses")
	if len(e.Addresses) == 0 {
		errs = append(errs, field.Required(addresses, "").MarkBeta())
	} else if len(e.Addresses) > maxEndpointAddresses {
		errs = append(errs, field.TooMany(addresses, len(e.Addresses), maxEndpointAddresses).MarkBeta())
	}
	for i, address := range e.Addresses {
		errs = append(errs, validateSliceAddress(address, addressType, addresses, i)...)
	}
	if e.NodeName != nil {
		errs = append(errs, invalidEach(path.Child("nodeName"), *e.NodeName, apivalidation.NameIsDNSSubdomain(*e.NodeName, false))...)
	}
	topology := path.Child("deprecatedTopology")
	if len(e.DeprecatedTopology) > maxTopologyLabels {
		errs = append(errs, field.TooMany(topology, len(e.DeprecatedTopology), maxTopologyLabels))
	}
	errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, topology)...)
	if e.Hostname != nil {
		errs = append(errs, isDNSLabel(*e.Hostname, path.Child("hostname"))...)
	}
	if e.Hints != nil {
		errs = append(errs, validateHints(e.Hints, path.Child("hints"))...)
	}
	return errs
}

// validateSliceAddress lets addresses of unknown types pass: the type itself
// is refused elsewhere. The wrong family is reported of the whole list, and
// only IPv6 must be in its canonical form, both as in Kubernetes.
func validateSliceAddress(address string, addressType discoveryv1.AddressType, list *field.Path, i int) field.ErrorList {
	path := list.Index(i)
	var errs field.ErrorList
	switch addressType {
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(path, address)
	case discoveryv1.AddressTypeIPv4:
		if errs = validation.IsValidIPForLegacyField(path, address, true, nil); len(errs) > 0 {
			return errs
		}
		if !netutils.IsIPv4String(address) {
			errs = append(errs, field.Invalid(list, address, "must be an IPv4 address"))
		}
	case discoveryv1.AddressTypeIPv6:
		if errs = validation.IsValidIP(path, address); len(errs) > 0 {
			return errs
		}
		if !netutils.IsIPv6String(address) {
			errs = append(errs, field.Invalid(list, address, "must be an IPv6 address"))
		}
	default:
		return nil
	}
	return append(errs, isRoutableIP(address, path)...)
}

func validateHints(h *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	zones := make([]string, 0, len(h.ForZones))
	for _, z := range h.ForZones {
		zones = append(zones, z.Name)
	}
	nodes := make([]string, 0, len(h.ForNodes))
	for _, n := range h.ForNodes {
		nodes = append(nodes, n.Name)
	}
	if len(zones) > maxHints {
		return field.ErrorList{field.TooMany(path.Child("forZones"), len(zones), maxHints)}
	}
	return append(validateHintNames(zones, path.Child("forZones"), validation.IsValidLabelValue),
		validateHintNames(nodes, path.Child("forNodes"), func(name string) []string {
			return apivalidation.NameIsDNSSubdomain(name, false)
		})...)
}

func validateHintNames(names []string, path *field.Path, check func(string) []string) field.ErrorList {
	if len(names) > maxHints {
		return field.ErrorList{field.TooMany(path, len(names), maxHints)}
	}
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, name := range names {
		at := path.Index(i).Child("name")
		if seen.Has(name) {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen.Insert(name)
		errs = append(errs, invalidEach(at, name, check(name))...)
	}
	return errs
}

func validateSlicePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if len(ports) > maxSlicePorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxSlicePorts)}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range ports {
		at, name := path.Index(i), ptr.Deref(p.Name, "")
		if name != "" {
			errs = append(errs, isDNSLabel(name, at.Child("name"))...)
		}
		if names.Has(name) {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		names.Insert(name)
		if p.Protocol != nil && *p.Protocol == "" {
			errs = append(errs, field.NotSupported(at.Child("protocol"), "", protocols))
		} else {
			errs = append(errs, oneOf(ptr.Deref(p.Protocol, ""), at.Child("protocol"), protocols...)...)
		}
		if p.AppProtocol != nil {
			errs = append(errs, isQualifiedName(*p.AppProtocol, at.Child("appProtocol"))...)
		}
	}
	return errs
}

// endpointSliceLoops write addresses in canonical form, so that looking at
// theirs again would be wasted.
var endpointSliceLoops = sets.New("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")

func warnEndpointSlice(s, old *discoveryv1.EndpointSlice) []string {
	var warnings []string
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		warnings = append(warnings, fmt.Sprintf("%s: FQDN endpoints are deprecated", field.NewPath("spec", "addressType")))
	}
	if s.AddressType == discoveryv1.AddressTypeFQDN || endpointSliceLoops.Has(s.Labels[discoveryv1.LabelManagedBy]) {
		return warnings
	}
	for i, e := range s.Endpoints {
		for j, address := range e.Addresses {
			path := field.NewPath("endpoints").Index(i).Child("addresses").Index(j)
			warnings = append(warnings, validation.GetWarningsForIP(path, address)...)
		}
	}
	return warnings
}

func slicePortsCell(s *discoveryv1.EndpointSlice) string {
	var list []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			list = append(list, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			list = append(list, *p.Name)
		default:
			list = append(list, "*")
		}
	}
	return orDefault(firstFew(list), "<unset>")
}

func sliceAddressesCell(s *discoveryv1.EndpointSlice) string {
	var list []string
	for _, e := range s.Endpoints {
		list = append(list, e.Addresses...)
	}
	return orDefault(firstFew(list), "<unset>")
}
