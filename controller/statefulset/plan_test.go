package statefulset

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

// setOf is a set named web; words change it: 3 (replicas), parallel, ondelete,
// partition=N, unavailable=N or N%, start=N, minready=SECONDS, going.
func setOf(text string) *appsv1.StatefulSet {
	set := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web", Generation: 7},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](1), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{
				Type:          appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](0)},
			},
		},
	}
	for _, w := range strings.Fields(text) {
		key, value, _ := strings.Cut(w, "=")
		n, _ := strconv.ParseInt(value, 10, 32)
		switch key {
		case "parallel":
			set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		case "ondelete":
			set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
		case "bare": // a rolling update without parameters
			set.Spec.UpdateStrategy.RollingUpdate = nil
		case "partition":
			set.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To(int32(n))
		case "unavailable":
			set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.Parse(value))
		case "start":
			set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(n)}
		case "minready":
			set.Spec.MinReadySeconds = int32(n)
		case "going":
			set.DeletionTimestamp = ptr.To(ago(0))
		default:
			n, err := strconv.ParseInt(w, 10, 32)
			if err != nil {
				panic(w)
			}
			set.Spec.Replicas = ptr.To(int32(n))
		}
	}
	return set
}

// podsOf makes pods of words ORDINAL:STATE@REVISION.
func podsOf(text string) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, w := range strings.Fields(text) {
		at, rest, _ := strings.Cut(w, ":")
		state, rev, _ := strings.Cut(rest, "@")
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: "web-" + at, UID: types.UID("web-" + at), CreationTimestamp: ago(time.Hour),
				Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: rev},
			},
			Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
		ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: ago(time.Second)}
		switch state {
		case "ready":
			ready.Status, ready.LastTransitionTime = corev1.ConditionTrue, ago(time.Hour)
		case "fresh": // ready for a second
			ready.Status = corev1.ConditionTrue
		case "unready": // for a second
		case "stuck": // unready for an hour
			ready.LastTransitionTime = ago(time.Hour)
		case "new":
			p.Status.Phase, p.CreationTimestamp = corev1.PodPending, ago(time.Second)
		case "crash":
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		case "unschedulable":
			p.Status.Phase = corev1.PodPending
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}
		case "failed":
			p.Status.Phase = corev1.PodFailed
		case "succeeded":
			p.Status.Phase = corev1.PodSucceeded
		case "failfast":
			p.Status.Phase, p.CreationTimestamp = corev1.PodFailed, ago(400*time.Millisecond)
		case "going": // still ready
			ready.Status, ready.LastTransitionTime = corev1.ConditionTrue, ago(time.Hour)
			p.DeletionTimestamp = ptr.To(ago(0))
		default:
			panic(w)
		}
		p.Status.Conditions = append(p.Status.Conditions, ready)
		pods = append(pods, p)
	}
	return pods
}

func snapshotOf(set *appsv1.StatefulSet, pods []*corev1.Pod) *snapshot {
	s := &snapshot{set: set, current: "a", update: "b", now: now, claims: func(string) *corev1.PersistentVolumeClaim { return nil }}
	s.look(pods)
	return s
}

func (d decision) String() string {
	var out []string
	for _, n := range d.create {
		out = append(out, fmt.Sprint("+", n))
	}
	for _, r := range d.remove {
		mark := "-"
		if r.why != "" {
			mark = "!"
		}
		out = append(out, mark+strings.TrimPrefix(r.pod.Name, "web-"))
	}
	if d.after > 0 {
		out = append(out, d.after.String())
	}
	return strings.Join(out, " ")
}

