package e2e

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/agent/shutdown/logindtest"
)

// "Graceful node shutdown", by pod priority: logind, which is found by the
// standard variable, is delayed until the pods have ended in order, lowest
// priority first; the node is not ready meanwhile and takes no pods, until the
// shutdown is cancelled. With shutdownGracePeriod there are two priorities.
func TestGracefulNodeShutdown(t *testing.T) {
	if !alone(t) {
		return
	}
	logind := logindtest.New(t, time.Minute)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", logind.Address)
	const evictions = "evictionHard: {memory.available: 50Mi}\n"
	file := writeFile(t, "/tmp/kubelet.yaml", kubeletHead+evictions+`
shutdownGracePeriodByPodPriority:
- {priority: 0, shutdownGracePeriodSeconds: 20}
- {priority: 1000, shutdownGracePeriodSeconds: 20}
- {priority: 2000000000, shutdownGracePeriodSeconds: 20}
`)
	s := newSpace(t, started(t, newCluster("shutdown", "--kubelet-config", file)))
	lock := logind.Lock()
	if _, err := s.client.SchedulingV1().PriorityClasses().Create(t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const spec = `
restartPolicy: Always
priorityClassName: %q
tolerations: [{operator: Exists}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done"]}
`
	names := []string{"low", "high", "critical"}
	for name, class := range map[string]string{"low": "", "high": "high", "critical": "system-node-critical"} {
		s.create(name, fmt.Sprintf(spec, class))
	}
	for _, name := range names {
		s.ready(name)
	}
	endInOrder := func(names ...string) {
		t.Helper()
		logind.Prepare(true)
		if b, err := io.ReadAll(lock); len(b) > 0 || err != nil {
			t.Errorf("the inhibitor says %q, %v", b, err)
		} // it was closed, so the pods have ended
		var last time.Time
		for _, name := range names {
			p := s.finished(name)
			if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Terminated" || p.Status.Message != "Pod was terminated in response to imminent node shutdown." || condition(p, corev1.DisruptionTarget) != corev1.ConditionTrue {
				t.Errorf("%s: %+v", name, p.Status)
			}
			// Each takes two seconds to end, and begins to when the one before has.
			at := p.Status.ContainerStatuses[0].State.Terminated.FinishedAt.Time
			if !at.After(last) {
				t.Errorf("%s ended at %s, the one before at %s", name, at, last)
			}
			last = at
		}
	}
	endInOrder(names...)
	nodeReady := func(status corev1.ConditionStatus, reason, message string) {
		t.Helper()
		await(t, message, func() error {
			for _, c := range s.node().Status.Conditions {
				if c.Type == corev1.NodeReady && (c.Status != status || c.Reason != reason || c.Message != message) {
					return fmt.Errorf("Ready is %+v", c)
				}
			}
			return nil
		})
	}
	nodeReady(corev1.ConditionFalse, "KubeletNotReady", "node is shutting down")
	s.create("late", fmt.Sprintf(spec, ""))
	if p := s.finished("late"); p.Status.Phase != corev1.PodFailed || p.Status.Reason != "NodeShutdown" {
		t.Errorf("late: %+v", p.Status)
	}
	s.nodeEvent(t, "NodeShutdown", "Shutdown manager detected shutdown event")
	logind.Prepare(false)
	logind.Lock() // taken again
	nodeReady(corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status")
	s.create("next", fmt.Sprintf(spec, ""))
	s.ready("next")

	if err := s.cluster.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, kubeletHead+evictions+"shutdownGracePeriod: 40s\nshutdownGracePeriodCriticalPods: 20s\n")
	if err := s.cluster.up(); err != nil {
		t.Fatal(err)
	}
	lock = logind.Lock()
	s.create("last", fmt.Sprintf(spec, "system-node-critical"))
	s.ready("last")
	endInOrder("next", "last")
}
