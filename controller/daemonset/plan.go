package daemonset

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

const (
	// burst bounds the pods that one step makes, and those that it deletes.
	burst = 250
	// A failed pod is deleted at once, the next one on its node after a pause
	// since, which doubles. A node without one for twice the longest starts anew.
	firstPause = time.Second
	mostPause  = 15 * time.Minute
)

// pause is how long a failed pod stays on a node, since the one before was
// deleted.
type pause struct {
	since  time.Time
	length time.Duration
}

// left is what is left of a pause.
func (p pause) left(now time.Time) time.Duration {
	if now.Sub(p.since) > 2*mostPause {
		return 0
	}
	return p.length - now.Sub(p.since)
}

// next is the pause after another failed pod was deleted.
func (p pause) next(now time.Time) pause {
	if p.length == 0 || now.Sub(p.since) > 2*mostPause {
		return pause{now, firstPause}
	}
	return pause{now, min(2*p.length, mostPause)}
}

// snapshot is what a plan is made from. The objects in it are not written to.
type snapshot struct {
	ds     *appsv1.DaemonSet
	hash   string // of the revision of the present template
	needs  needs
	nodes  []*corev1.Node           // the nodes that there are, by name
	byName map[string]*corev1.Node  // the same
	pods   map[string][]*corev1.Pod // by node, see groupPods
	pauses map[string]pause         // by node
	now    time.Time
}

// look prepares a snapshot.
func look(ds *appsv1.DaemonSet, hash string, nodes []*corev1.Node, pods []*corev1.Pod, pauses map[string]pause, now time.Time) snapshot {
	s := snapshot{ds: ds, hash: hash, needs: needsOf(ds), nodes: slices.Clone(nodes), byName: map[string]*corev1.Node{}, pods: groupPods(pods), pauses: pauses, now: now}
	slices.SortFunc(s.nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		s.byName[n.Name] = n
	}
	return s
}

// groupPods sorts pods by the nodes that they are on or made for; on each the
// placed ones come first, then the oldest. Those that have ended and are on their
// way out are of no interest any more, and those that are made for no node never
// were.
func groupPods(pods []*corev1.Pod) map[string][]*corev1.Pod {
	groups := map[string][]*corev1.Pod{}
	for _, p := range pods {
		if node, err := nodeOf(p); err == nil && !(podstate.Finished(p) && p.DeletionTimestamp != nil) {
			groups[node] = append(groups[node], p)
		}
	}
	for _, group := range groups {
		slices.SortFunc(group, func(a, b *corev1.Pod) int {
			return cmp.Or(controller.First(a.Spec.NodeName != "", b.Spec.NodeName != ""), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
		})
	}
	return groups
}

// decision is what one step does to the pods.
type decision struct {
	create []string // the nodes that get a pod
	remove []*corev1.Pod
	failed []string // the nodes whose failed pods are among them
	notes  []note
	after  time.Duration // until a failed pod may go
}

// note is an event.
type note struct{ kind, reason, message string }

// plan decides: each node gets what it lacks and loses what it should not have;
// once all have that, an update goes on.
func plan(s snapshot) decision {
	d := s.manage()
	if len(d.create)+len(d.remove) == 0 && s.ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		s.update(&d)
	}
	d.create, d.remove = d.create[:min(len(d.create), burst)], d.remove[:min(len(d.remove), burst)]
	return d
}

func (s snapshot) manage() decision {
	var d decision
	for _, n := range s.nodes {
		switch f, pods := s.needs.on(n), s.pods[n.Name]; {
		case f.run && len(pods) == 0:
			d.create = append(d.create, n.Name)
		case f.stay:
			s.keep(&d, n.Name, f)
		default:
			d.remove = append(d.remove, staying(pods)...)
		}
	}
	// Pods made for a node that is gone can never be placed.
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		for _, p := range staying(s.pods[name]) {
			if s.byName[name] == nil && p.Spec.NodeName == "" {
				d.remove = append(d.remove, p)
			}
		}
	}
	return d
}

