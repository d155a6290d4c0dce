package agent_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// cpus is what the node has for pods, in thousandths.
func (r *rig) cpus() (milli int64) {
	r.t.Helper()
	r.eventually("the node", func() bool {
		n, _ := r.client.View().Get(kinds.Registry().Must("", "nodes"), api.Key{Name: "n1"}).(*v1.Node)
		if n != nil {
			milli = n.Status.Allocatable.Cpu().MilliValue()
		}
		return milli > 0
	})
	return milli
}

func requesting(milli int64) v1.ResourceRequirements {
	return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI)}}
}

// sized makes a pod that runs with a part of a processor.
func (r *rig) sized(name string, milli int64, priority int32) {
	r.t.Helper()
	r.pod(name, func(p *v1.Pod) {
		p.Spec.Containers[0].Resources = requesting(milli)
		if priority != 0 {
			p.Spec.Priority = ptr.To(priority)
		}
	})
	r.wait(name, "Ready", isReady)
}

// resize asks for another part.
func (r *rig) resize(name string, milli int64) {
	for {
		p := r.get(name).DeepCopy()
		p.Spec.Containers[0].Resources = requesting(milli)
		_, err := r.client.Update(r.t.Context(), r.pods, p, "resize")
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			r.t.Error(err)
			return
		}
	}
}

// has says that a container has a part, without having been restarted, and that
// the pod waits for nothing else.
func has(milli int64) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		cs := &p.Status.ContainerStatuses[0]
		return cs.Resources != nil && cs.Resources.Requests.Cpu().MilliValue() == milli && cs.RestartCount == 0 && !pending("")(p)
	}
}

// pending says that a resize is, for a reason or for any.
func pending(reason string) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.PodResizePending && (reason == "" || c.Reason == reason)
		})
	}
}

// In-place resize: what fits is applied without a restart, what does not waits.
func TestResize(t *testing.T) {
	r := newRig(t)
	cpus := r.cpus()
	r.sized("a", cpus/2, 0)
	r.sized("b", cpus/4, 0)
	r.resize("b", cpus/4+10)
	r.wait("b", "more", has(cpus/4+10))
	r.resize("b", 2*cpus)
	r.wait("b", "Infeasible", pending("Infeasible"))
	r.resize("b", cpus*3/4)
	r.wait("b", "Deferred", pending("Deferred"))
	r.delete("a")
	r.wait("b", "what it waited for", has(cpus*3/4))
	shares, err := os.ReadFile("/sys/fs/cgroup/cpu" + r.base + "/pods/burstable/" + string(r.get("b").UID) + "/cpu.shares")
	if err == nil && strings.TrimSpace(string(shares)) != fmt.Sprint(cpus*3/4*1024/1000) {
		t.Errorf("shares of the pod: %s", shares)
	}
}

// "Resize CPU and Memory Resources assigned to Containers", "How Deferred Resizes are
// Retried": what a pod waits for takes nothing from others, and what becomes less is
// granted.
func TestDeferredResizeHoldsNothing(t *testing.T) {
	r := newRig(t)
	part := r.cpus() / 20
	r.sized("a", 10*part, 0)
	r.sized("b", 5*part, 0)
	r.resize("a", 18*part)
	r.wait("a", "Deferred", pending("Deferred"))
	r.resize("b", 6*part)
	r.wait("b", "more beside it", has(6*part))
	r.resize("b", 4*part)
	r.wait("b", "less beside it", has(4*part))
	// A pod that comes takes what nobody has.
	r.sized("c", 5*part, 0)
	r.resize("b", 18*part)
	r.wait("b", "Deferred", pending("Deferred"))
	// Both wait for the other's: less than it has is granted to either.
	r.resize("a", 8*part)
	r.wait("a", "less", has(8*part))
	r.resize("b", 7*part)
	r.wait("b", "what that has left", has(7*part))
	// A former agent's word holds, and so does what waits.
	r.resize("a", 18*part)
	r.wait("a", "Deferred", pending("Deferred"))
	r.stop()
	r.start()
	r.delete("b")
	r.delete("c")
	r.wait("a", "what the others had", has(18*part))
}

// The order of "How Deferred Resizes are Retried": with room for one of those who wait,
// the one of the higher priority gets it.
func TestDeferredResizesInOrder(t *testing.T) {
	r := newRig(t)
	part := r.cpus() / 20
	r.sized("room", 8*part, 0)
	r.sized("low", 2*part, 0)
	r.sized("high", 2*part, 10)
	r.sized("small", 2*part, 0)
	for _, name := range []string{"low", "high"} {
		r.resize(name, 12*part)
		r.wait(name, "Deferred", pending("Deferred"))
	}
	r.delete("room")
	r.wait("high", "what it waited for", has(12*part))
	r.wait("low", "that it still waits", pending("Deferred"))
	r.resize("small", 7*part)
	r.wait("small", "Deferred", pending("Deferred"))
	r.resize("high", 3*part)
	r.wait("low", "what it waited for", has(12*part))
	r.resize("low", 11*part)
	r.wait("low", "less", has(11*part))
	r.wait("small", "that it still waits", pending("Deferred"))
	// One that does not fit keeps nothing from who comes after it, and can be taken back.
	r.resize("high", 9*part)
	r.wait("high", "Deferred", pending("Deferred"))
	r.resize("low", 10*part)
	r.wait("small", "what is left", has(7*part))
	r.resize("high", 3*part)
	r.wait("high", "that nothing is pending", has(3*part))
}

// Of pods that ask at once, each for more than half of the node, one grows.
func TestResizesAtOnce(t *testing.T) {
	r := newRig(t)
	part := r.cpus() / 20
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names {
		r.sized(name, 2*part, 0)
	}
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() { r.resize(name, 11*part) })
	}
	all.Wait()
	grown := 0
	for _, name := range names {
		p := r.wait(name, "an answer", func(p *v1.Pod) bool { return pending("Deferred")(p) || has(11*part)(p) })
		if has(11 * part)(p) {
			grown++
		}
	}
	if grown != 1 {
		t.Errorf("%d pods have more than half of the node each", grown)
	}
}