// Documentation: "StatefulSets", "Deployment and Scaling Guarantees", "Update
// strategies", "Rolling Updates", "Forced rollback". Pods of revision a are the
// old ones, b is the present template; ! is a removal out of turn.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ why, set, pods, want string }{
		{"pods are made in order", "3", "", "+0"},
		{"each once those before are ready", "3", "0:ready@b 1:new@b", ""},
		{"the next", "3", "0:ready@b 1:ready@b", "+2"},
		{"one that is missing comes first", "3", "0:ready@b 2:ready@b", "+1"},
		{"not before others are ready again", "3", "0:unready@b 2:ready@b", ""},
		{"nor while they end", "3", "0:going@b", ""},
		{"ready for long enough", "3 minready=60", "0:fresh@b", ""},
		{"enough", "2", "0:ready@b 1:ready@b", ""},
		{"start ordinal", "2 start=5", "5:ready@b", "+6"},
		{"a start ordinal that moved", "2 start=5", "4:ready@b 5:ready@b 6:ready@b", "-4"},
		{"of a set that goes none is made", "3 going", "", ""},

		{"the last goes first", "1", "0:ready@b 1:ready@b 2:ready@b", "-2"},
		{"not while it ends", "1", "0:ready@b 1:ready@b 2:going@b", ""},
		{"not while one that stays is unready", "1", "0:unready@b 1:ready@b", ""},
		{"an unready one goes, too", "1", "0:ready@b 1:ready@b 2:unready@b", "-2"},
		{"not while another one before it is unready", "1", "0:ready@b 1:unready@b 2:unready@b", ""},
		{"unless that is broken and outdated", "1", "0:ready@b 1:crash@a 2:unready@b", "-2"},
		{"or that has ended", "1", "0:ready@b 1:failed@b 2:unready@b", "-2"},
		{"one that has ended at once", "1", "0:ready@b 1:unready@b 2:failed@b", "-2"},
		{"all of them", "0", "0:ready@b", "-0"},

		{"a failed pod is replaced", "2", "0:ready@b 1:failed@b", "-1"},
		{"one that succeeded as well", "2", "0:succeeded@b 1:ready@b", "-0"},
		{"but not as fast as it fails", "1", "0:failfast@b", "600ms"},

		{"an update begins at the end", "3", "0:ready@a 1:ready@a 2:ready@a", "-2"},
		{"and waits", "3", "0:ready@a 1:ready@a 2:going@a", ""},
		{"makes the pod again", "3", "0:ready@a 1:ready@a", "+2"},
		{"and waits for it", "3", "0:ready@a 1:ready@a 2:new@b", ""},
		{"and goes on", "3", "0:ready@a 1:ready@a 2:ready@b", "-1"},
		{"once it is available", "3 minready=60", "0:ready@a 1:ready@a 2:fresh@b", ""},
		{"scaling comes first", "2", "0:ready@a 1:ready@a 2:ready@a", "-2"},
		{"without parameters", "2 bare", "0:ready@a 1:ready@a", "-1"},
		{"on deletion only", "2 ondelete", "0:ready@a 1:ready@a", ""},
		{"partition", "3 partition=2", "0:ready@a 1:ready@a 2:ready@a", "-2"},
		{"not below it", "3 partition=2", "0:ready@a 1:ready@a 2:ready@b", ""},
		{"partition above all", "3 partition=9", "0:ready@a 1:ready@a 2:ready@a", ""},
		{"partition counts from the start ordinal", "3 partition=2 start=5", "5:ready@a 6:ready@a 7:ready@a", "-7"},
		{"maxUnavailable", "5 unavailable=2", "0:ready@a 1:ready@a 2:ready@a 3:ready@a 4:ready@a", "-4 -3"},
		{"as a share, rounded down", "5 unavailable=50%", "0:ready@a 1:ready@a 2:ready@a 3:ready@a 4:ready@a", "-4 -3"},
		{"of at least one", "2 unavailable=10%", "0:ready@a 1:ready@a", "-1"},
		{"and the partition", "5 unavailable=3 partition=4", "0:ready@a 1:ready@a 2:ready@a 3:ready@a 4:ready@a", "-4"},

		{"a revision that never became ready is replaced", "3", "0:ready@b 1:ready@b 2:crash@a", "!2"},
		{"in a set that never became ready", "3", "0:crash@a", "!0"},
		{"the last of several first", "3", "0:ready@b 1:crash@a 2:crash@a", "!2"},
		{"one at a time", "3", "0:ready@b 1:crash@a 2:going@a", ""},
		{"one that cannot be scheduled", "1", "0:unschedulable@a", "!0"},
		{"one that may still become ready is given time", "1", "0:unready@a", "59s"},
		{"but not for ever", "1", "0:stuck@a", "!0"},
		{"of the present revision none is", "3", "0:crash@b 1:crash@a", ""},
		{"on deletion only: nor any other", "1 ondelete", "0:crash@a", ""},
		{"below the partition the old revision is the right one", "3 partition=2", "0:crash@a", ""},
		{"and the new one stays", "3 partition=2", "0:crash@b", ""},
		{"but no third one", "3 partition=2", "0:crash@x", "!0"},
		{"a broken pod beyond the end goes in its turn", "1", "0:ready@b 1:ready@a 2:crash@a", "-2"},

		{"parallel: all at once", "3 parallel", "", "+0 +1 +2"},
		{"whatever the others do", "3 parallel", "0:unready@b", "+1 +2"},
		{"and away", "1 parallel", "0:unready@b 1:ready@b 2:unready@b 3:going@b", "-2 -1"},
		{"failed ones, too", "2 parallel", "0:failed@b 1:failfast@b", "-0 600ms"},
		{"an update within what may be unavailable", "3 parallel", "0:ready@a 1:ready@a 2:ready@a", "-2"},
		{"waits", "3 parallel", "0:ready@a 1:ready@a 2:new@b", ""},
		{"for one that is not there, too", "3 parallel", "0:ready@a 1:ready@a", "+2"},
		{"takes what is not available anyway", "3 parallel", "0:unready@a 1:new@a 2:ready@a", "!1 !0"},
		{"and others as far as enough remain", "4 parallel unavailable=2", "0:ready@a 1:ready@a 2:ready@a 3:unready@a", "!3 -2"},
		{"never below the partition", "3 parallel partition=1 unavailable=3", "0:unready@a 1:ready@a 2:ready@a", "-2 -1"},
		{"but what is broken there", "3 parallel partition=3", "0:crash@x 1:unready@x 2:ready@x", "!0 59s"},
		{"on deletion only: never", "3 parallel ondelete", "0:unready@a 1:ready@a 2:ready@a", ""},
	} {
		t.Run(c.why, func(t *testing.T) {
			if got := plan(snapshotOf(setOf(c.set), podsOf(c.pods))).String(); got != c.want {
				t.Errorf("set %s with pods %s: %q, want %q", c.set, c.pods, got, c.want)
			}
		})
	}
}

