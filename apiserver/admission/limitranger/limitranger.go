// Package limitranger holds pods and claims to the LimitRanges of their
// namespace, and gives containers the requests and limits that those have for
// them.
package limitranger

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// View is what the plugin needs of the store's view.
type View interface {
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Plugin is both a mutator and a validator.
type Plugin struct {
	view                 View
	pods, claims, ranges *api.Resource
}

// New is the plugin over a view.
func New(reg *api.Registry, view View) *Plugin {
	return &Plugin{view: view, pods: reg.Must("", "pods"), claims: reg.Must("", "persistentvolumeclaims"), ranges: reg.Must("", "limitranges")}
}

// concerns says whether a write can come into conflict with limits: containers
// change by resize only.
func (p *Plugin) concerns(a *admission.Attributes) bool {
	if a.Old != nil && a.Old.GetDeletionTimestamp() != nil || a.Operation != admission.Create && a.Operation != admission.Update {
		return false
	}
	switch {
	case a.Resource == p.pods && a.Operation == admission.Update:
		return a.Subresource == "resize"
	case a.Resource == p.pods, a.Resource == p.claims:
		return a.Subresource == ""
	}
	return false
}

// annotation tells which values are not the pod's own.
const annotation = "kubernetes.io/limit-ranger"

// Admit implements admission.Mutator.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !p.concerns(a) {
		return nil
	}
	for obj := range p.view.List(p.ranges, a.Namespace) {
		fill(pod, obj.(*corev1.LimitRange))
	}
	return nil
}

func fill(pod *corev1.Pod, r *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for _, item := range r.Spec.Limits {
		if item.Type == corev1.LimitTypeContainer {
			maps.Copy(requests, item.DefaultRequest)
			maps.Copy(limits, item.Default)
		}
	}
	var told []string
	each := func(sort string, containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			tell := func(what string, given []string) {
				if len(given) > 0 {
					told = append(told, fmt.Sprintf("%s %s for %s %s", strings.Join(given, ", "), what, sort, c.Name))
				}
			}
			tell("request", complete(&c.Resources.Requests, requests))
			tell("limit", complete(&c.Resources.Limits, limits))
		}
	}
	each("container", pod.Spec.Containers)
	each("init container", pod.Spec.InitContainers)
	if len(told) == 0 {
		return
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[annotation] = "LimitRanger plugin set: " + strings.Join(told, "; ")
}

// complete gives a list the defaults that it lacks, and answers with their names.
func complete(have *corev1.ResourceList, defaults corev1.ResourceList) []string {
	var given []string
	for name, value := range defaults {
		if _, ok := (*have)[name]; ok {
			continue
		}
		if *have == nil {
			*have = corev1.ResourceList{}
		}
		(*have)[name] = value.DeepCopy()
		given = append(given, string(name))
	}
	slices.Sort(given)
	return given
}

// Validate implements admission.Validator.
func (p *Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if !p.concerns(a) {
		return nil
	}
	for obj := range p.view.List(p.ranges, a.Namespace) {
		var errs []error
		for i := range obj.(*corev1.LimitRange).Spec.Limits {
			errs = append(errs, check(a.Object, &obj.(*corev1.LimitRange).Spec.Limits[i])...)
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return refusal.Forbidden(a, "%v", err)
		}
	}
	return nil
}

func check(obj any, item *corev1.LimitRangeItem) []error {
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		if item.Type == corev1.LimitTypePersistentVolumeClaim {
			return claimLimits(item, o.Spec.Resources.Requests)
		}
	case *corev1.Pod:
		switch item.Type {
		case corev1.LimitTypePod:
			return limits(item, total(o, requestsOf), total(o, limitsOf))
		case corev1.LimitTypeContainer:
			var errs []error
			for _, c := range slices.Concat(o.Spec.Containers, o.Spec.InitContainers) {
				errs = append(errs, limits(item, c.Resources.Requests, c.Resources.Limits)...)
			}
			return errs
		}
	}
	return nil
}

