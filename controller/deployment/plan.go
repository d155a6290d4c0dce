package deployment

import (
	"cmp"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
)

// snapshot is what a plan is made from. The objects in it are not written to.
type snapshot struct {
	d       *appsv1.Deployment
	current *appsv1.ReplicaSet // nil: not made yet
	old     []*appsv1.ReplicaSet
	oldPods bool // pods of old sets are still there, ending ones too

	// failed is what is to be said while a revision that was found to have failed
	// is asked for, or was undone; asked is its set, if another stands in for it.
	failed string
	asked  *appsv1.ReplicaSet

	// What became of the decision to make the current set; the status tells.
	created  bool
	collided bool   // its name is that of another set
	refused  string // why it could not be made
}

func (s snapshot) all() []*appsv1.ReplicaSet {
	if s.current == nil {
		return s.old
	}
	return append(slices.Clone(s.old), s.current)
}

// decision is what one step does to the sets.
type decision struct {
	create bool // make the current set, with size
	size   int32
	scale  []scaling
	remove []*appsv1.ReplicaSet // beyond the history to keep
}

type scaling struct {
	set *appsv1.ReplicaSet
	to  int32
}

// plan decides one step of a rollout, by the arithmetic of Kubernetes'
// Deployment controller: never more than replicas+maxSurge pods, never fewer
// than replicas-maxUnavailable available ones.
func plan(s snapshot) decision {
	dec := step(s)
	// Invariant: of the pods that a set's status calls available, those within its
	// size remain. A set that grows before it knows that it was to shrink would
	// break that: it waits until its status tells of what is left.
	if slices.ContainsFunc(dec.scale, func(sc scaling) bool {
		return sc.to > size(sc.set) && sc.set.Status.AvailableReplicas > size(sc.set)
	}) {
		return decision{}
	}
	return dec
}

func step(s snapshot) decision {
	d := s.d
	switch {
	case d.DeletionTimestamp != nil:
		return decision{}
	case d.Spec.Paused:
		return decision{scale: resize(s), remove: surplus(s)}
	}
	if resized(s) {
		// A deployment that recreates has nothing to share out, and goes on.
		if scale := resize(s); len(scale) > 0 {
			return decision{scale: scale}
		}
	}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return recreate(s)
	}
	return rolling(s)
}

func recreate(s snapshot) decision {
	if up := active(s.old); len(up) > 0 {
		var down []scaling
		for _, rs := range up {
			down = append(down, scaling{rs, 0})
		}
		return decision{scale: down}
	}
	if s.oldPods {
		return decision{}
	}
	if s.current == nil {
		return decision{create: true, size: replicas(s.d)}
	}
	if size(s.current) != replicas(s.d) {
		return decision{scale: []scaling{{s.current, replicas(s.d)}}}
	}
	return finish(s)
}

// finish removes what a complete rollout leaves.
func finish(s snapshot) decision {
	if !complete(s.d, &s.d.Status) {
		return decision{}
	}
	return decision{remove: surplus(s)}
}

func rolling(s snapshot) decision {
	want := nextSize(s)
	if s.current == nil {
		return decision{create: true, size: want}
	}
	if size(s.current) != want {
		return decision{scale: []scaling{{s.current, want}}}
	}
	if down := shrinkOld(s); len(down) > 0 {
		return decision{scale: down}
	}
	return finish(s)
}

// nextSize is how large the current set may be now.
func nextSize(s snapshot) int32 {
	d, have := s.d, int32(0)
	if s.current != nil {
		have = size(s.current)
	}
	want := replicas(d)
	if have >= want {
		return want
	}
	room := want + surge(d) - sum(s.all(), size)
	return have + max(0, min(room, want-have))
}

// shrinkOld takes from the old sets what the rollout may take now: first pods
// that are not available anyway, then available ones as far as enough remain.
func shrinkOld(s snapshot) []scaling {
	old := active(s.old)
	if len(old) == 0 {
		return nil
	}
	// Of a set that is to shrink, and does not know it yet, what remains counts.
	available := func(rs *appsv1.ReplicaSet) int32 { return min(rs.Status.AvailableReplicas, size(rs)) }
	least := replicas(s.d) - unavailable(s.d)
	room := sum(s.all(), size) - least - (size(s.current) - available(s.current))
	if room <= 0 {
		return nil
	}
	next := map[*appsv1.ReplicaSet]int32{}
	for _, rs := range old {
		next[rs] = size(rs)
	}
	for _, rs := range old {
		n := min(room, max(0, next[rs]-available(rs)))
		next[rs] -= n
		room -= n
	}
	spare := min(room, sum(s.all(), available)-least)
	for _, rs := range old {
		n := max(0, min(next[rs], spare))
		next[rs] -= n
		spare -= n
	}
	var down []scaling
	for _, rs := range old {
		if next[rs] != size(rs) {
			down = append(down, scaling{rs, next[rs]})
		}
	}
	return down
}

