package replicaset

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// burst bounds the pods that one step creates or deletes.
const burst = 500

// actions are what one step does.
type actions struct {
	create int
	delete []*corev1.Pod
}

// plan compares the pods that a replica set owns with what it asks for. crowd
// answers how many active pods a node has of the set and its siblings, those of
// other revisions of one deployment; it is asked only when pods are to go.
func plan(rs *appsv1.ReplicaSet, owned []*corev1.Pod, crowd func() map[string]int, now time.Time) actions {
	var active []*corev1.Pod
	for _, p := range owned {
		if podstate.Active(p) {
			active = append(active, p)
		}
	}
	want := int(ptr.Deref(rs.Spec.Replicas, 1))
	switch diff := len(active) - want; {
	case rs.DeletionTimestamp != nil, diff == 0:
		return actions{}
	case diff < 0:
		return actions{create: min(-diff, burst)}
	default:
		if diff < len(active) {
			rank(active, crowd(), now)
		}
		return actions{delete: active[:min(diff, burst)]}
	}
}

// rank puts first the pods that are missed least (documentation: "ReplicaSet",
// "Scaling a ReplicaSet").
func rank(pods []*corev1.Pod, onNode map[string]int, now time.Time) {
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(
			controller.First(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phaseRank(a), phaseRank(b)),
			controller.First(!podstate.Ready(a), !podstate.Ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]),
			later(a, b, controller.ReadySince(a), controller.ReadySince(b), now),
			controller.MoreRestarts(a, b),
			later(a, b, a.CreationTimestamp.Time, b.CreationTimestamp.Time, now),
			cmp.Compare(a.UID, b.UID),
		)
	})
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

func deletionCost(p *corev1.Pod) int {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

// later compares two pods by times, of which the later comes first. Among times of
// like age chance (the pods' uid) decides, so that one failure domain filled last
// is not emptied first.
func later(a, b *corev1.Pod, ofA, ofB, now time.Time) int {
	if ofA.Equal(ofB) {
		return 0
	}
	return cmp.Or(cmp.Compare(bucket(ofA, now), bucket(ofB, now)), cmp.Compare(a.UID, b.UID))
}

// bucket is the age's order of magnitude.
func bucket(t, now time.Time) int {
	age := now.Sub(t)
	if t.IsZero() || age <= 0 {
		return -1
	}
	return int(math.Log2(float64(age)))
}

// status is the replica set's status as its pods have it. after is when the
// next pod may become available without any event. failure is why pods could
// not be made or deleted, with its reason, if so.
func status(rs *appsv1.ReplicaSet, owned []*corev1.Pod, reason string, failure error, now time.Time) (s appsv1.ReplicaSetStatus, after time.Duration) {
	s = appsv1.ReplicaSetStatus{ObservedGeneration: rs.Generation}
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	minReady := time.Duration(rs.Spec.MinReadySeconds) * time.Second
	terminating := int32(0)
	for _, p := range owned {
		if p.DeletionTimestamp != nil && !podstate.Finished(p) {
			terminating++
		}
		if !podstate.Active(p) {
			continue
		}
		s.Replicas++
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if !podstate.Ready(p) {
			continue
		}
		s.ReadyReplicas++
		available, wait := podstate.Available(p, minReady, now)
		if available {
			s.AvailableReplicas++
		} else {
			after = controller.Sooner(after, wait)
		}
	}
	s.TerminatingReplicas = &terminating
	s.Conditions = conditions(rs.Status.Conditions, reason, failure, now)
	return s, after
}

// conditions keeps others' conditions and sets or removes ReplicaFailure.
func conditions(old []appsv1.ReplicaSetCondition, reason string, failure error, now time.Time) []appsv1.ReplicaSetCondition {
	var kept []appsv1.ReplicaSetCondition
	var was *appsv1.ReplicaSetCondition
	for i, c := range old {
		if c.Type == appsv1.ReplicaSetReplicaFailure {
			was = &old[i]
		} else {
			kept = append(kept, c)
		}
	}
	if failure == nil {
		return kept
	}
	if was != nil && was.Reason == reason {
		return append(kept, *was)
	}
	return append(kept, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: failure.Error(),
	})
}
