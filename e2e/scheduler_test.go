package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestScheduler is about why a pod is not placed, in upstream's words, and
// about its being placed as soon as it can be.
func TestScheduler(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"resources", insufficient},
		{"node selector and affinity", wrongNode},
		{"host ports", takenPort},
		{"scheduling gates", gated},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// unschedulable waits until a pod is refused with a message that begins so.
func (s *space) unschedulable(name, message string) {
	s.t.Helper()
	p := s.until(name, "it cannot be placed", func(p *corev1.Pod) bool {
		return conditionOf(p, corev1.PodScheduled).Reason == corev1.PodReasonUnschedulable
	})
	if c := conditionOf(p, corev1.PodScheduled); c.Status != corev1.ConditionFalse || !strings.HasPrefix(c.Message, message) {
		s.t.Errorf("condition %+v, want %s", c, message)
	}
	if p.Status.Phase != corev1.PodPending {
		s.t.Errorf("phase %s", p.Status.Phase)
	}
	s.event(name, "Warning FailedScheduling: "+message)
}

func insufficient(s *space) {
	for resource, amount := range map[string]string{"cpu": "1000", "memory": "1000Ti"} {
		s.create(resource, fmt.Sprintf(`
containers:
- {name: main, image: hansa.local/busybox:1, resources: {requests: {%s: %s}}}
`, resource, amount))
		s.unschedulable(resource, "0/1 nodes are available: 1 Insufficient "+resource+".")
	}
}

func wrongNode(s *space) {
	s.create("p", `
nodeSelector: {colour: `+s.name+`}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.unschedulable("p", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
	s.kubectl("label", "node", nodeName, "colour="+s.name)
	s.ready("p")
	s.kubectl("label", "node", nodeName, "colour-")
}

func takenPort(s *space) {
	const spec = `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], ports: [{containerPort: 80, hostPort: 18181}]}
`
	s.create("first", spec)
	s.ready("first")
	s.create("second", spec)
	s.unschedulable("second", "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")
	s.kubectl("delete", "pod", "first")
	s.ready("second")
}

func gated(s *space) {
	s.create("p", `
schedulingGates: [{name: example.com/later}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.until("p", "its gate holds it", func(p *corev1.Pod) bool {
		return conditionOf(p, corev1.PodScheduled).Reason == corev1.PodReasonSchedulingGated
	})
	patch := []byte(`[{"op":"remove","path":"/spec/schedulingGates/0"}]`)
	if _, err := s.client.CoreV1().Pods(s.name).Patch(s.t.Context(), "p", types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.ready("p")
}

// What is done to the node itself happens on a machine of its own.
func TestNodeRefuses(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("node", "--node-taint=special=yes:NoSchedule", "--node-label=zone=a"))
	s := newSpace(t, c)
	s.create("p", `
nodeSelector: {zone: a}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.unschedulable("p", "0/1 nodes are available: 1 node(s) had untolerated taint(s).")
	s.create("tolerates", `
tolerations: [{key: special, operator: Exists}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.ready("tolerates")
	s.kubectl("taint", "node", nodeName, "special-")
	s.ready("p")
	s.kubectl("cordon", nodeName)
	s.create("cordoned", strings.TrimPrefix(sleeper, "\n"))
	s.unschedulable("cordoned", "0/1 nodes are available: 1 node(s) were unschedulable.")
	s.kubectl("uncordon", nodeName)
	s.ready("cordoned")

	// Of those that wait for room, the most important one goes first.
	n, err := c.client.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	whole := n.Status.Allocatable.Cpu().MilliValue()
	pod := func(name, class string, milli int64) {
		s.create(name, fmt.Sprintf(`
priorityClassName: %q
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], resources: {requests: {cpu: %dm}}}
`, class, milli))
	}
	s.apply(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
preemptionPolicy: Never
value: 1000
`)
	pod("holder", "", whole*3/4)
	s.ready("holder")
	pod("low", "", whole/2)
	s.unschedulable("low", "0/1 nodes are available: 1 Insufficient cpu.")
	pod("urgent", "high", whole*3/4)
	s.unschedulable("urgent", "0/1 nodes are available: 1 Insufficient cpu.")
	s.kubectl("delete", "pod", "holder")
	s.ready("urgent")
	s.unschedulable("low", "0/1 nodes are available: 1 Insufficient cpu.")

	s.kubectl("drain", nodeName, "--force", "--grace-period=1", "--timeout=120s")
	if got := s.kubectl("get", "pods", "-o", "jsonpath={.items[?(@.spec.nodeName)].metadata.name}"); got != "" {
		t.Errorf("after the drain there are %s", got)
	}
}