// resized says whether the deployment's size changed since its sets were last
// scaled.
func resized(s snapshot) bool {
	for _, rs := range active(s.all()) {
		if n, ok := intAnnotation(rs, desiredAnnotation); ok && n != replicas(s.d) {
			return true
		}
	}
	return false
}

// resize brings a change of size to the sets: to the one that is active, or in
// proportion to all while a rollout is under way.
func resize(s snapshot) []scaling {
	d := s.d
	if rs := activeOrLatest(s); rs != nil {
		if size(rs) == replicas(d) && (size(rs) == 0 || hasSize(rs, d)) {
			return nil
		}
		return []scaling{{rs, replicas(d)}}
	}
	if saturated(d, s.current) {
		var down []scaling
		for _, rs := range active(s.old) {
			down = append(down, scaling{rs, 0})
		}
		return down
	}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	return proportional(d, active(s.all()))
}

// activeOrLatest is the one set that has pods, or the newest when none has; nil
// when several have.
func activeOrLatest(s snapshot) *appsv1.ReplicaSet {
	switch up := active(s.all()); {
	case len(up) == 1:
		return up[0]
	case len(up) > 1:
		return nil
	case s.current != nil:
		return s.current
	case len(s.old) > 0:
		return s.old[len(s.old)-1]
	}
	return nil
}

func saturated(d *appsv1.Deployment, rs *appsv1.ReplicaSet) bool {
	if rs == nil {
		return false
	}
	desired, ok := intAnnotation(rs, desiredAnnotation)
	return ok && size(rs) == replicas(d) && desired == replicas(d) && rs.Status.AvailableReplicas == replicas(d)
}

// proportional spreads a change of size over the sets by their shares; what
// rounding leaves goes to the largest. Every set is named, since each has to
// note the new size.
func proportional(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) []scaling {
	allowed := int32(0)
	if replicas(d) > 0 {
		allowed = replicas(d) + surge(d)
	}
	change := allowed - sum(sets, size)
	sets = slices.Clone(sets)
	slices.SortStableFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		if size(a) != size(b) {
			return int(size(b) - size(a))
		}
		if change > 0 {
			return controller.ByAge(b, a) // growth goes to the newer first
		}
		return controller.ByAge(a, b)
	})
	var out []scaling
	left := change
	for _, rs := range sets {
		n := share(d, rs)
		if change > 0 {
			n = max(0, min(n, left))
		} else {
			n = min(0, max(n, left))
		}
		left -= n
		out = append(out, scaling{rs, size(rs) + n})
	}
	if len(out) > 0 {
		out[0].to = max(0, out[0].to+left)
	}
	return out
}

// share is by how much a set changes in proportion to the deployment.
func share(d *appsv1.Deployment, rs *appsv1.ReplicaSet) int32 {
	if replicas(d) == 0 {
		return -size(rs)
	}
	before, ok := intAnnotation(rs, maxAnnotation)
	if !ok || before == 0 {
		before = d.Status.Replicas
	}
	if before == 0 {
		return 0
	}
	exact := float64(size(rs)) * float64(replicas(d)+surge(d)) / float64(before)
	return int32(math.Round(exact)) - size(rs)
}

// surplus are the oldest of the old sets beyond the history that the deployment
// keeps; one that has pods stays.
func surplus(s snapshot) []*appsv1.ReplicaSet {
	if s.d.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	var alive []*appsv1.ReplicaSet
	for _, rs := range s.old {
		if rs.DeletionTimestamp == nil && rs != s.asked {
			alive = append(alive, rs)
		}
	}
	n := len(alive) - int(*s.d.Spec.RevisionHistoryLimit)
	if n <= 0 {
		return nil
	}
	slices.SortStableFunc(alive, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	return slices.DeleteFunc(alive[:n], func(rs *appsv1.ReplicaSet) bool {
		return size(rs) != 0 || rs.Status.Replicas != 0 || rs.Generation > rs.Status.ObservedGeneration
	})
}

func replicas(d *appsv1.Deployment) int32 { return ptr.Deref(d.Spec.Replicas, 1) }

// fence is maxSurge and maxUnavailable in pods: surge rounds up, unavailability
// down, and they are never both zero.
func fence(d *appsv1.Deployment) (surge, unavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || r == nil {
		return 0, 0
	}
	zero := intstr.FromInt32(0)
	s, err := intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(r.MaxSurge, zero)), int(replicas(d)), true)
	if err != nil {
		s = 0 // not possible in a deployment that was validated
	}
	u, err := intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(r.MaxUnavailable, zero)), int(replicas(d)), false)
	if err != nil {
		u = 0 // as above
	}
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), int32(min(u, int(replicas(d))))
}

func surge(d *appsv1.Deployment) int32 {
	s, _ := fence(d)
	return s
}

func unavailable(d *appsv1.Deployment) int32 {
	_, u := fence(d)
	return u
}
