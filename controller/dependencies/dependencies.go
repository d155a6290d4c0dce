// Package dependencies lets pods start once what they depend on is there, stops or
// restarts them when it fails, and has what depends on others stop before them
// (package api/dependency).
package dependencies

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
	"hansa.dev/hansa/internal/podstate"
)

// Name is the loop's identity.
const Name = "dependency-controller"

// Loop looks at the root of a chain of owners, with all pods below it, and at the
// part of single objects in a stop order. A key is RESOURCE/NAME.
type Loop struct {
	client                 client.Interface
	events                 events.Recorder
	graph                  dependency.Graph
	pods, slices, services *api.Resource
	namespaces             *api.Resource
	index                  *index

	mu sync.Mutex
	// lost is since when this process has seen dependencies lost, by root. It is
	// forgotten with the process, at the price of waiting again.
	lost map[api.Key]map[dependency.Dependency]time.Time
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	reg := c.Registry()
	return &Loop{
		client: c, events: recorder, graph: dependency.Graph{Registry: reg, View: c.View()},
		pods: reg.Must("", "pods"), slices: reg.Must(discoveryv1.GroupName, "endpointslices"),
		services: reg.Must("", "services"), namespaces: reg.Must("", "namespaces"),
		index: newIndex(), lost: map[api.Key]map[dependency.Dependency]time.Time{},
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return Name }

// Sources are all objects in namespaces: any may depend on another, and any may be
// what others wait for.
func (l *Loop) Sources() []controller.Source {
	var sources []controller.Source
	for _, r := range l.client.Registry().Resources() {
		if !r.Namespaced || r.Prefix == "" || r.Kind == "Event" || r.Kind == "Lease" {
			continue
		}
		kind := dependency.KindName(r)
		sources = append(sources, controller.Source{Resource: r, Keys: func(old, new api.Object) []api.Key {
			return l.keys(r, kind, old, new)
		}})
	}
	return sources
}

// find is what a key leads to; the object is nil if it is gone.
func (l *Loop) find(key api.Key) (*api.Resource, api.Object) {
	resource, name, _ := strings.Cut(key.Name, "/")
	gr := schema.ParseGroupResource(resource)
	for _, r := range l.client.Registry().Resources() {
		if r.Plural == gr.Resource && r.Group == gr.Group {
			return r, l.client.View().Get(r, api.Key{Namespace: key.Namespace, Name: name})
		}
	}
	return nil, nil
}

// keys are whom a change concerns. Of objects that neither name a dependency nor are
// one it costs a look at two annotations and, if anybody depends on anything, at the
// index.
func (l *Loop) keys(r *api.Resource, kind string, old, new api.Object) (keys []api.Key) {
	obj := new
	if obj == nil {
		obj = old
	}
	add := func(more ...api.Key) {
		for _, k := range more {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	if old != nil && dependency.Text(old) != "" || new != nil && dependency.Text(new) != "" {
		before, after := l.note(r, obj, new != nil)
		if old == nil || new == nil || spoken(old) != spoken(new) || begun(old, new) {
			add(controller.KeyOf(r, obj), l.root(r, obj))
			// Who stops after whom may have changed.
			for _, d := range append(slices.Clone(before), after...) {
				if row, o := d.Object(l.graph.Registry, l.graph.View); o != nil {
					add(controller.KeyOf(row, o))
				}
			}
		}
	}
	if isFinal(obj) && (old == nil || begun(old, new) || new != nil && !isFinal(old)) {
		add(controller.KeyOf(r, obj))
	}
	if r == l.pods && (gated(old) || gated(new)) {
		add(l.root(r, obj))
	}
	if !l.index.empty() {
		t := dependency.Target{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}
		if r == l.slices {
			t = dependency.Target{Kind: l.services.Singular, Namespace: obj.GetNamespace(), Name: obj.GetLabels()[discoveryv1.LabelServiceName]}
		}
		users := l.index.of(t)
		for _, u := range users {
			if old != nil && new != nil && r != l.slices && l.looks(t, u, old) == l.looks(t, u, new) {
				continue
			}
			if row, o := l.find(u.key); o != nil {
				add(l.root(row, o))
			}
		}
		if len(users) > 0 && r != l.slices && (old == nil || begun(old, new)) {
			add(controller.KeyOf(r, obj))
		}
	}
	return keys
}

// looks is how things stand with what somebody waits for, were obj the target.
func (l *Loop) looks(t dependency.Target, u user, obj api.Object) dependency.State {
	return dependency.LookAt(l.graph.Registry, l.graph.View, dependency.Dependency{Target: t, Condition: u.condition}, obj)
}

// note keeps the index: what obj names, if it is there still.
func (l *Loop) note(r *api.Resource, obj api.Object, there bool) (before, after []dependency.Dependency) {
	vague := false
	if there {
		var err error
		after, err = dependency.Parse(l.graph.Registry, obj.GetNamespace(), dependency.Text(obj))
		vague = err != nil
	}
	return l.index.set(controller.KeyOf(r, obj), after, vague), after
}

// spoken is all that an object says about dependencies.
func spoken(obj api.Object) string {
	a := obj.GetAnnotations()
	return strings.Join([]string{a[dependency.DependsOn], a[dependency.OnFailure], a[dependency.Grace], a[dependency.StopOrder], a[dependency.Completed]}, "\n")
}

// begun says that an object is being deleted and was not before, or is gone.
func begun(old, new api.Object) bool {
	return new == nil || old != nil && old.GetDeletionTimestamp() == nil && new.GetDeletionTimestamp() != nil
}

func isFinal(obj api.Object) bool { return slices.Contains(obj.GetFinalizers(), dependency.Finalizer) }

func gated(obj api.Object) bool {
	p, ok := obj.(*corev1.Pod)
	return ok && len(dependency.Gates(p)) > 0
}

// root is the key of what is at the upper end of an object's chain of owners.
func (l *Loop) root(r *api.Resource, obj api.Object) api.Key {
	chain := l.graph.Chain(r, obj)
	top := chain[len(chain)-1]
	return controller.KeyOf(top.Resource, top.Object)
}

// Waiting are the keys of those who name kinds that were not served: they are
// understood anew.
func (l *Loop) Waiting() []api.Key {
	keys := l.index.unclear()
	for _, k := range keys {
		if r, obj := l.find(k); obj != nil {
			l.note(r, obj, true)
			keys = append(keys, l.root(r, obj))
		}
	}
	return keys
}

// Step looks at one object: at its part in a stop order, and, if nothing controls it,
// at all pods below it.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	r, obj := l.find(key)
	if obj == nil {
		l.remember(key, nil)
		return 0, nil
	}
	var after time.Duration
	// A pod with a controller stops when that has it stop.
	if r != l.pods || metav1.GetControllerOfNoCopy(obj) == nil {
		var err error
		if after, err = l.order(ctx, dependency.Link{Resource: r, Object: obj}, now); err != nil {
			return 0, fmt.Errorf("stop order of %s: %w", api.RefTo(r, obj), err)
		}
	}
	if len(l.graph.Chain(r, obj)) > 1 {
		return after, nil
	}
	if obj = l.client.View().Get(r, api.RefTo(r, obj).Key()); obj == nil {
		return after, nil
	}
	again, err := l.serve(ctx, dependency.Link{Resource: r, Object: obj}, now)
	if err != nil {
		return 0, fmt.Errorf("dependencies of %s: %w", api.RefTo(r, obj), err)
	}
	return controller.Sooner(after, again), nil
}

func (l *Loop) remember(key api.Key, lost map[dependency.Dependency]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(lost) == 0 {
		delete(l.lost, key)
	} else {
		l.lost[key] = lost
	}
}

func (l *Loop) remembered(key api.Key) map[dependency.Dependency]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[key]
}

// children are the kinds that the built-in workloads control; others may control
// anything.
var children = map[string][]schema.GroupResource{
	"pods":                   {},
	"deployments.apps":       {{Group: "apps", Resource: "replicasets"}},
	"cronjobs.batch":         {{Group: "batch", Resource: "jobs"}},
	"replicasets.apps":       {{Resource: "pods"}},
	"statefulsets.apps":      {{Resource: "pods"}},
	"daemonsets.apps":        {{Resource: "pods"}},
	"jobs.batch":             {{Resource: "pods"}},
	"replicationcontrollers": {{Resource: "pods"}},
}

// below calls f for all pods below an object that have neither ended nor are on their
// way out.
func (l *Loop) below(at dependency.Link, depth int, f func(*corev1.Pod)) {
	if at.Resource == l.pods {
		if p := at.Object.(*corev1.Pod); podstate.Active(p) {
			f(p)
		}
		return
	}
	if depth == 0 {
		return
	}
	rows := l.client.Registry().Resources()
	if kinds, ok := children[at.Resource.GroupResource().String()]; ok {
		rows = nil
		for _, k := range kinds {
			rows = append(rows, l.client.Registry().Must(k.Group, k.Resource))
		}
	}
	for _, r := range rows {
		if !r.Namespaced || r.Prefix == "" {
			continue
		}
		for o := range l.client.View().ByIndex(r, api.IndexOwner, string(at.Object.GetUID())) {
			if controller.ControlledBy(o, at.Object) {
				l.below(dependency.Link{Resource: r, Object: o}, depth-1, f)
			}
		}
	}
}

// deepest bounds the levels of owners that are gone through.
const deepest = 10

// serve looks at the pods below a root.
func (l *Loop) serve(ctx context.Context, root dependency.Link, now time.Time) (time.Duration, error) {
	key := controller.KeyOf(root.Resource, root.Object)
	top := []dependency.Link{root}
	done := l.graph.CompletedBy(top)
	o := outlook{states: map[dependency.Dependency]dependency.State{}, lost: l.remembered(key)}
	all := l.graph.Needs(top)
	var subjects []subject
	waiting := false
	l.below(root, deepest, func(p *corev1.Pod) {
		chain := l.graph.Chain(l.pods, p)
		s := subject{pod: p, needs: l.graph.Needs(chain), vague: l.graph.Vague(chain)}
		gates := len(dependency.Gates(p)) > 0
		if len(s.needs) == 0 && !gates {
			return
		}
		waiting = waiting || gates
		s.mode, s.grace = dependency.Policy(chain)
		s.monitored = slices.ContainsFunc(chain, func(at dependency.Link) bool {
			_, on := onfailure.Read(at.Object.GetAnnotations())
			return on
		})
		subjects, all = append(subjects, s), append(all, s.needs...)
	})
	for _, d := range all {
		if _, ok := o.states[d]; !ok {
			_, o.states[d] = l.graph.Holds(d, done)
		}
	}
	var circle []dependency.Target
	if waiting {
		if circle = l.graph.Circle(root.Target()); circle != nil {
			o.circle = dependency.Spell(circle)
		}
	}
	plan := planPods(subjects, o, now)
	l.remember(key, plan.lost)
	if err := l.act(ctx, plan, circle, now); err != nil {
		return 0, err
	}
	if root.Resource != l.pods && root.Object.GetDeletionTimestamp() == nil {
		if err := l.noteDone(ctx, root, toNote(root.Object.GetAnnotations()[dependency.Completed], done, all, o.states)); err != nil {
			return 0, err
		}
	}
	return plan.after, nil
}
