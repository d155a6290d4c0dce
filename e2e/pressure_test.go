package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Of the node that is short of processes and inodes: what it may be short of is less
// than others take meanwhile.
const (
	spareProcesses = 2000
	spareInodes    = 20000
)

// A node that is short of processes at once, and of inodes for a while.
func TestNodePressure(t *testing.T) {
	if !alone(t) {
		return
	}
	file := writeFile(t, "/tmp/kubelet.yaml", kubeletHead+fmt.Sprintf(`
evictionHard: {pid.available: "%d"}
evictionSoft: {nodefs.inodesFree: "%d"}
evictionSoftGracePeriod: {nodefs.inodesFree: 3s}
evictionMaxPodGracePeriod: 2
evictionPressureTransitionPeriod: 1s
`, processesLeft(t)-spareProcesses, spareInodes))
	c := newCluster("pressure", "--kubelet-config", file)
	c.onTmpfs(t, fmt.Sprintf("size=2g,nr_inodes=%d", 3*spareInodes))
	if err := errors.Join(c.up(), c.importImages()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []row{
		{"eviction for processes, condition and taint", processPressure},
		{"eviction for inodes, after the grace period of a soft threshold", inodePressure},
	} {
		t.Run(r.noun, func(t *testing.T) { r.check(newSpace(t, c)) })
	}
}

// processesLeft is how many more the kernel would make.
func processesLeft(t testing.TB) int {
	t.Helper()
	_, last, _ := strings.Cut(readWord(t, "/proc/loadavg"), "/")
	are, err := strconv.Atoi(strings.Fields(last)[0])
	if err != nil {
		t.Fatal(err)
	}
	return mostProcesses(t) - are
}

// mostProcesses is how many there may be: the lesser of the kernel's two limits.
func mostProcesses(t testing.TB) int {
	t.Helper()
	ids, err1 := strconv.Atoi(readWord(t, "/proc/sys/kernel/pid_max"))
	threads, err2 := strconv.Atoi(readWord(t, "/proc/sys/kernel/threads-max"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return min(ids, threads)
}

// "Node-pressure Eviction": of processes nothing is requested, so the pod goes that
// has most of them; the other one stays.
func processPressure(s *space) {
	s.create("modest", sleeper)
	s.ready("modest")
	s.create("hog", strings.Replace(sleeper, `[sleep, "1000"]`,
		fmt.Sprintf(`[sh, -c, "i=0; while [ $i -lt %d ]; do sleep 1000 & i=$((i+1)); done; wait"]`, spareProcesses+1000), 1))
	s.pressed("hog", corev1.NodePIDPressure)
	s.evicted("hog", "The node was low on resource: pids. Threshold quantity: ")
	s.relieved(corev1.NodePIDPressure, corev1.TaintNodePIDPressure)
	s.undisturbed("modest")
}

// A soft threshold: the condition at once, the eviction after the grace period, and
// time for the pod to end, up to evictionMaxPodGracePeriod.
func inodePressure(s *space) {
	s.create("modest", sleeper)
	s.ready("modest")
	s.create("hog", fmt.Sprintf(`
terminationGracePeriodSeconds: 600
volumes: [{name: work, emptyDir: {}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "seq %d | (cd /work && xargs touch); trap : TERM; while :; do sleep 1; done"], volumeMounts: [{name: work, mountPath: /work}]}
`, 2*spareInodes+spareInodes/2))
	s.pressed("hog", corev1.NodeDiskPressure)
	p := s.evicted("hog", fmt.Sprintf("The node was low on resource: inodes. Threshold quantity: %dk, available: ", spareInodes/1000))
	if e := p.Status.ContainerStatuses[0].State.Terminated; e == nil || e.ExitCode != 137 {
		s.t.Errorf("it was not killed after its time: %+v", p.Status.ContainerStatuses[0].State)
	}
	s.relieved(corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure)
	s.undisturbed("modest")
}

// pressed waits until the node says what it is short of.
func (s *space) pressed(pod string, kind corev1.NodeConditionType) {
	s.t.Helper()
	s.until(pod, "the node says "+string(kind), func(*corev1.Pod) bool {
		return slices.ContainsFunc(s.node().Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == kind && c.Status == corev1.ConditionTrue
		})
	})
}

// evicted waits for a pod's eviction, with a message that begins so.
func (s *space) evicted(pod, message string) *corev1.Pod {
	s.t.Helper()
	p := s.finished(pod)
	if p.Status.Reason != "Evicted" || !strings.HasPrefix(p.Status.Message, message) || condition(p, corev1.DisruptionTarget) != corev1.ConditionTrue {
		s.t.Errorf("%s: %s", p.Status.Reason, p.Status.Message)
	}
	return p
}

// relieved waits until the node is short of something no more.
func (s *space) relieved(kind corev1.NodeConditionType, taint string) {
	s.t.Helper()
	await(s.t, "the node says that it has enough again", func() error {
		n := s.node()
		for _, c := range n.Status.Conditions {
			if c.Type == kind && c.Status != corev1.ConditionFalse {
				return errors.New(c.Message)
			}
		}
		for _, t := range n.Spec.Taints {
			if t.Key == taint {
				return errors.New(t.ToString())
			}
		}
		return nil
	})
}

// undisturbed says that a pod runs as it began.
func (s *space) undisturbed(pod string) {
	s.t.Helper()
	if p := s.ready(pod); p.Status.ContainerStatuses[0].RestartCount != 0 {
		s.t.Errorf("pod %s: %+v", pod, p.Status)
	}
}
