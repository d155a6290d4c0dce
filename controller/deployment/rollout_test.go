package deployment

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/internal/onfailure"
)

// cluster is a deployment with what the ReplicaSet loop and the agents make of
// it, as far as a rollout depends on it.
type cluster struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	pods map[*appsv1.ReplicaSet]*pods
	made int
}

// pods of one set: how many, and how many of them are ready; and the generation
// of the set that made them so. The set's status follows later.
type pods struct {
	all, ready int32
	generation int64
}

func (c *cluster) total(f func(*appsv1.ReplicaSet) int32) int32 { return sum(c.sets, f) }

// kept are the ready pods that remain when every set has come down to its size,
// unready pods first; those that no status tells of yet cannot count.
func (c *cluster) kept() int32 {
	return c.total(func(rs *appsv1.ReplicaSet) int32 {
		return min(c.pods[rs].ready, rs.Status.AvailableReplicas, size(rs))
	})
}

// decide is a step of the loop.
func (c *cluster) decide(r *rapid.T) {
	s := standIn(c.d, c.sets)
	for _, rs := range s.old {
		s.oldPods = s.oldPods || c.pods[rs].all > 0
	}
	rollout := !c.d.Spec.Paused && !resized(s)
	before, kept := c.total(size), c.kept()
	dec := plan(s)
	text := dec.text()
	if dec.create {
		c.made++
		rs := setOf(s.d, c.made, dec.size, 0)
		rs.Status, rs.Generation = appsv1.ReplicaSetStatus{}, 1
		c.sets, c.pods[rs] = append(c.sets, rs), &pods{}
	}
	for _, sc := range dec.scale {
		sc.set.Spec.Replicas = &sc.to
		sc.set.Generation++
		sized(sc.set, c.d)
	}
	for _, gone := range dec.remove {
		for i, rs := range c.sets {
			if rs == gone {
				c.sets = append(c.sets[:i:i], c.sets[i+1:]...)
				break
			}
		}
		if c.pods[gone].all > 0 {
			r.Fatalf("a set with %d pods was removed", c.pods[gone].all)
		}
	}
	c.d.Status, _ = status(snapshot{d: s.d, failed: s.failed, current: s.current, old: s.old}, now)
	if most := replicas(c.d) + surge(c.d); c.total(size) > max(before, most) {
		r.Fatalf("%d pods after %q, at most %d are allowed", c.total(size), text, most)
	}
	if least := replicas(c.d) - unavailable(c.d); rollout && c.d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType && c.kept() < min(kept, least) {
		r.Fatalf("%d available pods remain after %q, %d should", c.kept(), text, least)
	}
}

func (c *cluster) progressing() string {
	for _, p := range c.d.Status.Conditions {
		if p.Type == appsv1.DeploymentProgressing {
			return p.Reason
		}
	}
	return ""
}

func mark(rs *appsv1.ReplicaSet, name, value string) {
	rs.Annotations = maps.Clone(rs.Annotations)
	rs.Annotations[name] = value
}

// obey is what the ReplicaSet loop does to the pods, and report to the status.
func (c *cluster) obey(rs *appsv1.ReplicaSet) {
	p := c.pods[rs]
	p.all, p.generation = size(rs), rs.Generation
	p.ready = min(p.ready, p.all)
}

func (c *cluster) report(rs *appsv1.ReplicaSet) {
	p := c.pods[rs]
	rs.Status.ObservedGeneration = p.generation
	rs.Status.Replicas, rs.Status.ReadyReplicas, rs.Status.AvailableReplicas = p.all, p.ready, p.ready
}

// In no order of events does a rollout have more pods than replicas and
// maxSurge, or make fewer available than replicas less maxUnavailable; and every
// rollout comes to its end (documentation: "Rolling Update Deployment"); nor where
// revisions are found to have failed, and others stand in for them.
func TestRolloutStaysWithinItsFence(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		number := rapid.Int32Range(0, 9)
		fenceOf := func(d *appsv1.Deployment) {
			next := deploymentOf(0, number.Draw(r, "surge"), number.Draw(r, "unavailable"))
			if d.Spec.Strategy = next.Spec.Strategy; rapid.IntRange(0, 9).Draw(r, "recreate") == 0 {
				d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
			}
		}
		c := &cluster{d: deploymentOf(number.Draw(r, "replicas"), 0, 0), pods: map[*appsv1.ReplicaSet]*pods{}}
		c.d.Annotations = map[string]string{onfailure.ActionAnnotation: rapid.SampledFrom([]string{"", "rollback", "rollback", "pause"}).Draw(r, "policy")}
		c.d.Spec.RevisionHistoryLimit = ptr.To(rapid.Int32Range(0, 2).Draw(r, "history"))
		fenceOf(c.d)
		some := func() *appsv1.ReplicaSet {
			return c.sets[rapid.IntRange(0, len(c.sets)-1).Draw(r, "set")]
		}
		for range rapid.IntRange(0, 100).Draw(r, "events") {
			event := rapid.SampledFrom([]string{"decide", "decide", "decide", "obey", "obey", "report", "report", "ready", "ready", "template", "scale", "fence", "pause", "good", "failed"}).Draw(r, "event")
			switch {
			case event == "decide":
				c.decide(r)
			case event == "template":
				c.d.Spec.Template = templateOf(fmt.Sprint("v", rapid.IntRange(1, 4).Draw(r, "version")))
			case event == "scale":
				c.d.Spec.Replicas = ptr.To(number.Draw(r, "replicas"))
			case event == "fence":
				fenceOf(c.d)
			case event == "pause":
				c.d.Spec.Paused = !c.d.Spec.Paused
			case len(c.sets) == 0:
			case event == "obey":
				c.obey(some())
			case event == "good":
				mark(some(), onfailure.GoodMark, "1")
			case event == "failed":
				rs := some()
				mark(rs, onfailure.FailedMark, onfailure.Failure{Revision: revisionOf(rs), Message: "it crashes"}.String())
			case event == "report":
				c.report(some())
			case event == "ready":
				if p := c.pods[some()]; p.ready < p.all {
					p.ready++
				}
			}
		}
		c.d.Spec.Paused = false
		for range 100 {
			for _, rs := range c.sets {
				c.obey(rs)
				c.report(rs)
			}
			c.decide(r)
			for _, rs := range c.sets {
				c.obey(rs)
				c.pods[rs].ready = c.pods[rs].all
				c.report(rs)
			}
		}
		s := standIn(c.d, c.sets)
		current, old := s.current, s.old
		if s.asked != nil {
			old = slices.DeleteFunc(old, func(rs *appsv1.ReplicaSet) bool { return rs == s.asked }) // kept beyond the history
		}
		if current == nil || size(current) != replicas(c.d) || sum(old, size) != 0 {
			r.Fatalf("the rollout does not come to its end: %+v", c.sets)
		}
		if f := c.progressing(); (s.failed != "") != (f == reasonTimedOut) {
			r.Fatalf("%q, and Progressing says %s", s.failed, f)
		}
		if !complete(c.d, &c.d.Status) || len(old) > int(*c.d.Spec.RevisionHistoryLimit) {
			r.Fatalf("at the end %d old sets are left, status %+v", len(old), c.d.Status)
		}
	})
}
