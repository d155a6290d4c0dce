package dependencies

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// subject is a pod, and what its chain of owners asks of it.
type subject struct {
	pod   *corev1.Pod
	needs []dependency.Dependency
	vague string // what is not understood of that; empty: nothing
	mode  string
	grace time.Duration
	// monitored: its revision may be undone if it fails, so that it says when it lacks
	// something.
	monitored bool
}

// outlook is how things stand with what the pods of one root wait for.
type outlook struct {
	states map[dependency.Dependency]dependency.State // a noted completion counts as met
	// circle is spelled out if the root waits for itself.
	circle string
	// lost is since when dependencies have been lost, as far as this process knows.
	lost map[dependency.Dependency]time.Time
}

// podPlan is what is to be done about one pod. All of it may be empty.
type podPlan struct {
	pod  *corev1.Pod
	drop []string // gates
	// message is what its condition PodScheduled is to say; empty: what it says.
	message string
	// fail is why it is to have the condition Failed, lack why that is to be Unknown;
	// empty: it is left alone. back has it say that nothing is lacking any more.
	fail, lack string
	back       bool
	// stop and restart are why it is to be deleted.
	stop, restart string
}

// plan is what is to be done about the pods of a root.
type plan struct {
	pods []podPlan
	lost map[dependency.Dependency]time.Time // to be remembered
	// after is when to look again, should nothing happen; zero: never.
	after time.Duration
}

// planPods decides about the pods of one root that have neither ended nor are on
// their way out.
func planPods(subjects []subject, o outlook, now time.Time) plan {
	p := plan{lost: map[dependency.Dependency]time.Time{}}
	for d, s := range o.states {
		if s.Lost && !s.Failed && !d.Once() {
			p.lost[d] = now
			if since, ok := o.lost[d]; ok {
				p.lost[d] = since
			}
		}
	}
	for _, s := range subjects {
		var one podPlan
		if gates := dependency.Gates(s.pod); len(gates) > 0 {
			one = planWaiting(s, gates, o)
		} else {
			one = planRunning(s, o, &p, now)
		}
		if one.pod = s.pod; len(one.drop) > 0 || one.back || one.message+one.fail+one.lack+one.stop+one.restart != "" {
			p.pods = append(p.pods, one)
		}
	}
	return p
}

// plain is what the API says of a pod with gates, whosever they are.
const plain = "Scheduling is blocked due to non-empty scheduling gates"

// planWaiting: what is done for good frees from its gate at once, and so does what is
// asked for no more. The gates of what may come and go are taken away together, so
// that all of it holds when the pod starts.
func planWaiting(s subject, gates []string, o outlook) podPlan {
	waits := map[string]bool{} // gates that stay
	var missing []string
	for _, d := range s.needs {
		gate := d.Gate()
		if !slices.Contains(gates, gate) {
			continue
		}
		state := o.states[d]
		if state.Met && d.Once() {
			continue
		}
		if waits[gate] = true; !state.Met {
			missing = append(missing, fmt.Sprintf("%s (%s)", d, state.Why))
		}
	}
	if s.vague != "" {
		missing = append(missing, s.vague)
	}
	if len(missing) == 0 {
		clear(waits)
	}
	var one podPlan
	for _, gate := range gates {
		if !waits[gate] && (s.vague == "" || slices.ContainsFunc(s.needs, func(d dependency.Dependency) bool { return d.Gate() == gate })) {
			one.drop = append(one.drop, gate)
		}
	}
	want := plain
	if len(missing) > 0 {
		want = plain + ": waits for " + strings.Join(missing, ", ")
		if o.circle != "" {
			want += "; these wait for one another: " + o.circle
		}
	}
	// Once no gate is left the scheduler has the word.
	if len(one.drop) < len(s.pod.Spec.SchedulingGates) {
		if c := podstate.Condition(s.pod, corev1.PodScheduled); c != nil && c.Reason == corev1.PodReasonSchedulingGated && c.Message != want {
			one.message = want
		}
	}
	return one
}

