package dependency

import (
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// Graph is what waits for what, as a view shows it.
type Graph struct {
	Registry *api.Registry
	View     View
	// Instead has objects that are taken for those of the view: what is about to be
	// written.
	Instead map[Target]api.Object
}

func (g Graph) object(t Target) (*api.Resource, api.Object) {
	r, obj := t.Object(g.Registry, g.View)
	if o := g.Instead[t]; o != nil && r != nil {
		return r, o
	}
	return r, obj
}

// Link is an object of a chain.
type Link struct {
	Resource *api.Resource
	Object   api.Object
}

// Target names the object.
func (l Link) Target() Target { return TargetOf(l.Resource, l.Object) }

// longest bounds a chain of owners, should one be a circle.
const longest = 10

// Chain is an object, its controller, and so on up to the one that nothing controls.
// It ends where a controller is not there, or is another of the same name.
func (g Graph) Chain(r *api.Resource, obj api.Object) []Link {
	chain := []Link{{r, obj}}
	for len(chain) < longest {
		ref := metav1.GetControllerOfNoCopy(obj)
		if ref == nil {
			break
		}
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			break
		}
		served := g.Registry.ByGVK(gv.WithKind(ref.Kind))
		if served == nil || !served.Namespaced {
			break
		}
		// What is about to be written has no UID yet, and controls nothing.
		owner := g.View.Get(served.Resource, api.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
		if owner == nil || owner.GetUID() != ref.UID {
			break
		}
		if o := g.Instead[TargetOf(served.Resource, owner)]; o != nil {
			owner = o
		}
		r, obj = served.Resource, owner
		chain = append(chain, Link{r, obj})
	}
	return chain
}

// annotations are those that an object itself says something by. A deployment writes
// its own into its replica sets and does not take them out again.
func annotations(obj api.Object) map[string]string {
	if _, ok := obj.(*appsv1.ReplicaSet); ok && revision(obj) {
		return nil
	}
	return obj.GetAnnotations()
}

// Text is what an object itself says that it depends on.
func Text(obj api.Object) string {
	if obj.GetAnnotations()[DependsOn] == "" {
		return ""
	}
	return annotations(obj)[DependsOn]
}

// Own are the dependencies that an object itself names.
func (g Graph) Own(obj api.Object) []Dependency {
	text := Text(obj)
	if text == "" {
		return nil
	}
	list, _ := Parse(g.Registry, obj.GetNamespace(), text)
	return list
}

// Reversed says whether an object wants to be stopped before what it depends on.
func Reversed(obj api.Object) bool {
	a := annotations(obj)
	return a[StopOrder] == Reverse && a[DependsOn] != ""
}

// Needs is what the first object of a chain waits for: all that it and its
// controllers name, without themselves.
func (g Graph) Needs(chain []Link) []Dependency {
	var list []Dependency
	for _, l := range chain {
		list = append(list, g.Own(l.Object)...)
	}
	return without(list, chain)
}

// Vague says what is not understood of what the objects of a chain name, as its kind
// is served no more; empty: nothing.
func (g Graph) Vague(chain []Link) string {
	for _, l := range chain {
		if text := Text(l.Object); text != "" {
			if _, err := Parse(g.Registry, l.Object.GetNamespace(), text); err != nil {
				return err.Error()
			}
		}
	}
	return ""
}

func without(list []Dependency, chain []Link) []Dependency {
	if len(list) == 0 {
		return nil
	}
	seen := map[Dependency]bool{}
	return slices.DeleteFunc(list, func(d Dependency) bool {
		if seen[d] || slices.ContainsFunc(chain, func(l Link) bool { return l.Target() == d.Target }) {
			return true
		}
		seen[d] = true
		return false
	})
}

// Policy is what becomes of a running pod when a dependency fails, and for how long
// that has to be lost. The nearest word of the chain counts.
func Policy(chain []Link) (mode string, grace time.Duration) {
	mode, grace = Wait, DefaultGrace
	for i := range chain {
		a := annotations(chain[len(chain)-1-i].Object)
		if m := a[OnFailure]; m != "" {
			mode = m
		}
		if d, err := time.ParseDuration(a[Grace]); err == nil && d >= 0 {
			grace = d
		}
	}
	return mode, grace
}

// CompletedBy are the dependencies that have been noted as done by some object of a
// chain.
func (g Graph) CompletedBy(chain []Link) []Dependency {
	var list []Dependency
	for _, l := range chain {
		if text := annotations(l.Object)[Completed]; text != "" {
			done, _ := Parse(g.Registry, l.Object.GetNamespace(), text)
			list = append(list, done...)
		}
	}
	return list
}

// Holds says whether a dependency need not be waited for: it is met, or was met for
// good by an object that is gone.
func (g Graph) Holds(d Dependency, done []Dependency) (bool, State) {
	s := Look(g.Registry, g.View, d)
	if !s.Met && d.Once() && slices.Contains(done, d) {
		if _, obj := d.Object(g.Registry, g.View); obj == nil {
			return true, met()
		}
	}
	return s.Met, s
}

// Place is one set of annotations of an object that dependencies may be in, and the
// labels beside it.
type Place struct {
	Path        []string
	Annotations map[string]string
	Labels      map[string]string
}

// Places are all of them: an object's own, and those of the templates in it, of which
// that of its pods comes last.
func Places(obj api.Object) []Place {
	list := []Place{{nil, obj.GetAnnotations(), obj.GetLabels()}}
	template := func(t *corev1.PodTemplateSpec, path ...string) {
		if t != nil {
			list = append(list, Place{append(path, "template"), t.Annotations, t.Labels})
		}
	}
	switch o := obj.(type) {
	case *appsv1.Deployment:
		template(&o.Spec.Template, "spec")
	case *appsv1.StatefulSet:
		template(&o.Spec.Template, "spec")
	case *appsv1.DaemonSet:
		template(&o.Spec.Template, "spec")
	case *appsv1.ReplicaSet:
		template(&o.Spec.Template, "spec")
	case *corev1.ReplicationController:
		template(o.Spec.Template, "spec")
	case *batchv1.Job:
		template(&o.Spec.Template, "spec")
	case *batchv1.CronJob:
		list = append(list, Place{[]string{"spec", "jobTemplate"}, o.Spec.JobTemplate.Annotations, o.Spec.JobTemplate.Labels})
		template(&o.Spec.JobTemplate.Spec.Template, "spec", "jobTemplate", "spec")
	}
	return list
}

// edges are what has to be before a target can come to meet a condition: what its
// pods wait for, and what those of a service wait for.
func (g Graph) edges(d Dependency) []Dependency {
	if d.Condition == exists {
		return nil
	}
	r, obj := g.object(d.Target)
	if obj == nil {
		return nil
	}
	if s, ok := obj.(*corev1.Service); ok {
		return g.behind(s)
	}
	chain := g.Chain(r, obj)
	// What names itself is the smallest circle; what its controllers name itself, it
	// does not wait for.
	list := without(g.named(obj), chain[1:])
	for _, l := range chain[1:] {
		list = append(list, without(g.Own(l.Object), chain)...)
	}
	return list
}

// named are the dependencies of an object and of the templates in it.
func (g Graph) named(obj api.Object) []Dependency {
	list := g.Own(obj)
	for _, p := range Places(obj)[1:] {
		if text := p.Annotations[DependsOn]; text != "" {
			more, _ := Parse(g.Registry, obj.GetNamespace(), text)
			list = append(list, more...)
		}
	}
	return list
}

// behind are the workloads and pods with dependencies whose pods a service selects.
func (g Graph) behind(s *corev1.Service) []Dependency {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	var list []Dependency
	see := func(r *api.Resource, obj api.Object) {
		places := Places(obj)
		waits := slices.ContainsFunc(places, func(p Place) bool { return p.Annotations[DependsOn] != "" })
		if waits && leads(s.Spec.Selector, obj, places[len(places)-1].Labels) {
			list = append(list, Dependency{TargetOf(r, obj), ready})
		}
	}
	for _, name := range selected {
		r := g.Registry.Must(name.Group, name.Resource)
		for obj := range g.View.List(r, s.Namespace) {
			if g.Instead[TargetOf(r, obj)] == nil && !revision(obj) {
				see(r, obj)
			}
		}
	}
	for t, obj := range g.Instead {
		if r := t.row(g.Registry); r != nil && slices.Contains(selected, r.GroupResource()) {
			see(r, obj)
		}
	}
	return list
}

// leads says whether a selector may select a pod of a workload, or the pod itself,
// by the labels of its template. The pods of a stateful set say their place as well,
// by which a service leads to one of them.
func leads(selector map[string]string, obj api.Object, set map[string]string) bool {
	s, ok := obj.(*appsv1.StatefulSet)
	if !ok {
		return labels.Set(selector).AsSelectorPreValidated().Matches(labels.Set(set))
	}
	var places []string // all that are asked for
	for key, value := range selector {
		switch key {
		case appsv1.StatefulSetPodNameLabel:
			var its bool
			if value, its = strings.CutPrefix(value, s.Name+"-"); !its {
				return false
			}
			fallthrough
		case appsv1.PodIndexLabel:
			places = append(places, value)
		default:
			if is, there := set[key]; !there || is != value {
				return false
			}
		}
	}
	return !slices.ContainsFunc(places, func(place string) bool {
		n, err := strconv.Atoi(place)
		return place != places[0] || err != nil || strconv.Itoa(n) != place || n < int(ptr.Deref(s.Spec.Ordinals, appsv1.StatefulSetOrdinals{}).Start)
	})
}

// selected are the kinds whose pods a service may lead to.
var selected = []schema.GroupResource{
	{Group: "apps", Resource: "deployments"}, {Group: "apps", Resource: "statefulsets"}, {Group: "apps", Resource: "daemonsets"}, {Group: "apps", Resource: "replicasets"},
	{Resource: "replicationcontrollers"}, {Group: "batch", Resource: "jobs"}, {Group: "batch", Resource: "cronjobs"}, {Resource: "pods"},
}

// revision says that an object is one of those that a workload makes one after
// another. The workload counts in its place, since those of before start nothing any
// more; what pods they have left counts for itself.
func revision(obj api.Object) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	if ref == nil {
		return false
	}
	switch obj.(type) {
	case *appsv1.ReplicaSet:
		return ref.Kind == "Deployment"
	case *batchv1.Job:
		return ref.Kind == "CronJob"
	}
	return false
}

// Circle is a chain of targets each of which waits for the next, the last for the
// first; nil if start leads to none.
func (g Graph) Circle(start Target) []Target {
	const (
		open = iota + 1
		done
	)
	state := map[Target]int{}
	var path []Target
	var visit func(d Dependency) []Target
	visit = func(d Dependency) []Target {
		switch state[d.Target] {
		case open:
			return slices.Clone(path[slices.Index(path, d.Target):])
		case done:
			return nil
		}
		state[d.Target] = open
		path = append(path, d.Target)
		for _, next := range g.edges(d) {
			if next.Condition == exists {
				continue
			}
			if c := visit(next); c != nil {
				return c
			}
		}
		path = path[:len(path)-1]
		state[d.Target] = done
		return nil
	}
	return visit(Dependency{start, ready})
}

// Spell writes a circle: a → b → a.
func Spell(circle []Target) string {
	var names []string
	for _, t := range circle {
		names = append(names, t.String())
	}
	return strings.Join(append(names, names[0]), " → ")
}
