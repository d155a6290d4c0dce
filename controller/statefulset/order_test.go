package statefulset

import (
	"fmt"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/internal/podstate"
)

// cluster is a set with what the API and the agents make of it. Revisions are
// letters; pods of capital ones never become ready.
type cluster struct {
	set    *appsv1.StatefulSet
	update string
	pods   map[int]*corev1.Pod
	now    time.Time
	made   int
}

func (c *cluster) snapshot() *snapshot {
	s := &snapshot{set: c.set, current: c.set.Status.CurrentRevision, update: c.update, now: c.now, claims: func(string) *corev1.PersistentVolumeClaim { return nil }}
	if s.current == "" {
		s.current = s.update
	}
	var pods []*corev1.Pod
	for _, p := range c.pods {
		pods = append(pods, p)
	}
	s.look(pods)
	return s
}

// decide is a step of the loop. It says whether there was anything to do.
func (c *cluster) decide(r *rapid.T) bool {
	s := c.snapshot()
	d := plan(s)
	if s.parallel() {
		c.checkParallel(r, s, d)
	} else {
		c.checkOrder(r, s, d)
	}
	for _, n := range d.create {
		if c.pods[n] != nil {
			r.Fatalf("a second pod of ordinal %d", n)
		}
		c.made++
		c.pods[n] = &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: podName(c.set, n), UID: types.UID(fmt.Sprint(c.made)), CreationTimestamp: metav1.NewTime(c.now),
				Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: s.revisionFor(n)},
			},
			Status: corev1.PodStatus{Phase: corev1.PodPending},
		}
	}
	for _, rem := range d.remove {
		if going(rem.pod) {
			r.Fatalf("%s is removed twice", rem.pod.Name)
		}
		at := metav1.NewTime(c.now)
		rem.pod.DeletionTimestamp = &at
	}
	var after time.Duration
	c.set.Status, after = status(c.snapshot())
	return len(d.create)+len(d.remove) > 0 || d.after > 0 || after > 0
}

// checkOrder checks what a set in order promises.
func (c *cluster) checkOrder(r *rapid.T, s *snapshot, d decision) {
	r.Helper()
	if len(d.create) > 1 || len(d.create) > 0 && len(d.remove) > 0 {
		r.Fatalf("more than one thing at once: %s", d)
	}
	allHealthy := func(upTo int) bool {
		for n := s.first(); n < upTo; n++ {
			if p := c.pods[n]; p == nil || !s.healthy(p) {
				return false
			}
		}
		return true
	}
	for _, n := range d.create {
		if !allHealthy(n) {
			r.Fatalf("pod %d is made before those before it are available", n)
		}
	}
	updated := 0
	for _, rem := range d.remove {
		n, _ := ordinalOf(c.set, rem.pod.Name)
		switch {
		case podstate.Finished(rem.pod):
		case rem.why != "":
			if ready(rem.pod) || revisionOf(rem.pod) == s.revisionFor(n) || len(d.remove) > 1 {
				r.Fatalf("%s makes way: %s", rem.pod.Name, rem.why)
			}
		case n < s.first() || n >= s.end():
			if len(d.remove) > 1 || !allHealthy(s.end()) {
				r.Fatalf("the set shrinks while a pod that stays is not available: %s", d)
			}
			for other := range c.pods {
				if other > n && (other < s.first() || other >= s.end()) {
					r.Fatalf("pod %d goes before pod %d", n, other)
				}
			}
		default:
			if updated++; !allHealthy(s.end()) || len(s.beyond) > 0 || n < s.partition() {
				r.Fatalf("pod %d is updated out of turn", n)
			}
			for other := n + 1; other < s.end(); other++ {
				if revisionOf(c.pods[other]) != s.update && !slices.ContainsFunc(d.remove, func(o removal) bool { return o.pod == c.pods[other] }) {
					r.Fatalf("pod %d is updated before pod %d", n, other)
				}
			}
		}
	}
	if updated > s.mostUnavailable() {
		r.Fatalf("%d pods are updated at once", updated)
	}
}

