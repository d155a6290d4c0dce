package scheduler

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/podstate"
	"hansa.dev/hansa/scheduler/core"
)

// sync looks at objects that have changed. Nodes come first, so that no pod is
// decided on over fewer nodes than there were when it came.
func (s *Scheduler) sync(changes []change) {
	now := s.clock.Now()
	for _, c := range changes {
		obj := s.view.Get(c.resource, c.key)
		switch c.resource {
		case s.nodes:
			node, _ := obj.(*corev1.Node)
			s.syncNode(c.key.Name, node, now)
		case s.namespaces:
			ns, _ := obj.(*corev1.Namespace)
			s.syncNamespace(c.key.Name, ns, now)
		case s.services:
			service, _ := obj.(*corev1.Service)
			s.owners.setService(c.key, service)
		}
	}
	for _, c := range changes {
		if c.resource == s.pods {
			pod, _ := s.view.Get(s.pods, c.key).(*corev1.Pod)
			s.syncPod(c.key, pod, now)
		}
	}
}

func (s *Scheduler) syncNode(name string, node *corev1.Node, now time.Time) {
	e := core.Event{OldNode: s.cluster.Node(name), NewNode: node}
	changed := false
	if node == nil {
		changed = s.cluster.RemoveNode(name)
	} else {
		changed = s.cluster.SetNode(node)
	}
	if changed {
		s.queue.wakeIf(s.helped(e), now)
	}
}

func (s *Scheduler) syncNamespace(name string, ns *corev1.Namespace, now time.Time) {
	var labels map[string]string
	if ns != nil {
		if labels = ns.Labels; labels == nil {
			labels = map[string]string{}
		}
	}
	if s.cluster.SetNamespace(name, labels) {
		s.queue.wakeIf(s.helped(core.Event{Namespaces: true}), now)
	}
}

// syncPod brings queue and cluster in line with what a pod is now; nil for one
// that is gone.
func (s *Scheduler) syncPod(key api.Key, pod *corev1.Pod, now time.Time) {
	if pod != nil && podstate.Finished(pod) {
		pod = nil // it takes nothing of its node any more
	}
	if it := s.queue.items[key]; it != nil && (pod == nil || pod.UID != it.pod.UID || !wanted(pod)) {
		s.dropPending(it, pod, now)
	}
	if uid, ok := s.assigned[key]; ok && (pod == nil || pod.UID != uid || pod.Spec.NodeName == "") {
		delete(s.assigned, key)
		if p, node := s.cluster.Remove(uid); p != nil {
			s.left(p, node, now)
		}
	}
	switch {
	case pod == nil:
	case pod.Spec.NodeName != "":
		s.syncAssigned(key, pod, now)
	case wanted(pod):
		s.syncPending(key, pod, now)
	}
}

// wanted says whether a pod waits for a node from this scheduler.
func wanted(p *corev1.Pod) bool {
	return p.Spec.NodeName == "" && p.Spec.SchedulerName == Name && p.DeletionTimestamp == nil
}

// dropPending forgets a pod that no longer waits: it is bound, going or gone.
func (s *Scheduler) dropPending(it *item, pod *corev1.Pod, now time.Time) {
	s.queue.remove(it)
	s.writer.forget(it.key)
	uid := it.pod.UID
	promised := s.cluster.Withdraw(uid)
	bound := pod != nil && pod.UID == uid && pod.Spec.NodeName != ""
	if p, node := s.cluster.Find(uid); p != nil && !bound {
		// Its binding is under way and will come too late.
		s.cluster.Remove(uid)
		s.left(p, node, now)
	} else if promised != "" {
		s.left(core.NewPod(it.pod), promised, now)
	}
}

func (s *Scheduler) syncPending(key api.Key, pod *corev1.Pod, now time.Time) {
	if it := s.queue.items[key]; it != nil {
		s.queue.change(it, pod, now)
		return
	}
	s.queue.add(key, pod, now)
	if node := pod.Status.NominatedNodeName; node != "" {
		s.cluster.Nominate(core.NewPod(pod), node) // promised before a restart
	}
}

// syncAssigned takes in a pod on a node: one that was assumed to be there, or
// that changed, or that somebody else put there.
func (s *Scheduler) syncAssigned(key api.Key, pod *corev1.Pod, now time.Time) {
	s.assigned[key] = pod.UID
	p := core.NewPod(pod)
	old, node := s.cluster.Find(pod.UID)
	if old != nil && node == pod.Spec.NodeName && s.cluster.Refresh(p) {
		return
	}
	s.cluster.Add(p, pod.Spec.NodeName)
	if old != nil {
		// It may take less than before, or be on its way out.
		s.queue.wakeIf(s.helped(core.Event{Gone: old, At: node}), now)
	}
	s.queue.wakeIf(s.helped(core.Event{Came: p, At: pod.Spec.NodeName}), now)
}

// sameDemands says whether two versions of a pending pod are the same for every
// filter.
func sameDemands(a, b *corev1.Pod) bool {
	return maps.Equal(a.Labels, b.Labels) && (a.Generation == b.Generation && a.Generation != 0 || equality.Semantic.DeepEqual(a.Spec, b.Spec))
}
