package statefulset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// status is the set's status as its pods have it. after is when the next pod may
// become available without any event.
func status(s *snapshot) (st appsv1.StatefulSetStatus, after time.Duration) {
	was := &s.set.Status
	st = appsv1.StatefulSetStatus{
		ObservedGeneration: s.set.Generation, CurrentRevision: s.current, UpdateRevision: s.update,
		CollisionCount: ptr.To(ptr.Deref(was.CollisionCount, 0)), Conditions: slices.Clone(was.Conditions),
	}
	for _, m := range slices.Concat(s.inside, s.beyond) {
		p := m.pod
		st.Replicas++
		if ready(p) {
			st.ReadyReplicas++
			if ok, wait := podstate.Available(p, s.minReady(), s.now); ok {
				st.AvailableReplicas++
			} else {
				after = controller.Sooner(after, wait)
			}
		}
		if going(p) {
			continue
		}
		if revisionOf(p) == s.current {
			st.CurrentReplicas++
		}
		if revisionOf(p) == s.update {
			st.UpdatedReplicas++
		}
	}
	if n := int32(s.size()); st.UpdatedReplicas == n && st.ReadyReplicas == n && st.Replicas == n {
		st.CurrentReplicas, st.CurrentRevision = st.UpdatedReplicas, st.UpdateRevision
	}
	return st, after
}
