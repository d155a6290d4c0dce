package deployment

import (
	"fmt"
	"math"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/internal/onfailure"
)

// Reasons of conditions, those of Kubernetes; `kubectl rollout status` reads
// some.
const (
	reasonAvailable      = "MinimumReplicasAvailable"
	reasonUnavailable    = "MinimumReplicasUnavailable"
	reasonCreated        = "NewReplicaSetCreated"
	reasonNotCreated     = "ReplicaSetCreateError"
	reasonFoundSet       = "FoundNewReplicaSet"
	reasonUpdated        = "ReplicaSetUpdated"
	reasonNewSetComplete = "NewReplicaSetAvailable"
	reasonTimedOut       = "ProgressDeadlineExceeded"
	reasonPaused         = "DeploymentPaused"
	reasonResumed        = "DeploymentResumed"
)

// status is the deployment's status as its sets have it. after is when the
// progress deadline passes, if one is running.
func status(s snapshot, now time.Time) (st appsv1.DeploymentStatus, after time.Duration) {
	d := s.d
	all := s.all()
	st = appsv1.DeploymentStatus{
		ObservedGeneration: d.Generation,
		Replicas:           sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas }),
		ReadyReplicas:      sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas }),
		AvailableReplicas:  sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }),
		TerminatingReplicas: ptr.To(sum(all, func(rs *appsv1.ReplicaSet) int32 {
			return ptr.Deref(rs.Status.TerminatingReplicas, 0)
		})),
		CollisionCount: d.Status.CollisionCount,
	}
	if s.collided {
		st.CollisionCount = ptr.To(ptr.Deref(d.Status.CollisionCount, 0) + 1)
	}
	st.UnavailableReplicas = max(0, sum(all, size)-st.AvailableReplicas)
	if s.current != nil {
		st.UpdatedReplicas = s.current.Status.Replicas
	}
	c := conditions(append([]appsv1.DeploymentCondition(nil), d.Status.Conditions...))
	if st.AvailableReplicas >= replicas(d)-unavailable(d) {
		c.set(appsv1.DeploymentAvailable, corev1.ConditionTrue, reasonAvailable, "Deployment has minimum availability.", now)
	} else {
		c.set(appsv1.DeploymentAvailable, corev1.ConditionFalse, reasonUnavailable, "Deployment does not have minimum availability.", now)
	}
	after = c.progress(s, &st, now)
	c.failure(s, now)
	st.Conditions = c
	return st, after
}

// complete says whether a rollout is over and everything is available.
func complete(d *appsv1.Deployment, st *appsv1.DeploymentStatus) bool {
	return st.UpdatedReplicas == replicas(d) && st.Replicas == replicas(d) &&
		st.AvailableReplicas == replicas(d) && st.ObservedGeneration >= d.Generation
}

// progressing says whether the new status is nearer to the end than the old one.
func progressing(was, is *appsv1.DeploymentStatus) bool {
	return is.UpdatedReplicas > was.UpdatedReplicas ||
		is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas || is.AvailableReplicas > was.AvailableReplicas
}

// failedPrefix begins what is said of a revision that failed, by which the loop
// that found it out tells it from a deadline that passed.
const failedPrefix = "Revision "

func failedText(f *onfailure.Failure) string {
	return fmt.Sprintf("%s%d failed: %s", failedPrefix, f.Revision, f.Message)
}

type conditions []appsv1.DeploymentCondition

func (c conditions) get(kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range c {
		if c[i].Type == kind {
			return &c[i]
		}
	}
	return nil
}

func (c *conditions) remove(kind appsv1.DeploymentConditionType) {
	for i := range *c {
		if (*c)[i].Type == kind {
			*c = append((*c)[:i], (*c)[i+1:]...)
			return
		}
	}
}

// set changes a condition; one that has the status and reason already stays as
// it is, its times too.
func (c *conditions) set(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) {
	if was := c.get(kind); was != nil && was.Status == status && was.Reason == reason {
		return
	}
	c.touch(kind, status, reason, message, now)
}

