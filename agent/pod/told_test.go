package pod_test

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/pod"
)

// An end that a status told of stays as it was told, whatever a runtime that has
// died meanwhile says of it to another agent.
func TestEndsStayAsTold(t *testing.T) {
	now := time.Unix(1000, 0)
	end := func(id string, code int32, reason string) v1.ContainerState {
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "containerd://" + id, ExitCode: code, Reason: reason}}
	}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(now)}}
	unknown := pod.Run{ID: "one", State: cri.ContainerState_CONTAINER_EXITED, Created: now, Finished: now, ExitCode: 255, Reason: "Unknown"}
	created := pod.Run{ID: "one", State: cri.ContainerState_CONTAINER_CREATED, Created: now}
	for _, c := range []struct {
		name  string
		told  v1.ContainerStatus
		run   pod.Run
		late  bool // the runtime shows it only after the first look
		code  int32
		cause string
	}{
		{"nothing was told", v1.ContainerStatus{}, unknown, false, 255, "Unknown"},
		{"ended", v1.ContainerStatus{ContainerID: "containerd://one", State: end("one", 5, "Error")}, unknown, false, 5, "Error"},
		{"ended, and was to be restarted", v1.ContainerStatus{ContainerID: "containerd://one", LastTerminationState: end("one", 5, "Error")}, unknown, false, 5, "Error"},
		{"another ended", v1.ContainerStatus{ContainerID: "containerd://one", LastTerminationState: end("none", 5, "Error")}, unknown, false, 255, "Unknown"},
		{"ran, and was lost for a while", v1.ContainerStatus{
			ContainerID: "containerd://one", State: running,
		}, unknown, true, 137, "ContainerStatusUnknown"},
		{"ran, and the disk has lost it", v1.ContainerStatus{ContainerID: "containerd://one", State: running}, created, false, 137, "ContainerStatusUnknown"},
	} {
		c.told.Name = "main"
		p := &v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"},
			Spec:       v1.PodSpec{RestartPolicy: v1.RestartPolicyNever, Containers: []v1.Container{{Name: "main"}}},
			Status:     v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{c.told}},
		}
		s := pod.New(p, nil, now)
		if !c.late {
			s.ObserveRun("main", c.run)
		}
		s.Adopt()
		if c.late {
			s.ObserveRun("main", c.run)
		}
		got := s.Status(now).ContainerStatuses[0]
		if e := got.State.Terminated; e == nil || e.ExitCode != c.code || e.Reason != c.cause || got.LastTerminationState.Terminated != nil && c.late {
			t.Errorf("%s: status %+v", c.name, got)
		}
	}
}
