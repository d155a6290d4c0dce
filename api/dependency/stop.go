package dependency

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/podstate"
)

// Leads says whether what one object wants stopped after itself leads, over others
// that want the same, to a target.
func (g Graph) Leads(from api.Object, to Target) bool {
	seen := map[Target]bool{}
	var visit func(obj api.Object) bool
	visit = func(obj api.Object) bool {
		if obj == nil || !Reversed(obj) {
			return false
		}
		for _, d := range g.Own(obj) {
			if d.Target == to {
				return true
			}
			if seen[d.Target] {
				continue
			}
			seen[d.Target] = true
			if _, next := g.object(d.Target); visit(next) {
				return true
			}
		}
		return false
	}
	return visit(from)
}

// After says whether an object that is being deleted has to wait for a dependant of
// it: not if it belongs to the dependant, which waits for it then, nor if each has
// to wait for the other.
func (g Graph) After(x, dependant Link) bool {
	for _, l := range g.Chain(x.Resource, x.Object)[1:] {
		if l.Object.GetUID() == dependant.Object.GetUID() {
			return false
		}
	}
	return !g.Leads(x.Object, dependant.Target())
}

// Held are those of the pods of a namespace, of which all are to go, that wait for
// others to go first. They are never all that is left: what waits in a circle goes
// at once.
func (g Graph) Held(namespace string) map[types.UID]bool {
	pods := g.Registry.Must("", "pods")
	type member struct {
		pod   *corev1.Pod
		chain []Link
	}
	var members []member
	users := map[Target][]types.UID{} // pods that stop before a target does
	for o := range g.View.List(pods, namespace) {
		p := o.(*corev1.Pod)
		if podstate.Finished(p) {
			continue
		}
		m := member{p, g.Chain(pods, p)}
		members = append(members, m)
		for i, l := range m.chain {
			if Reversed(l.Object) {
				for _, d := range without(g.Own(l.Object), m.chain[i:]) {
					users[d.Target] = append(users[d.Target], p.UID)
				}
			}
		}
	}
	if len(users) == 0 {
		return nil
	}
	held := map[types.UID]bool{}
	for _, m := range members {
		if g.used(m.pod, m.chain, users) {
			held[m.pod.UID] = true
		}
	}
	if len(held) == len(members) {
		return nil
	}
	return held
}

// used says whether another pod stops before what this one is a part of.
func (g Graph) used(p *corev1.Pod, chain []Link, users map[Target][]types.UID) bool {
	others := func(t Target) bool {
		for _, uid := range users[t] {
			if uid != p.UID {
				return true
			}
		}
		return false
	}
	for _, l := range chain {
		if others(l.Target()) {
			return true
		}
	}
	services := g.Registry.Must("", "services")
	for t := range users {
		if t.Kind != services.Singular || !others(t) {
			continue
		}
		s, ok := g.View.Get(services, api.Key{Namespace: t.Namespace, Name: t.Name}).(*corev1.Service)
		if ok && len(s.Spec.Selector) > 0 && labels.Set(s.Spec.Selector).AsSelectorPreValidated().Matches(labels.Set(p.Labels)) {
			return true
		}
	}
	return false
}
