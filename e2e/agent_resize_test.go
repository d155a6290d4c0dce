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
	s.event("full", `Warning ResizeError: Pod resize error: {"containers":[{"name":"main","resources":{"limits":{"cpu":"50m","memory":"16Mi"},"requests":{"cpu":"50m","memory":"16Mi"}}}],"generation":2,"error":"cannot decrease memory limits: `)
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

// resizeInit asks for the same requests and limits of an init container.
func (s *space) resizeInit(pod, container, cpu, memory string) *corev1.Pod {
	s.t.Helper()
	s.kubectl("patch", "pod", pod, "--subresource=resize", "-p", fmt.Sprintf(
		`{"spec":{"initContainers":[{"name":%[3]q,"resources":{"requests":{"cpu":%[1]q,"memory":%[2]q},"limits":{"cpu":%[1]q,"memory":%[2]q}}}]}}`, cpu, memory, container))
	p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// sized says that a container was given so much and has it.
func sized(c corev1.ContainerStatus, cpu, memory string) bool {
	r, given := c.Resources, c.AllocatedResources
	return r != nil && r.Limits.Cpu().String() == cpu && r.Limits.Memory().String() == memory && r.Requests.Cpu().String() == cpu &&
		r.Requests.Memory().String() == memory && given.Cpu().String() == cpu && given.Memory().String() == memory
}

// group is the control group of a container of a guaranteed pod.
func (s *space) group(p *corev1.Pod, c corev1.ContainerStatus) groupValues {
	s.t.Helper()
	return s.readGroup(filepath.Join(s.podGroup(p, "guaranteed"), strings.TrimPrefix(c.ContainerID, "containerd://")))
}

// A sidecar is resized like a regular container: in place, or restarted alone where
// its policy says so.
func sidecarResized(s *space) {
	s.create("p", `
initContainers:
- name: side
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  restartPolicy: Always
  resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}
  resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
`+resizable[1:])
	before := s.ready("p")
	side, main := before.Status.InitContainerStatuses[0], before.Status.ContainerStatuses[0]
	s.resizeInit("p", "side", "200m", "32Mi")
	p := s.until("p", "the sidecar has more processor", func(p *corev1.Pod) bool {
		return sized(p.Status.InitContainerStatuses[0], "200m", "32Mi") && condition(p, corev1.PodResizeInProgress) == ""
	})
	if c := p.Status.InitContainerStatuses[0]; c.ContainerID != side.ContainerID || c.RestartCount != 0 {
		s.t.Errorf("it was restarted: %+v", c)
	}
	if got, want := s.group(p, p.Status.InitContainerStatuses[0]), (groupValues{shares(204), "20000 100000", "33554432"}); got != want {
		s.t.Errorf("its group: %+v, want %+v", got, want)
	}
	if got, want := s.readGroup(s.podGroup(p, "guaranteed")), (groupValues{shares(460), "45000 100000", "100663296"}); got != want {
		s.t.Errorf("the pod's group: %+v, want %+v", got, want)
	}
	s.event("p", "Normal ResizeCompleted")

	s.resizeInit("p", "side", "200m", "48Mi")
	p = s.until("p", "the sidecar was restarted with more memory", func(p *corev1.Pod) bool {
		c := p.Status.InitContainerStatuses[0]
		return c.RestartCount == 1 && c.Ready && sized(c, "200m", "48Mi") && condition(p, corev1.PodReady) == corev1.ConditionTrue
	})
	if got, want := s.group(p, p.Status.InitContainerStatuses[0]), (groupValues{shares(204), "20000 100000", "50331648"}); got != want {
		s.t.Errorf("its group: %+v, want %+v", got, want)
	}
	if c := p.Status.ContainerStatuses[0]; c.ContainerID != main.ContainerID || c.RestartCount != 0 {
		s.t.Errorf("the container beside it: %+v", c)
	}
}

// Since Kubernetes 1.36 init containers that end are resized, too, in place alone:
// that which runs, that which is still to run, and, on paper, that which has ended.
func initResized(s *space) {
	const init = `{name: %s, image: hansa.local/busybox:1, command: [sh, -c, "until [ -e /work/%s ]; do sleep 0.1; done"], volumeMounts: [{name: work, mountPath: /work}],
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}%s}`
	const volumes = "volumes: [{name: work, emptyDir: {}}]\ninitContainers:\n- "
	bad := podOf(s.t, "bad", "spec:\n  "+strings.ReplaceAll(volumes+fmt.Sprintf(init, "first", "first", ", resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]")+resizable, "\n", "\n  "))
	if _, err := s.client.CoreV1().Pods(s.name).Create(s.t.Context(), bad, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "must not be set to 'RestartContainer' for non-sidecar initContainers") {
		s.t.Errorf("an init container that is to be restarted: %v", err)
	}
	s.create("p", volumes+fmt.Sprintf(init, "first", "first", "")+"\n- "+fmt.Sprintf(init, "second", "second", "")+resizable)
	runs := func(i int) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			return len(p.Status.InitContainerStatuses) == 2 && p.Status.InitContainerStatuses[i].State.Running != nil
		}
	}
	first := s.until("p", "its first container runs", runs(0)).Status.InitContainerStatuses[0]
	s.resizeInit("p", "first", "300m", "96Mi")
	p := s.until("p", "its first container has more", func(p *corev1.Pod) bool {
		return sized(p.Status.InitContainerStatuses[0], "300m", "96Mi") && condition(p, corev1.PodResizeInProgress) == ""
	})
	if c := p.Status.InitContainerStatuses[0]; c.ContainerID != first.ContainerID || c.RestartCount != 0 || c.State.Running == nil {
		s.t.Errorf("it was restarted: %+v", c)
	}
	want := groupValues{shares(307), "30000 100000", "100663296"}
	if got := s.group(p, p.Status.InitContainerStatuses[0]); got != want {
		s.t.Errorf("its group: %+v, want %+v", got, want)
	}
	if got := s.readGroup(s.podGroup(p, "guaranteed")); got != want { // the most that it needs at any time
		s.t.Errorf("the pod's group: %+v, want %+v", got, want)
	}
	s.event("p", "Normal ResizeCompleted")

	s.resizeInit("p", "second", "200m", "48Mi")
	s.until("p", "its second container is to have more", func(p *corev1.Pod) bool { return sized(p.Status.InitContainerStatuses[1], "200m", "48Mi") })
	end := func(container string) {
		s.t.Helper()
		if out, code, err := s.execIn("p", container, "touch", "/work/"+container); err != nil || code != 0 {
			s.t.Fatalf("exec in %s: exit code %d, %v: %s", container, code, err, out)
		}
	}
	end("first")
	p = s.until("p", "its second container runs", runs(1))
	if got, want := s.group(p, p.Status.InitContainerStatuses[1]), (groupValues{shares(204), "20000 100000", "50331648"}); got != want {
		s.t.Errorf("the second one's group: %+v, want %+v", got, want)
	}
	end("second")
	main := s.ready("p").Status.ContainerStatuses[0]

	s.resizeInit("p", "first", "400m", "128Mi")
	p = s.until("p", "more is written down for what has ended", func(p *corev1.Pod) bool {
		return sized(p.Status.InitContainerStatuses[0], "400m", "128Mi") && condition(p, corev1.PodResizeInProgress) == ""
	})
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.RestartCount != 0 || c.Name == "main" && c.ContainerID != main.ContainerID {
			s.t.Errorf("%+v", c)
		}
	}
}