// staying are the pods that nobody has deleted yet.
func staying(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// keep sees to a node whose pods may stay: those that have ended go, and all but
// one of the others; with surge a second one is let be during an update.
func (s snapshot) keep(d *decision, node string, f fit) {
	var running []*corev1.Pod
	waits := false
	for _, p := range staying(s.pods[node]) {
		switch p.Status.Phase {
		case corev1.PodFailed:
			if left := s.pauses[node].left(s.now); left > 0 {
				d.after = controller.Sooner(d.after, left)
				waits = true
				continue
			}
			d.notes = append(d.notes, note{corev1.EventTypeWarning, "FailedDaemonPod", fmt.Sprintf("Found failed daemon pod %s/%s on node %s, will try to kill it", p.Namespace, p.Name, node)})
			d.failed = append(d.failed, node)
			d.remove = append(d.remove, p)
		case corev1.PodSucceeded:
			d.notes = append(d.notes, note{corev1.EventTypeNormal, "SucceededDaemonPod", fmt.Sprintf("Found succeeded daemon pod %s/%s on node %s, will try to delete it", p.Namespace, p.Name, node)})
			d.remove = append(d.remove, p)
		default:
			running = append(running, p)
		}
	}
	// Of several the available ones are worth more than the older ones.
	slices.SortStableFunc(running, func(a, b *corev1.Pod) int { return controller.First(s.available(a), s.available(b)) })
	switch {
	case !surges(s.ds):
		d.remove = append(d.remove, running[min(1, len(running)):]...)
	case len(running) == 0 && f.run && !waits:
		d.create = append(d.create, node)
	case len(running) > 1:
		s.keepTwo(d, running)
	}
}

// keepTwo leaves the first pod of the present revision and the first of another
// one, the latter only until it is not ready or the former available.
func (s snapshot) keepTwo(d *decision, running []*corev1.Pod) {
	var current, old *corev1.Pod
	for _, p := range running {
		switch updated := s.updated(p); {
		case updated && current == nil:
			current = p
		case !updated && old == nil:
			old = p
		default:
			d.remove = append(d.remove, p)
		}
	}
	if current != nil && old != nil && (!podstate.Ready(old) || s.available(current)) {
		d.remove = append(d.remove, old)
	}
}

// updated says whether a pod is of the present revision.
func (s snapshot) updated(p *corev1.Pod) bool {
	if p.Labels[appsv1.ControllerRevisionHashLabelKey] == s.hash {
		return true
	}
	n, ok := templateGeneration(s.ds)
	return ok && p.Labels[generationLabel] == strconv.FormatInt(n, 10)
}

func (s snapshot) available(p *corev1.Pod) bool {
	ok, _ := podstate.Available(p, s.minReady(), s.now)
	return ok
}

func (s snapshot) minReady() time.Duration {
	return time.Duration(s.ds.Spec.MinReadySeconds) * time.Second
}

// status is the set's as its pods have it. after is when the next pod may become
// available without any event.
func status(s snapshot) (st appsv1.DaemonSetStatus, after time.Duration) {
	was := &s.ds.Status
	st = appsv1.DaemonSetStatus{ObservedGeneration: s.ds.Generation, CollisionCount: was.CollisionCount, Conditions: was.Conditions}
	for _, n := range s.nodes {
		pods := s.pods[n.Name]
		for _, p := range pods {
			if _, wait := podstate.Available(p, s.minReady(), s.now); wait > 0 {
				after = controller.Sooner(after, wait)
			}
		}
		if !s.needs.on(n).run {
			if len(pods) > 0 {
				st.NumberMisscheduled++
			}
			continue
		}
		st.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		st.CurrentNumberScheduled++
		if podstate.Ready(pods[0]) {
			st.NumberReady++
		}
		if s.available(pods[0]) {
			st.NumberAvailable++
		}
		if s.updated(pods[0]) {
			st.UpdatedNumberScheduled++
		}
	}
	st.NumberUnavailable = st.DesiredNumberScheduled - st.NumberAvailable
	return st, after
}