// Only names that the set gives are its pods'.
func TestOrdinals(t *testing.T) {
	set := setOf("1")
	for name, want := range map[string]int{
		"web-0": 0, "web-12": 12, "web-2147483647": 2147483647,
		"web": -1, "web-": -1, "web-01": -1, "web--1": -1, "web-+1": -1, "web-1-0": -1, "web-2147483648": -1, "other-0": -1, "web-x": -1,
	} {
		n, ok := ordinalOf(set, name)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("ordinal of %s = %d, want %d", name, n, want)
		}
	}
	// One that two indexes have is one.
	p := podsOf("0:ready@b")
	if s := snapshotOf(set, append(p, p...)); len(s.inside) != 1 {
		t.Errorf("%d pods", len(s.inside))
	}
}

// Which revision a pod has that is made now.
func TestRevisionOfNewPods(t *testing.T) {
	for _, c := range []struct {
		set  string
		want string // of ordinals 0, 1, 2, …
	}{
		{"4", "bbbb"}, {"4 partition=2", "aabb"}, {"4 partition=9", "aaaa"}, {"4 bare", "bbbb"}, {"4 ondelete", "bbbb"}, {"4 start=1 partition=2", "aaab"},
	} {
		s, got := snapshotOf(setOf(c.set), nil), ""
		for n := range 4 {
			got += s.revisionFor(n)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.set, got, c.want)
		}
	}
}

// At most a burst of pods is made at once.
func TestBurst(t *testing.T) {
	if d := plan(snapshotOf(setOf("2000000000 parallel"), nil)); len(d.create) != burst || d.create[burst-1] != burst-1 {
		t.Errorf("%d are made", len(d.create))
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct{ why, set, pods, want string }{
		{"none", "3", "", "0 ready 0 available 0 current 0 updated 0: a b"},
		{"during an update", "3 minready=60", "0:ready@a 1:ready@a 2:fresh@b", "3 ready 3 available 2 current 2 updated 1: a b after 59s"},
		{"ending pods are of no revision", "3", "0:ready@a 1:new@b 2:going@a", "3 ready 2 available 2 current 1 updated 1: a b"},
		{"complete", "2", "0:ready@b 1:ready@b", "2 ready 2 available 2 current 2 updated 2: b b"},
		{"on deletion only: complete, too", "1 ondelete", "0:ready@b", "1 ready 1 available 1 current 1 updated 1: b b"},
		{"complete without pods", "0", "", "0 ready 0 available 0 current 0 updated 0: b b"},
		{"not while one ends", "1", "0:ready@b 1:going@b", "2 ready 2 available 2 current 0 updated 1: a b"},
		{"not with a partition", "2 partition=1", "0:ready@a 1:ready@b", "2 ready 2 available 2 current 1 updated 1: a b"},
	} {
		t.Run(c.why, func(t *testing.T) {
			st, after := status(snapshotOf(setOf(c.set), podsOf(c.pods)))
			got := fmt.Sprintf("%d ready %d available %d current %d updated %d: %s %s",
				st.Replicas, st.ReadyReplicas, st.AvailableReplicas, st.CurrentReplicas, st.UpdatedReplicas, st.CurrentRevision, st.UpdateRevision)
			if after > 0 {
				got += " after " + after.String()
			}
			if got != c.want || st.ObservedGeneration != 7 || *st.CollisionCount != 0 {
				t.Errorf("status = %q, want %q; %+v", got, c.want, st)
			}
		})
	}
	set := setOf("1")
	set.Status.Conditions = []appsv1.StatefulSetCondition{{Type: "Other"}}
	set.Status.CollisionCount = ptr.To[int32](3)
	if st, _ := status(snapshotOf(set, nil)); len(st.Conditions) != 1 || *st.CollisionCount != 3 {
		t.Errorf("conditions of others and the count of collisions stay: %+v", st)
	}
}