func sorted(list corev1.ResourceList) iter.Seq2[corev1.ResourceName, resource.Quantity] {
	return func(yield func(corev1.ResourceName, resource.Quantity) bool) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if !yield(name, list[name]) {
				return
			}
		}
	}
}

func limits(item *corev1.LimitRangeItem, requests, limits corev1.ResourceList) []error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, least := range sorted(item.Min) {
		request, requested := requests[name]
		limit, limited := limits[name]
		switch begin := fmt.Sprintf("minimum %s usage per %s is %s", name, item.Type, least.String()); {
		case !requested:
			refuse("%s.  No request is specified", begin)
		case request.Cmp(least) < 0:
			refuse("%s, but request is %s", begin, request.String())
		case limited && limit.Cmp(least) < 0:
			refuse("%s, but limit is %s", begin, limit.String())
		}
	}
	for name, most := range sorted(item.Max) {
		request, requested := requests[name]
		limit, limited := limits[name]
		switch begin := fmt.Sprintf("maximum %s usage per %s is %s", name, item.Type, most.String()); {
		case !limited:
			refuse("%s.  No limit is specified", begin)
		case limit.Cmp(most) > 0:
			refuse("%s, but limit is %s", begin, limit.String())
		case requested && request.Cmp(most) > 0:
			refuse("%s, but request is %s", begin, request.String())
		}
	}
	for name, most := range sorted(item.MaxLimitRequestRatio) {
		request, limit := requests[name], limits[name]
		ratio := limit.AsApproximateFloat64() / request.AsApproximateFloat64()
		switch begin := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, item.Type, most.String()); {
		case request.IsZero():
			refuse("%s, but no request is specified or request is 0", begin)
		case limit.IsZero():
			refuse("%s, but no limit is specified or limit is 0", begin)
		case ratio > most.AsApproximateFloat64():
			refuse("%s, but provided ratio is %f", begin, ratio)
		}
	}
	return errs
}

// claimLimits looks at requests alone: claims have no limits.
func claimLimits(item *corev1.LimitRangeItem, requests corev1.ResourceList) []error {
	errs := limits(&corev1.LimitRangeItem{Type: item.Type, Min: item.Min}, requests, nil)
	for name, most := range sorted(item.Max) {
		request, ok := requests[name]
		switch begin := fmt.Sprintf("maximum %s usage per %s is %s", name, item.Type, most.String()); {
		case !ok:
			errs = append(errs, fmt.Errorf("%s.  No request is specified", begin))
		case request.Cmp(most) > 0:
			errs = append(errs, fmt.Errorf("%s, but request is %s", begin, request.String()))
		}
	}
	return errs
}

func requestsOf(r *corev1.ResourceRequirements) corev1.ResourceList { return r.Requests }
func limitsOf(r *corev1.ResourceRequirements) corev1.ResourceList   { return r.Limits }

// total is what a pod needs at once: all containers, or while it begins an init
// container with the sidecars before it, whichever is more. Processors and
// memory may be said for the pod as a whole.
func total(pod *corev1.Pod, of func(*corev1.ResourceRequirements) corev1.ResourceList) corev1.ResourceList {
	sum, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range pod.Spec.Containers {
		add(sum, of(&pod.Spec.Containers[i].Resources))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		own := of(&c.Resources)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(sum, own)
			add(sidecars, own)
			raise(peak, sidecars)
			continue
		}
		now := maps.Clone(sidecars)
		add(now, own)
		raise(peak, now)
	}
	raise(sum, peak)
	if pod.Spec.Resources != nil {
		for name, value := range of(pod.Spec.Resources) {
			if name == corev1.ResourceCPU || name == corev1.ResourceMemory {
				sum[name] = value
			}
		}
	}
	return sum
}

func add(to, list corev1.ResourceList) {
	for name, value := range list {
		sum := to[name]
		sum = sum.DeepCopy()
		sum.Add(value)
		to[name] = sum
	}
}

func raise(to, list corev1.ResourceList) {
	for name, value := range list {
		if have, ok := to[name]; !ok || value.Cmp(have) > 0 {
			to[name] = value
		}
	}
}
