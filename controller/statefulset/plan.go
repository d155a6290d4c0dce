package statefulset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// burst bounds the pods that one step creates.
const burst = 500

// youngest is how old a pod that has ended must be to be replaced: one that
// cannot start on its node is tried once a second, not as fast as it fails.
const youngest = time.Second

// snapshot is what a plan is made from. The objects in it are not written to.
type snapshot struct {
	set    *appsv1.StatefulSet
	inside []member // with the ordinals that the set asks for, in order
	beyond []member // with other ones, the highest first
	// Names of revisions: the one that pods below the partition have, and that of
	// the present template.
	current, update string
	claims          func(name string) *corev1.PersistentVolumeClaim // nil: there is none
	now             time.Time
}

type member struct {
	pod     *corev1.Pod
	ordinal int
}

// look sorts the pods of a set. What is no member of it is left out.
func (s *snapshot) look(pods []*corev1.Pod) {
	s.inside, s.beyond = nil, nil
	for _, p := range pods {
		n, ok := ordinalOf(s.set, p.Name)
		switch {
		case !ok:
		case n >= s.first() && n < s.end():
			s.inside = append(s.inside, member{p, n})
		default:
			s.beyond = append(s.beyond, member{p, n})
		}
	}
	slices.SortFunc(s.inside, func(a, b member) int { return a.ordinal - b.ordinal })
	slices.SortFunc(s.beyond, func(a, b member) int { return b.ordinal - a.ordinal })
	// A pod may have been found by more than one index.
	same := func(a, b member) bool { return a.ordinal == b.ordinal }
	s.inside, s.beyond = slices.CompactFunc(s.inside, same), slices.CompactFunc(s.beyond, same)
}

// ordinalOf is the number in the name of a set's pod. Only names that the set
// would give count: of web-1 and web-01 there is one.
func ordinalOf(set *appsv1.StatefulSet, name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, set.Name+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != digits {
		return 0, false
	}
	return int(n), true
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// first is the lowest ordinal, end the one after the highest.
func (s *snapshot) first() int {
	if s.set.Spec.Ordinals != nil {
		return int(s.set.Spec.Ordinals.Start)
	}
	return 0
}

func (s *snapshot) size() int { return int(ptr.Deref(s.set.Spec.Replicas, 1)) }
func (s *snapshot) end() int  { return s.first() + s.size() }

func (s *snapshot) parallel() bool {
	return s.set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
}

// rolling says whether the loop replaces pods of other revisions by itself.
func (s *snapshot) rolling() bool {
	return s.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType
}

// partition is the lowest ordinal whose pod an update replaces.
func (s *snapshot) partition() int {
	if r := s.set.Spec.UpdateStrategy.RollingUpdate; s.rolling() && r != nil {
		return s.first() + int(ptr.Deref(r.Partition, 0))
	}
	return s.first()
}

// mostUnavailable is how many pods an update may make unavailable; at least one.
func (s *snapshot) mostUnavailable() int {
	r := s.set.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, s.size(), false)
	if err != nil {
		return 1 // not possible in a set that was validated
	}
	return max(n, 1)
}

// revisionFor is the revision of a pod that is made now.
func (s *snapshot) revisionFor(ordinal int) string {
	if ordinal < s.partition() {
		return s.current
	}
	return s.update
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.ControllerRevisionHashLabelKey] }

// outdated says whether a pod may be replaced by one of another revision. Below
// the partition a pod of the new revision stays: a partition that is raised
// stops an update, and takes nothing back.
func (s *snapshot) outdated(m member) bool {
	r := revisionOf(m.pod)
	stays := m.ordinal >= s.first() && m.ordinal < min(s.partition(), s.end())
	return r != s.update && (r != s.current || !stays)
}

func going(o metav1.Object) bool { return o.GetDeletionTimestamp() != nil }

func ready(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && podstate.Ready(p)
}

// available says whether a pod has been ready for minReadySeconds.
func (s *snapshot) available(p *corev1.Pod) bool {
	ok, _ := podstate.Available(p, s.minReady(), s.now)
	return ok && ready(p)
}

func (s *snapshot) minReady() time.Duration {
	return time.Duration(s.set.Spec.MinReadySeconds) * time.Second
}

// healthy pods let others be made, replaced and removed.
func (s *snapshot) healthy(p *corev1.Pod) bool { return s.available(p) && !going(p) }

// decision is what one step does to the pods. In order there is one creation or
// one kind of removal at a time.
type decision struct {
	create []int // ordinals
	remove []removal
	after  time.Duration // look again then, if nothing happens; 0: no need
}

type removal struct {
	pod *corev1.Pod
	// why is told in an event: a pod that is not ready makes way although it is not
	// its turn. Empty: it is.
	why string
}

// plan decides the next step (documentation: "StatefulSets", "Deployment and
// Scaling Guarantees", "Update strategies").
func plan(s *snapshot) decision {
	switch {
	case s.set.DeletionTimestamp != nil:
		return decision{}
	case s.parallel():
		return s.together()
	}
	return s.inOrder()
}

