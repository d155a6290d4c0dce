package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/resource"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// podNames are what pods count under, beside huge pages and extended resources.
var podNames = sets.New(
	corev1.ResourcePods,
	corev1.ResourceCPU, corev1.ResourceRequestsCPU, corev1.ResourceLimitsCPU,
	corev1.ResourceMemory, corev1.ResourceRequestsMemory, corev1.ResourceLimitsMemory,
	corev1.ResourceEphemeralStorage, corev1.ResourceRequestsEphemeralStorage, corev1.ResourceLimitsEphemeralStorage,
)

// mustSay are what every container must state where a quota limits it. Nothing
// newer is among them.
var mustSay = sets.New(
	corev1.ResourceCPU, corev1.ResourceRequestsCPU, corev1.ResourceLimitsCPU,
	corev1.ResourceMemory, corev1.ResourceRequestsMemory, corev1.ResourceLimitsMemory,
)

func podKind() *Kind {
	return &Kind{
		named: func(name corev1.ResourceName) bool {
			return podNames.Has(name) || hasPrefix(name, corev1.ResourceHugePagesPrefix) ||
				hasPrefix(name, corev1.ResourceRequestsHugePagesPrefix) || isExtendedRequest(name)
		},
		usage: func(obj api.Object, now time.Time) corev1.ResourceList { return PodUsage(obj.(*corev1.Pod), now) },
		scope: func(obj api.Object, s corev1.ScopedResourceSelectorRequirement) bool {
			return podInScope(obj.(*corev1.Pod), s)
		},
		lacks:   func(obj api.Object, limited []corev1.ResourceName) error { return podLacks(obj.(*corev1.Pod), limited) },
		charged: podCharged,
		freed: func(obj, old api.Object) bool {
			p, was := obj.(*corev1.Pod), old.(*corev1.Pod)
			return terminating(p) != terminating(was) || ended(p) && !ended(was) ||
				p.DeletionTimestamp != nil && was.DeletionTimestamp == nil || resized(p, was)
		},
	}
}

func podCharged(obj, old api.Object, subresource string) bool {
	p, ok := obj.(*corev1.Pod)
	was, had := old.(*corev1.Pod)
	if !ok || !had {
		return false
	}
	return subresource == "resize" || subresource == "" && terminating(p) != terminating(was)
}

// PodUsage is what a pod counts beside itself: nothing once it has ended, or
// should have, long ago.
func PodUsage(p *corev1.Pod, now time.Time) corev1.ResourceList {
	if ended(p) || overdue(p, now) {
		return nil
	}
	opts := resource.PodResourcesOptions{UseStatusResources: true}
	usage := computed(resource.PodRequests(p, opts), resource.PodLimits(p, opts))
	usage[corev1.ResourcePods] = one()
	return usage
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
}

// overdue pods are on nodes that do not answer: nobody should wait for those to
// start others.
func overdue(p *corev1.Pod, now time.Time) bool {
	end, ok := Overdue(p)
	return ok && now.After(end)
}

// Overdue is when a pod that is being deleted counts no more although it is still
// there.
func Overdue(p *corev1.Pod) (time.Time, bool) {
	if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil {
		return time.Time{}, false
	}
	return p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds) * time.Second), true
}

// computed gives requests and limits the names that quotas have for them.
func computed(requests, limits corev1.ResourceList) corev1.ResourceList {
	usage := corev1.ResourceList{}
	for name, q := range requests {
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage, hasPrefix(name, corev1.ResourceHugePagesPrefix):
			usage[name] = q
			usage[requested+name] = q
		case isExtended(name):
			usage[requested+name] = q
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := limits[name]; ok {
			usage["limits."+name] = q
		}
	}
	return usage
}

// requested begins the names of what is requested.
const requested = corev1.ResourceName(corev1.DefaultResourceRequestsPrefix)

// isExtended says whether a container can ask for a resource that only some nodes
// have: one with a domain, or that of a device class.
func isExtended(name corev1.ResourceName) bool {
	return hasPrefix(name, resourcev1.ResourceDeviceClassPrefix) || pod.IsExtendedResource(name)
}

// isExtendedRequest says whether a quota's name is that of requests for an
// extended resource.
func isExtendedRequest(name corev1.ResourceName) bool {
	return hasPrefix(name, corev1.DefaultResourceRequestsPrefix) &&
		(!pod.IsNativeResource(name) || hasPrefix(name, corev1.ResourceImplicitExtendedClaimsPerClass))
}

func podLacks(p *corev1.Pod, limited []corev1.ResourceName) error {
	if resource.IsPodLevelResourcesSet(p) {
		return nil
	}
	missing := map[corev1.ResourceName][]string{}
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		said := computed(c.Resources.Requests, c.Resources.Limits)
		for _, name := range limited {
			if _, ok := said[name]; !ok && mustSay.Has(name) && !slices.Contains(missing[name], c.Name) {
				missing[name] = append(missing[name], c.Name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		slices.Sort(missing[name])
		parts = append(parts, fmt.Sprintf("%s for: %s", name, strings.Join(missing[name], ",")))
	}
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}

func podInScope(p *corev1.Pod, s corev1.ScopedResourceSelectorRequirement) bool {
	switch s.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return terminating(p)
	case corev1.ResourceQuotaScopeNotTerminating:
		return !terminating(p)
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(p)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(p)
	case corev1.ResourceQuotaScopePriorityClass:
		if p.Spec.PriorityClassName == "" {
			return selects(s)
		}
		return selects(s, p.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return looksAbroad(p.Spec.Affinity)
	}
	return false
}

// terminating pods have a time by which they end.
func terminating(p *corev1.Pod) bool {
	return p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
}

func bestEffort(p *corev1.Pod) bool {
	class := p.Status.QOSClass
	if class == "" {
		class = pod.QOS(p)
	}
	return class == corev1.PodQOSBestEffort
}

// looksAbroad says whether a pod's place depends on pods of other namespaces.
func looksAbroad(a *corev1.Affinity) bool {
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	var weighted []corev1.WeightedPodAffinityTerm
	if p := a.PodAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted = append(weighted, p.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms = append(terms, p.RequiredDuringSchedulingIgnoredDuringExecution...)
		weighted = append(weighted, p.PreferredDuringSchedulingIgnoredDuringExecution...)
	}
	for _, w := range weighted {
		terms = append(terms, w.PodAffinityTerm)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool {
		return len(t.Namespaces) > 0 || t.NamespaceSelector != nil
	})
}

// resized says whether a node has given containers other resources.
func resized(p, old *corev1.Pod) bool {
	differ := func(now, before []corev1.ContainerStatus) bool {
		for _, b := range before {
			i := slices.IndexFunc(now, func(n corev1.ContainerStatus) bool { return n.Name == b.Name })
			if i >= 0 && !equality.Semantic.DeepEqual(now[i].Resources, b.Resources) {
				return true
			}
		}
		return false
	}
	return differ(p.Status.ContainerStatuses, old.Status.ContainerStatuses) || differ(p.Status.InitContainerStatuses, old.Status.InitContainerStatuses)
}
