package quota

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// devices measures ResourceClaims: devices by class, and under the name by which
// containers ask for the devices of that class, if it has one.
type devices struct {
	view                  View
	pods, classes, claims *api.Resource
}

func (d *devices) kind() *Kind {
	return &Kind{
		named: d.named,
		usage: func(obj api.Object, now time.Time) corev1.ResourceList {
			return d.usage(obj.(*resourcev1.ResourceClaim), now)
		},
		charged: func(_, _ api.Object, subresource string) bool { return subresource == "" },
	}
}

func (d *devices) named(name corev1.ResourceName) bool {
	if strings.HasSuffix(string(name), corev1.ResourceClaimsPerClass) {
		return true
	}
	if class, ok := strings.CutPrefix(string(name), corev1.ResourceImplicitExtendedClaimsPerClass); ok {
		return d.extended(class) != ""
	}
	return isExtendedRequest(name) && d.hasClass(strings.TrimPrefix(string(name), corev1.DefaultResourceRequestsPrefix))
}

// extended is the name by which containers ask for devices of a class, or empty.
func (d *devices) extended(class string) string {
	c, ok := d.view.Get(d.classes, api.Key{Name: class}).(*resourcev1.DeviceClass)
	if !ok {
		return ""
	}
	return ptr.Deref(c.Spec.ExtendedResourceName, "")
}

func (d *devices) hasClass(extended string) bool {
	for obj := range d.view.List(d.classes, "") {
		if ptr.Deref(obj.(*resourcev1.DeviceClass).Spec.ExtendedResourceName, "") == extended {
			return true
		}
	}
	return false
}

// count is how many devices are asked for in one way; all of them are the most
// that a claim can get.
func count(mode resourcev1.DeviceAllocationMode, n int64) int {
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		return int(n)
	case resourcev1.DeviceAllocationModeAll:
		return resourcev1.AllocationResultsMaxSize
	}
	return 0
}

func (d *devices) usage(c *resourcev1.ResourceClaim, now time.Time) corev1.ResourceList {
	classes := map[string]int{}
	for _, request := range c.Spec.Devices.Requests {
		// Of alternatives each class counts as if it were the one taken.
		most := map[string]int{}
		for _, r := range request.FirstAvailable {
			most[r.DeviceClassName] = max(most[r.DeviceClassName], count(r.AllocationMode, r.Count))
		}
		if r := request.Exactly; len(request.FirstAvailable) == 0 && r != nil {
			most[r.DeviceClassName] = count(r.AllocationMode, r.Count)
		}
		for class, n := range most {
			classes[class] += n
		}
	}
	usage, extended := corev1.ResourceList{}, corev1.ResourceList{}
	for class, n := range classes {
		usage[corev1.ResourceName(class+corev1.ResourceClaimsPerClass)] = number(n)
		extended[corev1.ResourceName(corev1.ResourceImplicitExtendedClaimsPerClass+class)] = number(n)
		if name := d.extended(class); name != "" {
			extended[requested+corev1.ResourceName(name)] = number(n)
		}
	}
	// What its pod counts already, a claim made for that pod does not.
	Add(usage, More(extended, d.podUsage(c, now)))
	return usage
}

// podUsage is what the pod counts for whose extended resources the scheduler made
// a claim; nil where a claim only says so.
func (d *devices) podUsage(c *resourcev1.ResourceClaim, now time.Time) corev1.ResourceList {
	owner := metav1.GetControllerOfNoCopy(c)
	if c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.Kind != "Pod" || owner.APIVersion != "v1" {
		return nil
	}
	p, ok := d.view.Get(d.pods, api.Key{Namespace: c.Namespace, Name: owner.Name}).(*corev1.Pod)
	if !ok || p.UID != owner.UID {
		return nil
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		if s.ResourceClaimName != c.Name {
			return nil
		}
		return PodUsage(p, now)
	}
	// The pod does not name its claim yet: of several the first is it.
	for obj := range d.view.List(d.claims, c.Namespace) {
		other := obj.(*resourcev1.ResourceClaim)
		by := metav1.GetControllerOfNoCopy(other)
		if by == nil || by.UID != p.UID || other.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
			continue
		}
		at, mine := other.CreationTimestamp, c.CreationTimestamp
		if at.Before(&mine) || at.Equal(&mine) && other.Name < c.Name {
			return nil
		}
	}
	return PodUsage(p, now)
}
