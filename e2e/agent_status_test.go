package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var statusRows = []row{
	{"exact phases, conditions and states, of a pod that ends", lifeOfAJob},
	{"exact phases, conditions and states, of a pod that runs", lifeOfAServer},
	{"exit codes", exitCodes},
	{"termination messages", terminationMessages},
	{"readiness gates", readinessGate},
	{"events", someEvents},
	{"heartbeat by lease", heartbeat},
	{"status pushed as it changes", statusPushed},
	{"node status", nodeStatus},
}

func lifeOfAJob(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1"]}
`)
	var phases []string
	p := s.until("p", "it has ended", func(p *corev1.Pod) bool {
		if len(phases) == 0 || phases[len(phases)-1] != string(p.Status.Phase) {
			phases = append(phases, string(p.Status.Phase))
		}
		return p.Status.Phase == corev1.PodSucceeded
	})
	if got := strings.Join(phases, " "); got != "Pending Running Succeeded" {
		s.t.Errorf("phases %s", got)
	}
	s.conditions(p, map[corev1.PodConditionType]string{
		corev1.PodScheduled: "True", corev1.PodInitialized: "True PodCompleted",
		corev1.PodReady: "False PodCompleted", corev1.ContainersReady: "False PodCompleted",
		corev1.PodReadyToStartContainers: "False",
	})
	c := p.Status.ContainerStatuses[0]
	e := c.State.Terminated
	if e == nil || e.Reason != "Completed" || e.ExitCode != 0 || e.ContainerID != c.ContainerID || e.FinishedAt.Sub(e.StartedAt.Time) < time.Second || *c.Started {
		s.t.Errorf("status %+v", c)
	}
	if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "0/1     Completed   0") {
		s.t.Errorf("kubectl get: %s", got)
	}
}

func lifeOfAServer(s *space) {
	s.create("p", `
containers:
- name: main
  image: hansa.local/testimage:1
  readinessProbe: {httpGet: {path: /healthz, port: 8080}, initialDelaySeconds: 1, periodSeconds: 1}
`)
	p := s.until("p", "it runs", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	s.conditions(p, map[corev1.PodConditionType]string{
		corev1.PodScheduled: "True", corev1.PodInitialized: "True", corev1.PodReadyToStartContainers: "True",
		corev1.PodReady: "False ContainersNotReady", corev1.ContainersReady: "False ContainersNotReady",
	})
	p = s.ready("p")
	s.conditions(p, map[corev1.PodConditionType]string{
		corev1.PodScheduled: "True", corev1.PodInitialized: "True", corev1.PodReadyToStartContainers: "True",
		corev1.PodReady: "True", corev1.ContainersReady: "True",
	})
	c, st := p.Status.ContainerStatuses[0], p.Status
	if c.State.Running == nil || c.State.Running.StartedAt.IsZero() || !c.Ready || c.RestartCount != 0 || c.Image != testimage ||
		!strings.HasPrefix(c.ImageID, "hansa.local/testimage@sha256:") && !strings.HasPrefix(c.ImageID, "sha256:") || !strings.HasPrefix(c.ContainerID, "containerd://") {
		s.t.Errorf("container status %+v", c)
	}
	if st.HostIP != nodeIP || !strings.HasPrefix(st.PodIP, "10.42.0.") || len(st.PodIPs) != 1 || len(st.HostIPs) != 1 || st.StartTime.IsZero() ||
		st.QOSClass != corev1.PodQOSBestEffort || p.Spec.NodeName != nodeName || st.ObservedGeneration != p.Generation {
		s.t.Errorf("status %+v", st)
	}
}

// conditions compares status and reason of all conditions that the agent and
// the scheduler set.
func (s *space) conditions(p *corev1.Pod, want map[corev1.PodConditionType]string) {
	s.t.Helper()
	for kind, w := range want {
		c := conditionOf(p, kind)
		if got := strings.TrimSpace(string(c.Status) + " " + c.Reason); got != w {
			s.t.Errorf("condition %s: %s, want %s", kind, got, w)
		}
		if c.LastTransitionTime.IsZero() {
			s.t.Errorf("condition %s has no transition time", kind)
		}
	}
	if len(p.Status.Conditions) != len(want) {
		s.t.Errorf("conditions %+v", p.Status.Conditions)
	}
}

func exitCodes(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: zero, image: hansa.local/busybox:1, command: ["true"]}
- {name: own, image: hansa.local/busybox:1, command: [sh, -c, "exit 42"]}
- {name: signalled, image: hansa.local/busybox:1, command: [sh, -c, "sh -c 'kill -9 $$$$'; exit $?"]}
- {name: missing, image: hansa.local/busybox:1, command: [/none]}
`)
	p := s.finished("p")
	want := map[string]string{"zero": "0 Completed", "own": "42 Error", "signalled": "137 Error", "missing": "128 StartError"}
	for _, c := range p.Status.ContainerStatuses {
		e := c.State.Terminated
		if e == nil || fmt.Sprint(e.ExitCode, " ", e.Reason) != want[c.Name] {
			s.t.Errorf("container %s: %+v, want %s", c.Name, c.State, want[c.Name])
		}
	}
}

