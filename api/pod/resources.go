package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateResourceQuantity checks an amount of a resource, of a node's capacity
// for example.
func ValidateResourceQuantity(name corev1.ResourceName, q resource.Quantity, path *field.Path) field.ErrorList {
	c := &checker{}
	c.quantity(path, name, q)
	return c.errs
}

// ValidateLimits checks amounts that containers may ask for, as if they were the
// limits of one.
func ValidateLimits(list corev1.ResourceList, path *field.Path) field.ErrorList {
	c := &checker{}
	c.resourceRequirements(path, &corev1.ResourceRequirements{Limits: list}, containerResource, nil)
	return c.errs
}

// ValidateResourceName says what is wrong with the name of any resource.
func ValidateResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	c := &checker{}
	c.resourceName(path, name)
	return c.errs
}

// ValidateContainerResourceName is ValidateResourceName for what a container may
// ask for.
func ValidateContainerResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	c := &checker{}
	containerResource(c, path, name)
	return c.errs
}

// IsStandardResource says whether Kubernetes knows a name without a domain.
func IsStandardResource(name corev1.ResourceName) bool { return isStandardResource(name) }

// OvercommitAllowed says whether the limit of a resource may be above its
// request.
func OvercommitAllowed(name corev1.ResourceName) bool { return overcommitAllowed(name) }

// resourceRequirements checks amounts against each other; nameCheck says which
// resources are allowed here.
func (c *checker) resourceRequirements(at *field.Path, r *corev1.ResourceRequirements, nameCheck func(*checker, *field.Path, corev1.ResourceName), claims sets.Set[string]) {
	limits, requests := at.Child("limits"), at.Child("requests")
	computing, hugePages := false, false
	amount := func(p *field.Path, name corev1.ResourceName, q resource.Quantity) {
		nameCheck(c, p, name)
		c.quantity(p, name, q)
		computing = computing || name == corev1.ResourceCPU || name == corev1.ResourceMemory
		hugePages = hugePages || isHugePage(name)
	}
	multiple := func(p *field.Path, name corev1.ResourceName, q resource.Quantity) {
		if isHugePage(name) && !c.hugePageMultiples && !wholePages(name, q) {
			c.invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name))
		}
	}
	for _, name := range sortedKeys(r.Limits) {
		q, p := r.Limits[name], limits.Key(string(name))
		amount(p, name, q)
		multiple(p, name, q)
	}
	for _, name := range sortedKeys(r.Requests) {
		q, p := r.Requests[name], requests.Key(string(name))
		amount(p, name, q)
		switch limit, ok := r.Limits[name]; {
		case !ok && !overcommitAllowed(name):
			c.required(limits, "Limit must be set for non overcommitable resources")
		case !ok:
		case !overcommitAllowed(name) && q.Cmp(limit) != 0:
			c.invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))
		case q.Cmp(limit) > 0:
			c.invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))
		}
		multiple(p, name, q)
	}
	if hugePages && !computing {
		c.forbidden(at, "HugePages require cpu or memory")
	}
	c.usedClaims(at.Child("claims"), r.Claims, claims)
}

func (c *checker) quantity(at *field.Path, name corev1.ResourceName, q resource.Quantity) {
	if q.Sign() < 0 {
		c.invalid(at, q.String(), apivalidation.IsNegativeErrorMsg)
	}
	if isCounted(name) && q.MilliValue()%1000 != 0 {
		c.invalid(at, q, "must be an integer")
	}
}

// wholePages says whether an amount of memory is a multiple of the page size
// that the resource's name states.
func wholePages(name corev1.ResourceName, q resource.Quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 || size.Value() == 0 {
		return false
	}
	return q.Value()%size.Value() == 0
}

// countedResources are things that there are whole numbers of.
var countedResources = []corev1.ResourceName{
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
}

// otherStandardResources are the names without a domain that Kubernetes knows
// besides countedResources and huge pages.
var otherStandardResources = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage, corev1.ResourceRequestsStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
}

func isCounted(name corev1.ResourceName) bool {
	return slices.Contains(countedResources, name) || IsExtendedResource(name)
}

// IsExtendedResource: a resource that someone else defines, in a domain of
// theirs. Its name must leave room for the quota's prefix.
func IsExtendedResource(name corev1.ResourceName) bool {
	if IsNativeResource(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

func isStandardResource(name corev1.ResourceName) bool {
	return slices.Contains(otherStandardResources, name) || slices.Contains(countedResources, name) ||
		isHugePage(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// resourceName reports what is wrong with any resource's name, and whether
// something is.
func (c *checker) resourceName(at *field.Path, name corev1.ResourceName) bool {
	flaws := validation.IsQualifiedName(string(name))
	c.reasons(at, name, flaws)
	if len(flaws) > 0 {
		return false
	}
	if !strings.Contains(string(name), "/") && !isStandardResource(name) {
		c.invalid(at, name, "must be a standard resource type or fully qualified")
		return false
	}
	return true
}

// containerResource allows what a container may ask for.
func containerResource(c *checker, at *field.Path, name corev1.ResourceName) {
	c.resourceName(at, name)
	switch {
	case !strings.Contains(string(name), "/"):
		standard := name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || isHugePage(name)
		if !standard {
			c.invalid(at, name, "must be a standard resource for containers")
		}
	case !IsNativeResource(name) && !IsExtendedResource(name):
		c.invalid(at, name, "doesn't follow extended resource name standard")
	}
}

// podLevelResource allows what a pod may ask for as a whole.
func podLevelResource(c *checker, at *field.Path, name corev1.ResourceName) {
	if c.resourceName(at, name) {
		if !isPodLevelResource(name) {
			c.add(field.NotSupported(at, name, []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceHugePagesPrefix, corev1.ResourceMemory}))
		}
	}
}

// podResources checks what the pod asks for as a whole against its containers.
func (c *checker) podResources(at *field.Path, s *scope) {
	r := s.spec.Resources
	if r == nil {
		return
	}
	if s.spec.OS != nil && s.spec.OS.Name == corev1.Windows {
		c.forbidden(at, "may not be set for a windows pod")
		return
	}
	if r.Claims != nil {
		c.forbidden(at.Child("claims"), "claims may not be set for Resources at pod-level")
	}
	c.resourceRequirements(at, r, podLevelResource, s.claims)

	together := effectiveResources(s.spec, requestsOf)
	for _, name := range sortedKeys(together) {
		used := together[name]
		if q, ok := r.Requests[name]; ok && used.Cmp(q) > 0 {
			c.invalid(at.Child("requests").Key(string(name)), q.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", used.String()))
		}
	}
	// Huge pages cannot be overcommitted, so their limits add up like requests.
	limited := effectiveResources(s.spec, limitsOf)
	for _, name := range sortedKeys(limited) {
		used := limited[name]
		if q, ok := r.Limits[name]; ok && isHugePage(name) && used.Cmp(q) > 0 {
			c.invalid(at.Child("limits").Key(string(name)), q.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container limits of %s", used.String()))
		}
	}
	for i := range s.spec.Containers {
		own := s.spec.Containers[i].Resources.Limits
		for _, name := range sortedKeys(own) {
			limit := own[name]
			if q, ok := r.Limits[name]; ok && limit.Cmp(q) > 0 {
				c.invalid(at.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", q.String()))
			}
		}
	}
}
