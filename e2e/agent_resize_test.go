package e2e

import (
	"fmt"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rows of TestAgent about "Resize CPU and Memory Resources assigned to Containers" and
// two of TestConfiguredNode, whose node no other test uses meanwhile.

const resizable = `
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 250m, memory: 64Mi}}
`

func (s *space) resize(pod, cpu, memory string) *corev1.Pod {
	s.t.Helper()
	s.kubectl("patch", "pod", pod, "--subresource=resize", "-p", fmt.Sprintf(
		`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":%[1]q,"memory":%[2]q},"limits":{"cpu":%[1]q,"memory":%[2]q}}}]}}`, cpu, memory))
	p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func resizedDown(s *space) {
	s.create("full", `
containers:
- name: main
  image: hansa.local/testimage:1
  args: [alloc, "64"]
  resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {cpu: 50m, memory: 128Mi}}
`)
	s.create("p", resizable)
	before := s.ready("p")
	asked := s.resize("p", "100m", "32Mi")
	if asked.Generation <= before.Generation {
		s.t.Errorf("generation %d after %d", asked.Generation, before.Generation)
	}
	p := s.until("p", "it has less, and says whose word that is", func(p *corev1.Pod) bool {
		r := p.Status.ContainerStatuses[0].Resources
		return r != nil && r.Limits.Memory().String() == "32Mi" && p.Status.ObservedGeneration == asked.Generation &&
			condition(p, corev1.PodResizeInProgress) == "" && conditionOf(p, corev1.PodReady).ObservedGeneration == asked.Generation
	})
	c := p.Status.ContainerStatuses[0]
	if c.RestartCount != 0 || c.ContainerID != before.Status.ContainerStatuses[0].ContainerID {
		s.t.Errorf("it was restarted: %+v", c)
	}
	if got := c.AllocatedResources.Memory().String(); got != "32Mi" {
		s.t.Errorf("allocated %s", got)
	}
	got := s.readGroup(filepath.Join(s.podGroup(p, "guaranteed"), strings.TrimPrefix(c.ContainerID, "containerd://")))
	if want := (groupValues{shares(102), "10000 100000", "33554432"}); got != want {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
	s.event("p", "Normal ResizeCompleted")

	// "Resize CPU and Memory Resources assigned to Containers": a limit is not set below
	// what is used; the resize goes on, and says so, until it can be.
	s.logged("full", "using 64 MiB")
	s.resize("full", "50m", "16Mi")
	p = s.until("full", "its resize is in progress, with an error", func(p *corev1.Pod) bool {
		c := conditionOf(p, corev1.PodResizeInProgress)
		return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonError &&
			strings.HasPrefix(c.Message, `cannot decrease memory limits: attempting to set container "main" memory limit (16777216) below current usage (`)
	})
	c = p.Status.ContainerStatuses[0]
	if c.State.Running == nil || c.RestartCount != 0 || c.Resources.Limits.Memory().String() != "128Mi" || c.AllocatedResources.Memory().String() != "16Mi" {
		s.t.Errorf("a container that uses more than it is to have: %+v", c)
	}
	group := filepath.Join(s.podGroup(p, "guaranteed"), strings.TrimPrefix(c.ContainerID, "containerd://"))
	if got := s.readGroup(group).memory; got != "134217728" {
		s.t.Errorf("limit %s in between", got)
	}
	s.resize("full", "50m", "96Mi")
	p = s.until("full", "it has what it can have", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodResizeInProgress) == "" && p.Status.ContainerStatuses[0].Resources.Limits.Memory().String() == "96Mi"
	})
	if got := s.readGroup(group).memory; got != "100663296" || p.Status.ContainerStatuses[0].RestartCount != 0 {
		s.t.Errorf("limit %s, %+v", got, p.Status.ContainerStatuses[0])
	}
}

func resizedByRestart(s *space) {
	s.create("p", resizable+`
  resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}, {resourceName: cpu, restartPolicy: NotRequired}]
`)
	s.ready("p")
	s.resize("p", "500m", "64Mi")
	p := s.until("p", "it has more processor", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].Resources.Limits.Cpu().String() == "500m"
	})
	if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
		s.t.Errorf("%d restarts for the processor", n)
	}
	s.resize("p", "500m", "96Mi")
	p = s.until("p", "it was restarted with more memory", func(p *corev1.Pod) bool {
		c := p.Status.ContainerStatuses[0]
		return c.RestartCount == 1 && c.Ready && c.Resources.Limits.Memory().String() == "96Mi"
	})
	got := s.readGroup(filepath.Join(s.podGroup(p, "guaranteed"), strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")))
	if got.memory != "100663296" {
		s.t.Errorf("got %+v", got)
	}
}

// More than the node has is refused at once; more than others leave waits.
func resizeWaits(s *space) {
	s.create("p", resizable)
	s.create("other", resizable)
	s.ready("p")
	s.ready("other")
	if _, err := s.cluster.kubectl("-n", s.name, "patch", "pod", "p", "--subresource=resize", "-p",
		`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"1000"},"limits":{"cpu":"1000"}}}]}}`); err == nil || !strings.Contains(err.Error(), "node didn't have enough allocatable resources") {
		s.t.Errorf("more than the node has: %v", err)
	}
	n, err := s.client.CoreV1().Nodes().Get(s.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.resize("p", fmt.Sprintf("%dm", n.Status.Allocatable.Cpu().MilliValue()-100), "64Mi")
	p := s.until("p", "the node says that others have it", func(p *corev1.Pod) bool {
		c := conditionOf(p, corev1.PodResizePending)
		return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonDeferred
	})
	s.event("p", "Warning ResizeDeferred")
	if r := p.Status.ContainerStatuses[0].Resources; r.Limits.Cpu().String() != "250m" {
		s.t.Errorf("it has %s", r.Limits.Cpu())
	}
	// Taken back, nothing is pending.
	s.resize("p", "250m", "64Mi")
	s.until("p", "nothing is pending", func(p *corev1.Pod) bool { return condition(p, corev1.PodResizePending) == "" })
}

// The node says the same where nobody refused it before ("Resize CPU and Memory
// Resources assigned to Containers").
func resizeInfeasible(s *space) {
	s.create("p", resizable)
	before := s.ready("p").Status.ContainerStatuses[0]
	s.resize("p", "1000", "64Mi")
	p := s.until("p", "the node says that it never has as much", func(p *corev1.Pod) bool {
		c := conditionOf(p, corev1.PodResizePending)
		return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonInfeasible && strings.HasPrefix(c.Message, "Node didn't have enough capacity: cpu, requested: 1000000, capacity: ")
	})
	if c := p.Status.ContainerStatuses[0]; c.ContainerID != before.ContainerID || c.State.Running == nil || c.Resources.Limits.Cpu().String() != "250m" || c.AllocatedResources.Cpu().String() != "250m" {
		s.t.Errorf("%+v", c)
	}
	s.event("p", "Warning ResizeInfeasible")
	s.resize("p", "300m", "64Mi")
	s.until("p", "it has what it can have", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodResizePending) == "" && p.Status.ContainerStatuses[0].Resources.Limits.Cpu().String() == "300m"
	})
}