func terminationMessages(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: file, image: hansa.local/busybox:1, command: [sh, -c, "echo -n why > /dev/termination-log; exit 1"]}
- {name: other, image: hansa.local/busybox:1, command: [sh, -c, "echo -n here > /tmp/reason"], terminationMessagePath: /tmp/reason}
- {name: log, image: hansa.local/busybox:1, command: [sh, -c, "echo last words; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}
- {name: fine, image: hansa.local/busybox:1, command: [sh, -c, "echo nothing to say"], terminationMessagePolicy: FallbackToLogsOnError}
`)
	p := s.finished("p")
	want := map[string]string{"file": "why", "other": "here", "log": "last words\n", "fine": ""}
	for _, c := range p.Status.ContainerStatuses {
		if e := c.State.Terminated; e == nil || e.Message != want[c.Name] {
			s.t.Errorf("container %s: %+v, want message %q", c.Name, c.State, want[c.Name])
		}
	}
}

func readinessGate(s *space) {
	s.create("p", `
readinessGates: [{conditionType: example.com/open}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	p := s.until("p", "only the gate keeps it from being ready", func(p *corev1.Pod) bool {
		return condition(p, corev1.ContainersReady) == corev1.ConditionTrue
	})
	if c := conditionOf(p, corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" {
		s.t.Errorf("condition %+v", c)
	}
	s.kubectl("patch", "pod", "p", "--subresource=status", "-p", `{"status":{"conditions":[{"type":"example.com/open","status":"True"}]}}`)
	s.ready("p")
}

func someEvents(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.ready("p")
	for _, want := range []string{
		"Normal Scheduled: Successfully assigned " + s.name + "/p to " + nodeName,
		`Normal Pulled: Container image "hansa.local/busybox:1" already present on machine`,
		"Normal Created: ", "Normal Started: ",
	} {
		s.event("p", want)
	}
	list, err := s.client.CoreV1().Events(s.name).List(s.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=p,reason=Started"})
	if err != nil || len(list.Items) != 1 {
		s.t.Fatalf("events: %v, %v", list.Items, err)
	}
	e := list.Items[0]
	if e.Source.Component != "kubelet" || e.Source.Host != nodeName || e.InvolvedObject.FieldPath != "spec.containers{main}" || e.Count != 1 {
		s.t.Errorf("event %+v", e)
	}
	if got := s.kubectl("describe", "pod", "p"); !strings.Contains(got, "Started") {
		s.t.Errorf("kubectl describe: %s", got)
	}
	s.kubectl("delete", "pod", "p", "--wait=false")
	s.event("p", "Normal Killing: Stopping container main")
}

func heartbeat(s *space) {
	leases := s.client.CoordinationV1().Leases("kube-node-lease")
	first, err := leases.Get(s.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if *first.Spec.HolderIdentity != nodeName || *first.Spec.LeaseDurationSeconds != 40 || len(first.OwnerReferences) != 1 || first.OwnerReferences[0].Kind != "Node" {
		s.t.Errorf("lease %+v", first)
	}
	await(s.t, "it is renewed", func() error {
		next, err := leases.Get(s.t.Context(), nodeName, metav1.GetOptions{})
		if err == nil && !next.Spec.RenewTime.After(first.Spec.RenewTime.Time) {
			err = fmt.Errorf("it says %s", next.Spec.RenewTime)
		}
		return err
	})
}

// A container that lives for a moment is seen running all the same: what
// happens is told when it happens, not when somebody looks.
func statusPushed(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "sleep 0.4"]}
`)
	var seen []string
	s.until("p", "it has ended", func(p *corev1.Pod) bool {
		state := "none"
		if len(p.Status.ContainerStatuses) > 0 {
			switch c := p.Status.ContainerStatuses[0].State; {
			case c.Running != nil:
				state = "running"
			case c.Terminated != nil:
				state = "terminated"
			case c.Waiting != nil:
				state = c.Waiting.Reason
			}
		}
		if !slices.Contains(seen, state) {
			seen = append(seen, state)
		}
		return state == "terminated"
	})
	if !slices.Contains(seen, "running") {
		s.t.Errorf("seen: %s", seen)
	}
}

// What a node says of itself is written when it changes, and others write to it
// too: a control plane that has not heard of the node for a while, above all.
// So each of it is waited for.
func nodeStatus(s *space) {
	await(s.t, "the node says how it is", func() error {
		n, err := s.client.CoreV1().Nodes().Get(s.t.Context(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return errors.Join(nodeConditions(n), nodeFacts(n))
	})
}

func nodeConditions(n *corev1.Node) error {
	got := map[corev1.NodeConditionType]string{}
	for _, c := range n.Status.Conditions {
		got[c.Type] = string(c.Status) + " " + c.Reason
	}
	var errs []error
	for kind, want := range map[corev1.NodeConditionType]string{
		corev1.NodeReady: "True KubeletReady", corev1.NodeMemoryPressure: "False KubeletHasSufficientMemory",
		corev1.NodeDiskPressure: "False KubeletHasNoDiskPressure", corev1.NodePIDPressure: "False KubeletHasSufficientPID",
	} {
		if got[kind] != want {
			errs = append(errs, fmt.Errorf("condition %s: %q, want %q", kind, got[kind], want))
		}
	}
	return errors.Join(errs...)
}

func nodeFacts(n *corev1.Node) error {
	info, st := n.Status.NodeInfo, &n.Status
	for label, want := range map[string]string{
		"kubernetes.io/hostname": nodeName, "kubernetes.io/os": "linux", "kubernetes.io/arch": info.Architecture,
	} {
		if n.Labels[label] != want {
			return fmt.Errorf("label %s=%q, want %q", label, n.Labels[label], want)
		}
	}
	if info.KernelVersion == "" || info.OSImage == "" || info.BootID == "" || info.OperatingSystem != "linux" ||
		!strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://") || !strings.HasPrefix(info.KubeletVersion, "v1.37.") || n.Spec.PodCIDR != "10.42.0.0/24" {
		return fmt.Errorf("node info %+v, range %s", info, n.Spec.PodCIDR)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods} {
		capacity, allocatable := st.Capacity[name], st.Allocatable[name]
		if allocatable.IsZero() || allocatable.Cmp(capacity) > 0 {
			return fmt.Errorf("%s: %s of %s can be given to pods", name, &allocatable, &capacity)
		}
	}
	if st.Capacity.Pods().Value() != 110 || st.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
		return fmt.Errorf("capacity %v, port %d", st.Capacity, st.DaemonEndpoints.KubeletEndpoint.Port)
	}
	if f := st.Features; f == nil || f.SupplementalGroupsPolicy == nil || !*f.SupplementalGroupsPolicy {
		return fmt.Errorf("features %+v", f)
	}
	if len(st.RuntimeHandlers) == 0 {
		return errors.New("no runtime handler")
	}
	if !slices.ContainsFunc(st.Images, func(i corev1.ContainerImage) bool { return slices.Contains(i.Names, testimage) }) {
		return fmt.Errorf("images %v", st.Images)
	}
	return nil
}
