package admit

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/pod"
)

// Claim is what a pod on the node counts for. What it only wants takes nothing from
// others.
type Claim struct {
	// Pod says its ports, priority and class.
	Pod *v1.Pod
	// Holds are the requests that are granted to it or, where that is more, that it
	// still has.
	Holds v1.ResourceList
	// Wants are the requests that its spec asks for and that are not granted yet; nil:
	// it asks for nothing else.
	Wants v1.ResourceList
	// Since is when it began to ask.
	Since time.Time
}

// resizable are the resources that change while a pod runs.
var resizable = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}

// Resize decides which pods of those that ask for other resources get them. It
// answers by UID: nil for who does, or why a resize is pending.
//
// The order is the kubelet's: who asks for less, then by priority, guaranteed pods,
// who has waited the longest ("Resize CPU and Memory Resources assigned to
// Containers", "How Deferred Resizes are Retried"). Who comes later gets what is left,
// though somebody before it waits for more than there is. What does not grow is always
// granted.
func Resize(claims []*Claim, allocatable v1.ResourceList) map[types.UID]*pod.Failure {
	waiting := slices.DeleteFunc(slices.Clone(claims), func(c *Claim) bool { return c.Wants == nil })
	slices.SortFunc(waiting, (*Claim).compare)
	used := held(claims)
	out := map[types.UID]*pod.Failure{}
	for _, c := range waiting {
		why := c.pending(used, allocatable)
		out[c.Pod.UID] = why
		if why == nil {
			change(used, c.Holds, (*resource.Quantity).Sub)
			change(used, pod.Larger(c.Holds, c.Wants), (*resource.Quantity).Add)
		}
	}
	return out
}

// compare is less than nothing when c comes first.
func (c *Claim) compare(d *Claim) int {
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	guaranteed := func(c *Claim) bool { return pod.QOS(c.Pod) == v1.PodQOSGuaranteed }
	return cmp.Or(
		first(!c.grows(resizable...), !d.grows(resizable...)),
		cmp.Compare(ptr.Deref(d.Pod.Spec.Priority, 0), ptr.Deref(c.Pod.Spec.Priority, 0)),
		first(guaranteed(c), guaranteed(d)),
		c.Since.Compare(d.Since),
		cmp.Compare(c.Pod.UID, d.Pod.UID),
	)
}

// grows says that it wants more of one of the resources than it counts for now.
func (c *Claim) grows(names ...v1.ResourceName) bool {
	return slices.ContainsFunc(names, func(name v1.ResourceName) bool {
		want := c.Wants[name]
		return want.Cmp(c.Holds[name]) > 0
	})
}

// pending is why it does not get what it wants now, if so. used is what all hold, c
// among them.
func (c *Claim) pending(used, allocatable v1.ResourceList) *pod.Failure {
	amount := func(name v1.ResourceName, list v1.ResourceList) int64 {
		q := list[name]
		if name == v1.ResourceCPU {
			return q.MilliValue()
		}
		return q.Value()
	}
	names := slices.DeleteFunc(slices.Clone(resizable), func(name v1.ResourceName) bool { return !c.grows(name) })
	for _, name := range names {
		if want := c.Wants[name]; want.Cmp(allocatable[name]) > 0 {
			return &pod.Failure{Reason: pod.ResizeInfeasible, Message: fmt.Sprintf(
				"Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, amount(name, c.Wants), amount(name, allocatable))}
		}
	}
	others := used.DeepCopy()
	change(others, c.Holds, (*resource.Quantity).Sub)
	for _, name := range names {
		if r := fits(name, c.Wants, others, allocatable); r != nil {
			return &pod.Failure{Reason: pod.ResizeDeferred, Message: r.Message}
		}
	}
	return nil
}

// held is what pods hold together.
func held(claims []*Claim) v1.ResourceList {
	out := v1.ResourceList{}
	for _, c := range claims {
		change(out, c.Holds, (*resource.Quantity).Add)
	}
	return out
}

// change adds a list to another, or takes it off.
func change(list, by v1.ResourceList, op func(sum *resource.Quantity, q resource.Quantity)) {
	for name, q := range by {
		sum := list[name]
		op(&sum, q)
		list[name] = sum
	}
}