// What waited is granted when others go.
func resizeGranted(s *space) {
	s.create("p", resizable)
	s.create("other", resizable)
	before := s.ready("p").Status.ContainerStatuses[0]
	s.ready("other")
	most := resource.NewMilliQuantity(s.node().Status.Allocatable.Cpu().MilliValue()-200, resource.DecimalSI).String()
	s.resize("p", most, "64Mi")
	deferred := func(p *corev1.Pod) bool {
		return conditionOf(p, corev1.PodResizePending).Reason == corev1.PodReasonDeferred
	}
	s.until("p", "the node says that others have it", deferred)
	// It holds no more than it has been granted meanwhile.
	s.resize("other", "300m", "64Mi")
	s.until("other", "it has more", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].Resources.Limits.Cpu().String() == "300m"
	})
	s.until("p", "it waits still", deferred)
	s.kubectl("delete", "pod", "other", "--grace-period=1")
	p := s.until("p", "it has what it waited for", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].Resources.Limits.Cpu().String() == most &&
			condition(p, corev1.PodResizePending) == "" && condition(p, corev1.PodResizeInProgress) == ""
	})
	if c := p.Status.ContainerStatuses[0]; c.ContainerID != before.ContainerID || c.AllocatedResources.Cpu().String() != most {
		s.t.Errorf("%+v", c)
	}
	for _, e := range []string{"Warning ResizeDeferred", "Normal ResizeStarted", "Normal ResizeCompleted"} {
		s.event("p", e)
	}
}

func podResized(s *space) {
	s.create("p", `
resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.ready("p")
	s.kubectl("patch", "pod", "p", "--subresource=resize", "-p", `{"spec":{"resources":{"requests":{"cpu":"300m"},"limits":{"cpu":"400m","memory":"96Mi"}}}}`)
	p := s.until("p", "the pod has more", func(p *corev1.Pod) bool {
		return p.Status.Resources != nil && p.Status.Resources.Limits.Memory().String() == "96Mi"
	})
	if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
		s.t.Errorf("%d restarts", n)
	}
	await(s.t, "the pod's group has more", func() error {
		if got, want := s.readGroup(s.podGroup(p, "burstable")), (groupValues{shares(307), "40000 100000", "100663296"}); got != want {
			return fmt.Errorf("got %+v, want %+v", got, want)
		}
		return nil
	})
}
