// Package dependencies refuses what cannot be waited for, and circles, and holds new
// pods back by scheduling gates until what they wait for is so (package
// api/dependency).
package dependencies

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// Plugin is both a mutator and a validator.
type Plugin struct {
	graph dependency.Graph
	pods  *api.Resource
}

// New is the plugin over a view.
func New(reg *api.Registry, view dependency.View) *Plugin {
	return &Plugin{graph: dependency.Graph{Registry: reg, View: view}, pods: reg.Must("", "pods")}
}

// Admit implements admission.Mutator: a pod gets a gate for each thing that it has
// to wait for. What is so for good already needs none; what is so now, but may be
// otherwise once the rest is, needs one as well.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != p.pods || a.Subresource != "" || a.Operation != admission.Create {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || pod.Annotations[corev1.MirrorPodAnnotationKey] != "" {
		return nil
	}
	chain := p.graph.Chain(p.pods, pod)
	needs := p.graph.Needs(chain)
	if len(needs) == 0 {
		return nil
	}
	done := p.graph.CompletedBy(chain)
	var waits []dependency.Dependency
	missing := false
	for _, d := range needs {
		holds, _ := p.graph.Holds(d, done)
		if missing = missing || !holds; !holds || !d.Once() {
			waits = append(waits, d)
		}
	}
	if !missing {
		return nil
	}
	if pod.Spec.NodeName != "" {
		return refusal.Forbidden(a, "the pod waits for %s and %s; leave out spec.nodeName, or the annotation %s", waits[0], dependency.Unheld, dependency.DependsOn)
	}
	for _, d := range waits {
		gate := corev1.PodSchedulingGate{Name: d.Gate()}
		if !slices.Contains(pod.Spec.SchedulingGates, gate) {
			pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, gate)
		}
	}
	return nil
}

// Validate implements admission.Validator. What an update leaves as it was is not
// looked at again: kinds and other objects may have changed meanwhile.
func (p *Plugin) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Subresource != "" || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	obj, ok := a.Object.(api.Object)
	if !ok || !a.Resource.Namespaced {
		return nil
	}
	var old []dependency.Place
	if a.Old != nil {
		old = dependency.Places(a.Old)
	}
	var errs field.ErrorList
	waits := false
	for i, place := range dependency.Places(obj) {
		var was map[string]string
		if i < len(old) {
			was = old[i].Annotations
		}
		if same(place.Annotations, was) {
			continue
		}
		at := field.NewPath("metadata", "annotations")
		if len(place.Path) > 0 {
			at = field.NewPath(place.Path[0], append(place.Path[1:], "metadata", "annotations")...)
		}
		bare := a.Resource == p.pods && metav1.GetControllerOfNoCopy(obj) == nil
		errs = append(errs, p.check(place.Annotations, a.Namespace, at, bare)...)
		waits = waits || place.Annotations[dependency.DependsOn] != ""
	}
	if len(errs) == 0 && waits && !made(obj) {
		errs = p.circle(a, obj)
	}
	if len(errs) == 0 {
		return nil
	}
	name := obj.GetName()
	if name == "" {
		name = obj.GetGenerateName()
	}
	return apierrors.NewInvalid(a.Resource.GVK().GroupKind(), name, errs)
}

// made says that a built-in workload made an object, after a template of its own that
// was checked. Should that be part of a circle all the same, its pods say so.
func made(obj api.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && slices.Contains([]string{"v1", "apps/v1", "batch/v1"}, ref.APIVersion)
}

// ours are the annotations that people write.
var ours = []string{dependency.DependsOn, dependency.OnFailure, dependency.Grace, dependency.StopOrder}

func same(a, b map[string]string) bool {
	return !slices.ContainsFunc(ours, func(key string) bool { return a[key] != b[key] })
}

// check says what is wrong with one set of annotations. bare: of a pod that nothing
// would make again.
func (p *Plugin) check(set map[string]string, namespace string, at *field.Path, bare bool) (errs field.ErrorList) {
	invalid := func(key, why string) {
		errs = append(errs, field.Invalid(at.Key(key), set[key], why))
	}
	if _, err := dependency.Parse(p.graph.Registry, namespace, set[dependency.DependsOn]); err != nil {
		invalid(dependency.DependsOn, err.Error())
	}
	oneOf := func(key string, values ...string) {
		if v, ok := set[key]; ok && !slices.Contains(values, v) {
			errs = append(errs, field.NotSupported(at.Key(key), v, values))
		}
	}
	oneOf(dependency.OnFailure, dependency.Wait, dependency.Stop, dependency.Restart)
	oneOf(dependency.StopOrder, dependency.Reverse, dependency.Parallel)
	if text, ok := set[dependency.Grace]; ok {
		if d, err := time.ParseDuration(text); err != nil || d < 0 {
			invalid(dependency.Grace, `must be a time that is not negative, as in "30s"`)
		}
	}
	if bare && set[dependency.OnFailure] == dependency.Restart {
		invalid(dependency.OnFailure, "nothing makes a pod without a controller again; use a Deployment, a StatefulSet or a Job, or another value")
	}
	return errs
}

// circle says whether the object would wait, over others, for itself.
func (p *Plugin) circle(a *admission.Attributes, obj api.Object) field.ErrorList {
	start := dependency.Target{Kind: dependency.TargetOf(a.Resource, obj).Kind, Namespace: a.Namespace, Name: obj.GetName()}
	if start.Name == "" {
		start.Name = obj.GetGenerateName() + "…"
	}
	g := p.graph
	g.Instead = map[dependency.Target]api.Object{start: obj}
	circle := g.Circle(start)
	if circle == nil {
		return nil
	}
	var texts []string
	at := field.NewPath("metadata", "annotations")
	for i, place := range dependency.Places(obj) {
		if text := place.Annotations[dependency.DependsOn]; text != "" {
			if texts = append(texts, text); i > 0 && len(texts) == 1 {
				at = field.NewPath(place.Path[0], append(place.Path[1:], "metadata", "annotations")...)
			}
		}
	}
	return field.ErrorList{field.Invalid(at.Key(dependency.DependsOn), strings.Join(texts, ", "),
		"waits in a circle, so that nothing of it would ever start: "+dependency.Spell(circle)+"; take one of these dependencies away")}
}