// The condition PodResizeInProgress is there from the grant until a container has what
// it was granted: here it has to be restarted, and its preStop hook waits for a word.
// It is restarted although it ends well, which by its pod's policy would be its end.
func resizeInProgress(s *space) {
	s.create("p", `
restartPolicy: OnFailure
terminationGracePeriodSeconds: 600
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
  resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 250m, memory: 64Mi}}
  lifecycle: {preStop: {exec: {command: [sh, -c, "until [ -e /tmp/go ]; do sleep 0.1; done"]}}}
  resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
`)
	before := s.ready("p").Status.ContainerStatuses[0]
	asked := s.resize("p", "250m", "96Mi")
	p := s.until("p", "its resize is in progress", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodResizeInProgress) == corev1.ConditionTrue
	})
	c, cond := p.Status.ContainerStatuses[0], conditionOf(p, corev1.PodResizeInProgress)
	if cond.Reason != "" || cond.Message != "" || cond.ObservedGeneration != asked.Generation || cond.LastTransitionTime.IsZero() {
		s.t.Errorf("%+v of generation %d", cond, asked.Generation)
	}
	if c.ContainerID != before.ContainerID || c.State.Running == nil || c.Resources.Limits.Memory().String() != "64Mi" || c.AllocatedResources.Memory().String() != "96Mi" {
		s.t.Errorf("in between: %+v", c)
	}
	s.event("p", "Normal ResizeStarted")
	s.exec("p", "touch", "/tmp/go")
	p = s.until("p", "it was restarted, and nothing is in progress", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodResizeInProgress) == "" && condition(p, corev1.PodReady) == corev1.ConditionTrue &&
			p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if c := p.Status.ContainerStatuses[0]; !sized(c, "250m", "96Mi") || s.group(p, c).memory != "100663296" {
		s.t.Errorf("after it: %+v, %+v", c, s.group(p, c))
	}
	if e := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; e == nil || e.ExitCode != 0 {
		s.t.Errorf("its end: %+v", e)
	}
	s.event("p", "Normal ResizeCompleted")
	s.exec("p", "touch", "/tmp/go") // so that it ends at once
}