// inOrder makes pods from the first to the last and removes them the other way
// round; all before must be available, all behind gone. Scaling comes before
// updating.
func (s *snapshot) inOrder() decision {
	next := s.first()
	for _, m := range s.inside {
		p := m.pod
		switch {
		case m.ordinal != next:
			return s.make(next)
		case podstate.Finished(p):
			return s.replace(p)
		case going(p):
			return decision{}
		case !ready(p):
			return s.heal(m)
		case !s.available(p):
			return decision{} // the status knows when to look again
		}
		next++
	}
	switch {
	case next < s.end():
		return s.make(next)
	case len(s.beyond) > 0:
		return s.shrink()
	case s.rolling():
		return s.advance()
	}
	return decision{}
}

// make creates one pod, unless a claim of its predecessor is about to go.
func (s *snapshot) make(ordinal int) decision {
	if s.awaitsClaims(ordinal) {
		return decision{}
	}
	return decision{create: []int{ordinal}}
}

// replace removes a pod that has ended; the next one is made once it is gone.
func (s *snapshot) replace(p *corev1.Pod) decision {
	if going(p) {
		return decision{}
	}
	if wait := p.CreationTimestamp.Add(youngest).Sub(s.now); wait > 0 {
		return decision{after: wait}
	}
	return decision{remove: []removal{{pod: p}}}
}

// shrink removes the pod with the highest ordinal. One that is not available
// waits for others that are not, unless they will never be: those that have ended
// and those that are broken and outdated.
func (s *snapshot) shrink() decision {
	last := s.beyond[0]
	why, after := s.brokenFor(last)
	switch {
	case going(last.pod):
		return decision{}
	case s.available(last.pod), podstate.Finished(last.pod), why != "":
		return decision{remove: []removal{{pod: last.pod}}}
	}
	for _, m := range s.beyond[1:] {
		if s.healthy(m.pod) || podstate.Finished(m.pod) {
			continue
		}
		if why, wait := s.brokenFor(m); why == "" {
			return decision{after: controller.Sooner(after, wait)}
		}
	}
	return decision{remove: []removal{{pod: last.pod}}}
}

// advance replaces the pods with the highest ordinals, when all are available.
func (s *snapshot) advance() decision {
	var d decision
	for _, m := range slices.Backward(s.inside) {
		if m.ordinal < s.partition() || len(d.remove) == s.mostUnavailable() {
			break
		}
		if revisionOf(m.pod) != s.update {
			d.remove = append(d.remove, removal{pod: m.pod})
		}
	}
	return d
}

// together makes, replaces and removes whatever has to be, the update alone
// within what may be unavailable.
func (s *snapshot) together() decision {
	var d decision
	have := map[int]bool{}
	for _, m := range s.inside {
		have[m.ordinal] = true
		if podstate.Finished(m.pod) {
			r := s.replace(m.pod)
			d.remove, d.after = append(d.remove, r.remove...), controller.Sooner(d.after, r.after)
		}
	}
	for n := s.first(); n < s.end() && len(d.create) < burst; n++ {
		if !have[n] && !s.awaitsClaims(n) {
			d.create = append(d.create, n)
		}
	}
	for _, m := range s.beyond {
		if !going(m.pod) {
			d.remove = append(d.remove, removal{pod: m.pod})
		}
	}
	if s.rolling() {
		s.exchange(&d)
	}
	return d
}

// exchange is an update in parallel: pods that are not available anyway go at
// once, others as far as enough remain.
func (s *snapshot) exchange(d *decision) {
	room := s.mostUnavailable() - s.size()
	for _, m := range s.inside {
		if s.healthy(m.pod) {
			room++
		}
	}
	for _, m := range slices.Backward(s.inside) {
		switch {
		case !s.outdated(m) || s.available(m.pod) || going(m.pod) || podstate.Finished(m.pod):
		case m.ordinal >= s.partition():
			d.remove = append(d.remove, removal{m.pod, "it is not available"})
		default:
			why, wait := s.brokenFor(m)
			if why != "" {
				d.remove = append(d.remove, removal{m.pod, why})
			}
			d.after = controller.Sooner(d.after, wait)
		}
	}
	for _, m := range slices.Backward(s.inside) {
		if room <= 0 || m.ordinal < s.partition() {
			break
		}
		if revisionOf(m.pod) != s.update && s.healthy(m.pod) {
			d.remove = append(d.remove, removal{pod: m.pod})
			room--
		}
	}
}

// message says in an event why a pod makes way.
func (s *snapshot) message(r removal) string {
	n, _ := ordinalOf(s.set, r.pod.Name)
	return fmt.Sprintf("Pod %s of revision %s makes way for revision %s: %s", r.pod.Name, revisionOf(r.pod), s.revisionFor(n), r.why)
}
