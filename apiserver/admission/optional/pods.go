// Package optional has small admission plugins, most of which are off unless they
// are asked for. Each type is one plugin of Kubernetes, under its name there
// (documentation: "Admission Control in Kubernetes").
package optional

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/resource"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// View is what the plugins need of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// podOf is the pod that a create or update of one writes, else nil.
func podOf(a *admission.Attributes) *corev1.Pod {
	p, ok := a.Object.(*corev1.Pod)
	if !ok || a.Subresource != "" || a.Resource.Plural != "pods" || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	return p
}

// eachContainer goes through all containers of a pod with their paths.
func eachContainer(s *corev1.PodSpec, do func(c *corev1.Container, at *field.Path)) {
	spec := field.NewPath("spec")
	for i := range s.InitContainers {
		do(&s.InitContainers[i], spec.Child("initContainers").Index(i))
	}
	for i := range s.Containers {
		do(&s.Containers[i], spec.Child("containers").Index(i))
	}
	for i := range s.EphemeralContainers {
		do((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), spec.Child("ephemeralContainers").Index(i))
	}
}

// AlwaysPullImages lets no pod use an image that it could not pull itself.
type AlwaysPullImages struct{}

// concerns is the pod, if it is new or has an image that it had not before.
func (AlwaysPullImages) concerns(a *admission.Attributes) *corev1.Pod {
	p := podOf(a)
	old, ok := a.Old.(*corev1.Pod)
	if p == nil || !ok {
		return p
	}
	had, fresh := sets.New[string](), false
	eachContainer(&old.Spec, func(c *corev1.Container, _ *field.Path) { had.Insert(c.Image) })
	eachContainer(&p.Spec, func(c *corev1.Container, _ *field.Path) { fresh = fresh || !had.Has(c.Image) })
	if !fresh {
		return nil
	}
	return p
}

// Admit implements admission.Mutator.
func (x AlwaysPullImages) Admit(_ context.Context, a *admission.Attributes) error {
	p := x.concerns(a)
	if p == nil {
		return nil
	}
	eachContainer(&p.Spec, func(c *corev1.Container, _ *field.Path) { c.ImagePullPolicy = corev1.PullAlways })
	for i := range p.Spec.Volumes {
		if image := p.Spec.Volumes[i].Image; image != nil {
			image.PullPolicy = corev1.PullAlways
		}
	}
	return nil
}

// Validate implements admission.Validator.
func (x AlwaysPullImages) Validate(_ context.Context, a *admission.Attributes) error {
	p := x.concerns(a)
	if p == nil {
		return nil
	}
	var errs []error
	check := func(policy corev1.PullPolicy, at *field.Path) {
		if policy != corev1.PullAlways {
			errs = append(errs, field.NotSupported(at, policy, []string{string(corev1.PullAlways)}))
		}
	}
	eachContainer(&p.Spec, func(c *corev1.Container, at *field.Path) { check(c.ImagePullPolicy, at.Child("imagePullPolicy")) })
	for i, v := range p.Spec.Volumes {
		if v.Image != nil {
			check(v.Image.PullPolicy, field.NewPath("spec", "volumes").Index(i).Child("image", "pullPolicy"))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return refusal.Forbidden(a, "%v", err)
	}
	return nil
}

// LimitPodHardAntiAffinityTopology lets pods keep others off their node, and off
// nothing larger.
type LimitPodHardAntiAffinityTopology struct{}

// Validate implements admission.Validator.
func (LimitPodHardAntiAffinityTopology) Validate(_ context.Context, a *admission.Attributes) error {
	p := podOf(a)
	if p == nil || p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, term := range p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if term.TopologyKey != corev1.LabelHostname {
			return refusal.Forbidden(a, "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", term.TopologyKey, corev1.LabelHostname)
		}
	}
	return nil
}

// ExtendedResourceToleration lets pods on nodes that are tainted with the
// extended resources that they ask for.
type ExtendedResourceToleration struct{}

// Admit implements admission.Mutator.
func (ExtendedResourceToleration) Admit(_ context.Context, a *admission.Attributes) error {
	p := podOf(a)
	if p == nil {
		return nil
	}
	wanted := sets.New[string]()
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for name := range c.Resources.Requests {
			if pod.IsExtendedResource(name) {
				wanted.Insert(string(name))
			}
		}
	}
	for _, name := range sets.List(wanted) {
		t := corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
		if i := slices.IndexFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool { return o.MatchToleration(&t) }); i >= 0 {
			p.Spec.Tolerations[i] = t
		} else {
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
	return nil
}

// PodTopologyLabels gives a pod that is placed the zone and region of its node.
type PodTopologyLabels struct {
	view  View
	nodes *api.Resource
}

// Admit implements admission.Mutator.
func (x PodTopologyLabels) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create || a.Resource.Plural != "pods" {
		return nil
	}
	switch obj := a.Object.(type) {
	case *corev1.Pod:
		if a.Subresource == "" && obj.Spec.NodeName != "" {
			x.copy(&obj.ObjectMeta, obj.Spec.NodeName)
		}
	case *corev1.Binding:
		if obj.Target.Kind == "Node" {
			x.copy(&obj.ObjectMeta, obj.Target.Name)
		}
	}
	return nil
}

func (x PodTopologyLabels) copy(to *metav1.ObjectMeta, node string) {
	n := x.view.Get(x.nodes, api.Key{Name: node})
	if n == nil {
		return
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		if value, ok := n.GetLabels()[key]; ok {
			metav1.SetMetaDataLabel(to, key, value)
		}
	}
}

// PodResizeValidator refuses to resize a pod beyond what its node can ever give.
type PodResizeValidator struct {
	view  View
	nodes *api.Resource
}

// Causes of the refusal to resize.
const (
	causeCapacity metav1.CauseType = "NodeCapacity"
	causePlatform metav1.CauseType = "UnsupportedPlatform"
)

// Validate implements admission.Validator.
func (x PodResizeValidator) Validate(_ context.Context, a *admission.Attributes) error {
	p, ok := a.Object.(*corev1.Pod)
	old, had := a.Old.(*corev1.Pod)
	if !ok || !had || a.Operation != admission.Update || a.Resource.Plural != "pods" || a.Subresource != "resize" ||
		p.Spec.NodeName == "" || equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		return nil
	}
	n, ok := x.view.Get(x.nodes, api.Key{Name: p.Spec.NodeName}).(*corev1.Node)
	if !ok {
		return refusal.Forbidden(a, "node %q not found", p.Spec.NodeName)
	}
	refuse := func(cause metav1.CauseType, format string, args ...any) error {
		err := refusal.Forbidden(a, format, args...)
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
		return err
	}
	if os, ok := n.Labels[corev1.LabelOSStable]; ok && os != "linux" {
		return refuse(causePlatform, "pod resize is only supported on linux nodes, node %q is %q", n.Name, os)
	}
	requests := resource.PodRequests(p, resource.PodResourcesOptions{})
	cpu, memory := n.Status.Allocatable.Cpu(), n.Status.Allocatable.Memory()
	var why []string
	if q := requests.Cpu(); q.Cmp(*cpu) > 0 {
		why = append(why, fmt.Sprintf("cpu, requested: %d, allocatable: %d", q.MilliValue(), cpu.MilliValue()))
	}
	if q := requests.Memory(); q.Cmp(*memory) > 0 {
		why = append(why, fmt.Sprintf("memory, requested: %d, allocatable: %d", q.Value(), memory.Value()))
	}
	if len(why) > 0 {
		return refuse(causeCapacity, "node didn't have enough allocatable resources: %s", strings.Join(why, "; "))
	}
	return nil
}
