package core

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Event is something that happened to the cluster, which the cluster shows
// already. Exactly one of its parts is set.
type Event struct {
	// A node that came, changed or went; a nil one was or is not there.
	OldNode, NewNode *corev1.Node
	// A pod that is on a node now, or no longer, and that node.
	Came, Gone *Pod
	At         string
	// Namespaces: a namespace's labels changed.
	Namespaces bool
}

// MayHelp says whether an event may let a pod in that was refused by the given
// filters. It may be wrong in that direction only: what it denies is true. It
// costs the same however large the cluster is.
func (c *Cluster) MayHelp(e Event, p *Pending, refused Filter) bool {
	if refused&VolumeBinding != 0 {
		return false
	}
	byOthers := refused&(PodTopologySpread|InterPodAffinity) != 0
	switch {
	case e.NewNode != nil:
		return byOthers && domainsChanged(e.OldNode, e.NewNode) || nodeMayHelp(e.OldNode, e.NewNode, p)
	case e.OldNode != nil:
		return byOthers
	case e.Namespaces:
		return byOthers
	case e.Gone != nil:
		return byOthers && c.concerns(e.Gone, p) || c.hasRoomNow(e.At, p)
	case e.Came != nil:
		return byOthers && c.concerns(e.Came, p)
	}
	return true
}

func domainsChanged(old, now *corev1.Node) bool {
	return old == nil || !maps.Equal(old.Labels, now.Labels) || !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints)
}

// nodeMayHelp says whether a node is better for a pod than it was.
func nodeMayHelp(old, now *corev1.Node, p *Pending) bool {
	if !suits(now, p.Object) || !couldHold(now, p.Pod) {
		return false
	}
	return old == nil || !suits(old, p.Object) || offersMore(old, now, p.Pod)
}

// suits says whether a node passes all filters that only ask the node.
func suits(node *corev1.Node, p *corev1.Pod) bool {
	if node.Spec.Unschedulable && !toleratesCordon(p) || untolerated(p, node) {
		return false
	}
	match, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node)
	return err == nil && match
}

// hasRoomNow says whether a pod that left a node made enough room there.
func (c *Cluster) hasRoomNow(node string, p *Pending) bool {
	slot, ok := c.slotOf[node]
	return ok && c.present.has(slot) && c.roomIn(slot, p.Pod) && suits(c.nodes[slot], p.Object)
}

// concerns says whether a pod's coming or going changes what topology says of
// another.
func (c *Cluster) concerns(o *Pod, p *Pending) bool {
	if o.terms != nil {
		for i := range o.terms.antiAffinity {
			if c.selects(&o.terms.antiAffinity[i], p.Object) {
				return true
			}
		}
	}
	if own := p.terms; own != nil {
		if c.selectsAll(own.affinity, o.Object) {
			return true
		}
		for i := range own.antiAffinity {
			if c.selects(&own.antiAffinity[i], o.Object) {
				return true
			}
		}
	}
	for i := range p.spread {
		if s := &p.spread[i]; s.hard && o.Object.Namespace == p.Object.Namespace && s.selector.Matches(labels.Set(o.Object.Labels)) {
			return true
		}
	}
	return false
}