// planRunning is about a pod that was let go.
func planRunning(s subject, o outlook, p *plan, now time.Time) (one podPlan) {
	acts := s.mode == dependency.Stop || s.mode == dependency.Restart
	status := corev1.ConditionFalse
	marked := podstate.Condition(s.pod, dependency.Failed)
	if marked != nil {
		status = marked.Status
	}
	if !acts && !s.monitored && status == corev1.ConditionFalse {
		return one
	}
	failed, lack, all := "", "", true
	for _, d := range s.needs {
		state := o.states[d]
		all = all && (state.Met || d.Once() && !state.Failed)
		if _, lost := p.lost[d]; !lost && !state.Failed {
			continue
		}
		why := fmt.Sprintf("%s %s", d, state.Why)
		lack = cmp.Or(lack, why)
		if left, is := failure(d, state, s.grace, p.lost, now); acts {
			if is {
				failed = cmp.Or(failed, why)
			}
			p.after = controller.Sooner(p.after, left)
		}
	}
	switch {
	case failed != "" && s.mode == dependency.Stop:
		one.stop = failed
	case failed != "" && status != corev1.ConditionTrue:
		one.fail = failed
	case status == corev1.ConditionTrue && all && s.mode == dependency.Restart:
		one.restart = marked.Message
	case lack != "" && s.monitored && status == corev1.ConditionFalse:
		one.lack = lack
	case lack == "" && status == corev1.ConditionUnknown:
		one.back = true
	}
	return one
}

// failure says whether a dependency has failed, or else how long it may still be
// lost.
func failure(d dependency.Dependency, s dependency.State, grace time.Duration, lost map[dependency.Dependency]time.Time, now time.Time) (left time.Duration, is bool) {
	if s.Failed {
		return 0, true
	}
	since, ok := lost[d]
	if !ok {
		return 0, false
	}
	left = since.Add(grace).Sub(now)
	return max(left, 0), left <= 0
}

// without are the gates of a pod that stay.
func without(gates []corev1.PodSchedulingGate, drop []string) []corev1.PodSchedulingGate {
	var left []corev1.PodSchedulingGate
	for _, g := range gates {
		if !slices.Contains(drop, g.Name) {
			left = append(left, g)
		}
	}
	return left
}

// setCondition makes c a condition of a pod that the caller owns.
func setCondition(p *corev1.Pod, c corev1.PodCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now)
	was := podstate.Condition(p, c.Type)
	if was == nil {
		p.Status.Conditions = append(p.Status.Conditions, c)
		return
	}
	if was.Status == c.Status {
		c.LastTransitionTime = was.LastTransitionTime
	}
	*was = c
}

// toNote are the dependencies that have come to hold for good, among them those that
// were noted before, as the annotation names them; it is have when there is nothing
// new.
func toNote(have string, noted, needs []dependency.Dependency, states map[dependency.Dependency]dependency.State) string {
	names := map[string]bool{}
	fresh := false
	for _, d := range noted {
		names[d.String()] = true
	}
	for _, d := range needs {
		if d.Once() && states[d].Met && !names[d.String()] {
			names[d.String()], fresh = true, true
		}
	}
	if !fresh {
		return have
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// orderPlan is what is to be done about an object's part in a stop order.
type orderPlan struct {
	add, remove bool // our finalizer
	foreground  bool // delete what it owns before itself
	after       time.Duration
}

// window is how long a deleted object waits for its dependants to be deleted as
// well. Deletion times are cut to whole seconds, so that it is two at least.
const window = 3 * time.Second

// order is what a plan for an object's part in a stop order knows.
type order struct {
	first     bool // it wants to stop before what it depends on
	used      bool // others want to stop before it
	waits     bool // some of them, that it has to wait for, are being deleted
	all       bool // everything in its namespace goes
	finalizer bool // it has ours
}

// planOrder decides about an object.
//
//	live, with a part in an order ── gets the finalizer; without, loses it
//	deleted ── if it stops first: in the foreground, so that it is there until its
//	           pods are gone
//	        ── if others stop before it: waits for those that are being deleted
func planOrder(obj metav1.Object, o order, now time.Time) orderPlan {
	deleted := obj.GetDeletionTimestamp()
	if deleted == nil {
		return orderPlan{add: (o.first || o.used) && !o.finalizer, remove: !o.first && !o.used && o.finalizer}
	}
	if !o.finalizer {
		return orderPlan{}
	}
	has := func(f string) bool { return slices.Contains(obj.GetFinalizers(), f) }
	if o.waits {
		return orderPlan{}
	}
	// The time of a pod is when it has to be gone.
	began := deleted.Add(-time.Duration(ptr.Deref(obj.GetDeletionGracePeriodSeconds(), 0)) * time.Second)
	if left := began.Add(window).Sub(now); o.used && !o.all && left > 0 {
		return orderPlan{after: left}
	}
	if o.first && !has(metav1.FinalizerDeleteDependents) && !has(metav1.FinalizerOrphanDependents) {
		return orderPlan{foreground: true}
	}
	return orderPlan{remove: true}
}
