package kinds

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func podTable() *api.Table {
	spec, status := corev1.PodSpec{}.SwaggerDoc(), corev1.PodStatus{}.SwaggerDoc()
	return &api.Table{
		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
			column("Status", "string", "The aggregate status of the containers in this pod."),
			column("Restarts", "string", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
			ageColumn(),
			wideColumn("IP", "string", status["podIP"]),
			wideColumn("Node", "string", spec["nodeName"]),
			wideColumn("Nominated Node", "string", status["nominatedNodeName"]),
			wideColumn("Readiness Gates", "string", spec["readinessGates"]),
		},
		Row: cells(podCells),
		Conditions: func(obj api.Object) []metav1.TableRowCondition {
			switch phase := obj.(*corev1.Pod).Status.Phase; phase {
			case corev1.PodSucceeded:
				return completed(phase, "The pod has completed successfully.")
			case corev1.PodFailed:
				return completed(phase, "The pod failed.")
			}
			return nil
		},
	}
}

func completed(phase corev1.PodPhase, message string) []metav1.TableRowCondition {
	return []metav1.TableRowCondition{{Type: metav1.RowCompleted, Status: metav1.ConditionTrue, Reason: string(phase), Message: message}}
}

func podCells(p *corev1.Pod, now time.Time) []any {
	sum := summarize(p)
	restarts := strconv.Itoa(sum.restarts.count)
	if sum.restarts.count != 0 && !sum.restarts.last.IsZero() {
		restarts += fmt.Sprintf(" (%s ago)", age(sum.restarts.last, now))
	}
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return []any{
		p.Name, fmt.Sprintf("%d/%d", sum.ready, sum.total), sum.state, restarts, age(p.CreationTimestamp, now),
		orDefault(ip, unset), orDefault(p.Spec.NodeName, unset), orDefault(p.Status.NominatedNodeName, unset), readinessGates(p),
	}
}

// podSummary is what one line can say about a pod's containers.
type podSummary struct {
	state        string
	ready, total int
	restarts     restartCount
}

// restartCount counts restarts and remembers when the last one began.
type restartCount struct {
	count int
	last  metav1.Time
}

func (r *restartCount) add(s *corev1.ContainerStatus) {
	r.count += int(s.RestartCount)
	if t := s.LastTerminationState.Terminated; t != nil && r.last.Before(&t.FinishedAt) {
		r.last = t.FinishedAt
	}
}

func summarize(p *corev1.Pod) podSummary {
	sum := podSummary{state: orDefault(p.Status.Reason, string(p.Status.Phase)), total: len(p.Spec.Containers)}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			sum.state = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; ptr.Deref(c.RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			sum.total++
		}
	}
	initializing, sidecarRestarts := sum.addInit(p, sidecars)
	if !initializing || hasPodCondition(p, corev1.PodInitialized) {
		sum.restarts = sidecarRestarts
		sum.addContainers(p)
	}
	terminal := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	switch {
	case p.DeletionTimestamp == nil:
	case p.Status.Reason == "NodeLost": // its node cannot be asked
		sum.state = "Unknown"
	case !terminal:
		sum.state = "Terminating"
	}
	return sum
}

// addInit looks at the init containers up to the first that is not done, whose
// state becomes the pod's.
func (sum *podSummary) addInit(p *corev1.Pod, sidecars map[string]bool) (initializing bool, sidecarRestarts restartCount) {
	for i := range p.Status.InitContainerStatuses {
		s := &p.Status.InitContainerStatuses[i]
		sum.restarts.add(s)
		if sidecars[s.Name] {
			sidecarRestarts.add(s)
		}
		terminated, waiting := s.State.Terminated, s.State.Waiting
		switch {
		case terminated != nil && terminated.ExitCode == 0:
			continue
		case sidecars[s.Name] && isTrue(s.Started):
			if s.Ready {
				sum.ready++
			}
			continue
		case terminated != nil:
			sum.state = "Init:" + exitReason(terminated)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			sum.state = "Init:" + waiting.Reason
		default:
			sum.state = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true, sidecarRestarts
	}
	return false, sidecarRestarts
}

// addContainers lets the first container with something to say decide.
func (sum *podSummary) addContainers(p *corev1.Pod) {
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		s := &p.Status.ContainerStatuses[i]
		sum.restarts.add(s)
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			sum.state = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			sum.state = exitReason(s.State.Terminated)
		case s.Ready && s.State.Running != nil:
			running = true
			sum.ready++
		}
	}
	if sum.state == "Completed" && running {
		sum.state = "NotReady"
		if hasPodCondition(p, corev1.PodReady) {
			sum.state = "Running"
		}
	}
}

func exitReason(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func hasPodCondition(p *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return unset
	}
	open := 0
	for _, gate := range p.Spec.ReadinessGates {
		if hasPodCondition(p, gate.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}
