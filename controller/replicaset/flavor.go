package replicaset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
)

// flavor is a kind that the loop keeps, as it sees that.
type flavor struct {
	name string // the loop's identity
	kind schema.GroupVersionKind
	// asSet gives an object as a replica set, which shares its memory.
	asSet func(api.Object) *appsv1.ReplicaSet
	// withStatus is a copy of an object with another status, or nil when it has
	// that already.
	withStatus func(api.Object, appsv1.ReplicaSetStatus) api.Object
}

func (f flavor) selector(o api.Object) *metav1.LabelSelector { return f.asSet(o).Spec.Selector }

var sets = flavor{
	name:  "replicaset-controller",
	kind:  appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
	asSet: func(o api.Object) *appsv1.ReplicaSet { return o.(*appsv1.ReplicaSet) },
	withStatus: func(o api.Object, s appsv1.ReplicaSetStatus) api.Object {
		rs := o.(*appsv1.ReplicaSet)
		if equality.Semantic.DeepEqual(rs.Status, s) {
			return nil
		}
		rs = rs.DeepCopy()
		rs.Status = s
		return rs
	},
}

var controllers = flavor{
	name:  "replication-controller",
	kind:  corev1.SchemeGroupVersion.WithKind("ReplicationController"),
	asSet: func(o api.Object) *appsv1.ReplicaSet { return asSet(o.(*corev1.ReplicationController)) },
	withStatus: func(o api.Object, s appsv1.ReplicaSetStatus) api.Object {
		rc := o.(*corev1.ReplicationController)
		status := corev1.ReplicationControllerStatus{
			Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
			AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
		}
		for _, c := range s.Conditions {
			status.Conditions = append(status.Conditions, corev1.ReplicationControllerCondition{
				Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status,
				LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
			})
		}
		if equality.Semantic.DeepEqual(rc.Status, status) {
			return nil
		}
		rc = rc.DeepCopy()
		rc.Status = status
		return rc
	},
}

func asSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}, Template: *rc.Spec.Template,
		},
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return rs
}