// checkParallel checks what an update in parallel promises.
func (c *cluster) checkParallel(r *rapid.T, s *snapshot, d decision) {
	r.Helper()
	available, taken := 0, 0
	for _, m := range s.inside {
		if s.healthy(m.pod) {
			available++
		}
	}
	for _, rem := range d.remove {
		n, _ := ordinalOf(c.set, rem.pod.Name)
		if n < s.first() || n >= s.end() || !s.healthy(rem.pod) {
			continue
		}
		if taken++; n < s.partition() {
			r.Fatalf("pod %d is updated below the partition", n)
		}
	}
	if least := s.size() - s.mostUnavailable(); taken > 0 && available-taken < least {
		r.Fatalf("%d of %d available pods go, %d should remain", taken, available, least)
	}
}

func (c *cluster) setReady(p *corev1.Pod, status corev1.ConditionStatus) {
	if cond := podstate.Condition(p, corev1.PodReady); cond == nil || cond.Status != status {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(c.now)}}
	}
}

// progress is what an agent does to a pod: it ends, or gets as far as it can.
func (c *cluster) progress(n int) bool {
	p := c.pods[n]
	switch {
	case p == nil:
		return false
	case going(p):
		delete(c.pods, n)
	case podstate.Finished(p), ready(p):
		return false
	case revisionOf(p) < "a":
		if len(p.Status.ContainerStatuses) > 0 {
			return false
		}
		p.Status.Phase = corev1.PodRunning
		c.setReady(p, corev1.ConditionFalse)
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
	default:
		p.Status.Phase = corev1.PodRunning
		c.setReady(p, corev1.ConditionTrue)
	}
	return true
}

// No order of events makes a set break its order, have two pods of one ordinal,
// or take more than it may; and once its template is good, it becomes ready and
// is updated without anybody's help.
func TestSetKeepsItsOrder(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		number := rapid.IntRange(0, 6)
		c := &cluster{set: setOf("3"), update: "a", pods: map[int]*corev1.Pod{}, now: now}
		if rapid.Bool().Draw(r, "parallel") {
			c.set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		}
		c.set.Spec.MinReadySeconds = rapid.SampledFrom([]int32{0, 5}).Draw(r, "minReady")
		rolling := c.set.Spec.UpdateStrategy.RollingUpdate
		for range rapid.IntRange(0, 100).Draw(r, "events") {
			n := number.Draw(r, "n")
			switch event := rapid.SampledFrom([]string{"decide", "decide", "decide", "progress", "progress", "progress", "time", "unready", "failed", "delete", "template", "scale", "partition", "unavailable", "start"}).Draw(r, "event"); event {
			case "decide":
				c.decide(r)
			case "progress":
				c.progress(n)
			case "time":
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(r, "seconds")) * time.Second)
			case "unready":
				if p := c.pods[n]; p != nil && p.Status.Phase == corev1.PodRunning {
					c.setReady(p, corev1.ConditionFalse)
				}
			case "failed":
				if p := c.pods[n]; p != nil {
					p.Status.Phase = corev1.PodFailed
				}
			case "delete":
				if p := c.pods[n]; p != nil && !going(p) {
					p.DeletionTimestamp = ptr.To(metav1.NewTime(c.now))
				}
			case "template":
				c.update = rapid.SampledFrom([]string{"a", "b", "c", "A", "B"}).Draw(r, "revision")
			case "scale":
				c.set.Spec.Replicas = ptr.To(int32(n))
			case "partition":
				rolling.Partition = ptr.To(int32(n))
			case "unavailable":
				rolling.MaxUnavailable = ptr.To(intstr.FromInt(max(n, 1)))
			case "start":
				c.set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(n / 3)}
			}
		}
		c.update, rolling.Partition = "b", ptr.To[int32](0)
		for i := 0; ; i++ {
			if i == 200 {
				r.Fatalf("the set comes to no end: %+v", c.set.Status)
			}
			did := c.decide(r)
			for n := range 10 {
				did = c.progress(n) || did
			}
			if c.now = c.now.Add(10 * time.Second); !did {
				break
			}
		}
		st, want := c.set.Status, int32(c.snapshot().size())
		if st.Replicas != want || st.ReadyReplicas != want || st.UpdatedReplicas != want || st.CurrentRevision != "b" {
			r.Fatalf("at the end %d replicas are wanted, the status is %+v", want, st)
		}
	})
}