// touch is set with a new time of update in any case.
func (c *conditions) touch(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) {
	n := appsv1.DeploymentCondition{
		Type: kind, Status: status, Reason: reason, Message: message,
		LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
	}
	if was := c.get(kind); was != nil {
		if was.Status == status {
			n.LastTransitionTime = was.LastTransitionTime
		}
		*was = n
		return
	}
	*c = append(*c, n)
}

// progress keeps the condition Progressing.
func (c *conditions) progress(s snapshot, st *appsv1.DeploymentStatus, now time.Time) (after time.Duration) {
	d := s.d
	if s.failed != "" {
		// A rollout of what failed is over; `kubectl rollout status` fails by this.
		if was := c.get(appsv1.DeploymentProgressing); was == nil || was.Reason != reasonTimedOut || was.Message != s.failed {
			c.touch(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, s.failed, now)
		}
		return 0
	}
	seconds := ptr.Deref(d.Spec.ProgressDeadlineSeconds, math.MaxInt32)
	if seconds == math.MaxInt32 {
		c.remove(appsv1.DeploymentProgressing)
		return 0
	}
	was := c.get(appsv1.DeploymentProgressing)
	if was != nil && was.Reason == reasonTimedOut && strings.HasPrefix(was.Message, failedPrefix) {
		c.remove(appsv1.DeploymentProgressing) // that was about another revision
		was = nil
	}
	paused := was != nil && was.Reason == reasonPaused
	switch {
	case was != nil && was.Reason == reasonTimedOut && d.Spec.Paused:
	case d.Spec.Paused && !paused:
		c.touch(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused", now)
		return 0
	case !d.Spec.Paused && paused:
		c.touch(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed", now)
	}
	if s.refused != "" {
		c.set(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonNotCreated, s.refused, now)
	}
	if d.Spec.Paused || s.refused != "" || s.collided || d.DeletionTimestamp != nil {
		return 0
	}
	// A deployment that recreates has no new set before the old pods are gone.
	name := fmt.Sprintf("Deployment %q", d.Name)
	if s.current != nil {
		name = fmt.Sprintf("ReplicaSet %q", s.current.Name)
	}
	if s.created {
		c.touch(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", s.current.Name), now)
	}
	was = c.get(appsv1.DeploymentProgressing)
	switch {
	case was != nil:
	case s.current == nil:
		return 0
	default:
		c.touch(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonFoundSet, fmt.Sprintf("Found new replica set %q", s.current.Name), now)
		was = c.get(appsv1.DeploymentProgressing)
	}
	// A rollout that was complete stays so while pods come and go.
	if st.Replicas == st.UpdatedReplicas && was.Reason == reasonNewSetComplete {
		return 0
	}
	deadline := was.LastUpdateTime.Add(time.Duration(seconds) * time.Second)
	switch {
	case complete(d, st):
		c.set(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonNewSetComplete, name+" has successfully progressed.", now)
		return 0
	case progressing(&d.Status, st):
		c.touch(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, name+" is progressing.", now)
		return time.Duration(seconds) * time.Second
	case was.Reason == reasonTimedOut:
		return 0
	case was.Reason == reasonNewSetComplete:
		// A new template, whose set has not got anywhere yet.
		c.touch(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, name+" is progressing.", now)
		return time.Duration(seconds) * time.Second
	case !now.Before(deadline):
		c.set(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, name+" has timed out progressing.", now)
		return 0
	}
	return deadline.Sub(now)
}

// failure passes on why a set could not make its pods.
func (c *conditions) failure(s snapshot, now time.Time) {
	sets := s.all()
	for i := len(sets) - 1; i >= 0; i-- {
		for _, f := range sets[i].Status.Conditions {
			if f.Type == appsv1.ReplicaSetReplicaFailure {
				c.set(appsv1.DeploymentReplicaFailure, f.Status, f.Reason, f.Message, now)
				return
			}
		}
	}
	c.remove(appsv1.DeploymentReplicaFailure)
}
