package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// nodeSays waits for a condition of the node, and an event about the change.
func (c *cluster) nodeSays(t testing.TB, kind corev1.NodeConditionType, status corev1.ConditionStatus, message, event string) {
	t.Helper()
	await(t, fmt.Sprintf("the node says %s=%s", kind, status), func() error {
		n, err := c.client.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == kind })
		if i < 0 || n.Status.Conditions[i].Status != status || !strings.Contains(n.Status.Conditions[i].Message, message) {
			return fmt.Errorf("it says %+v", n.Status.Conditions)
		}
		return nil
	})
	c.nodeEvent(t, event, "")
}

// nodeEvent waits for an event of the node whose message has the text.
func (c *cluster) nodeEvent(t testing.TB, reason, text string) {
	t.Helper()
	await(t, fmt.Sprintf("an event %s: %s", reason, text), func() error {
		list, err := c.client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Node,reason=" + reason})
		if err == nil && !slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, text) }) {
			err = fmt.Errorf("there are %+v", list.Items)
		}
		return err
	})
}

// groupProcesses are the processes in the cluster's control groups of pods.
func (c *cluster) groupProcesses() []int {
	found := map[int]bool{}
	for _, pattern := range []string{"/sys/fs/cgroup/hansa/", "/sys/fs/cgroup/*/hansa/"} {
		roots, err := filepath.Glob(pattern + c.id() + "/pods")
		if err != nil {
			continue
		}
		for _, root := range roots {
			_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
					return nil // it may go while we look
				}
				b, _ := os.ReadFile(path)
				for _, word := range strings.Fields(string(b)) {
					if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
						found[pid] = true
					}
				}
				return nil
			})
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// loseMachine is what a power failure leaves: files, and nothing that runs or is
// mounted.
func (c *cluster) loseMachine(t *testing.T) {
	t.Helper()
	if err := c.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "everything has ended", func() error {
		left := slices.Concat(c.processesOf("containerd"), c.processesOf("containerd-shim-runc-v2"), c.groupProcesses())
		for _, pid := range left {
			_ = killHard(pid) // it may have ended
		}
		if len(left) > 0 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range slices.Backward(strings.Split(strings.TrimSpace(string(b)), "\n")) {
		if point := strings.Fields(line)[4]; strings.HasPrefix(point, c.dir+"/") || strings.HasPrefix(point, "/run/hansa/") {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Fatalf("unmount %s: %v", point, err)
			}
		}
	}
	if err := errors.Join(removeGroups(c.id()), os.RemoveAll("/run/hansa")); err != nil {
		t.Fatal(err)
	}
}

// The machine loses power and comes back: what was to run runs again, counted
// as one restart, what had ended has ended as it had.
func TestMachineRestarts(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("machine"))
	s := newSpace(t, c)
	s.create("always", `
volumes: [{name: work, emptyDir: {}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo run >> /work/runs; cat /work/runs; exec sleep 1000"], volumeMounts: [{name: work, mountPath: /work}]}
`)
	s.create("never", "restartPolicy: Never"+sleeper)
	s.output("failed", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo before; exit 9"]}
`, 9)
	s.create("counted", `
restartPolicy: Always
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "test -e /work/seen && exec sleep 1000; touch /work/seen; exit 3"], volumeMounts: [{name: work, mountPath: /work}]}
volumes: [{name: work, emptyDir: {}}]
`)
	s.ready("always")
	s.ready("never")
	s.until("counted", "it was restarted", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	c.loseMachine(t)
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	for name, restarts := range map[string]int32{"always": 1, "counted": 2} {
		p := s.until(name, "it runs again", func(p *corev1.Pod) bool {
			c := p.Status.ContainerStatuses[0]
			return c.Ready && c.RestartCount == restarts
		})
		if e := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; e == nil || e.ExitCode == 0 {
			t.Errorf("%s: its last end is %+v", name, p.Status.ContainerStatuses[0].LastTerminationState)
		}
	}
	if got := s.logs("always", "main"); got != "run\nrun\n" {
		t.Errorf("its files were lost: %q", got)
	}
	if p := s.finished("never"); p.Status.Phase != corev1.PodFailed || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("a pod that is not restarted: %s, %+v", p.Status.Phase, p.Status.ContainerStatuses[0])
	}
	if p := s.finished("failed"); p.Status.ContainerStatuses[0].State.Terminated.ExitCode != 9 || s.logs("failed", "") != "before\n" {
		t.Errorf("a pod that had ended: %+v", p.Status.ContainerStatuses[0])
	}
}

// containerd stands still: the node says so after half a minute, in a condition and
// events, containers go on, and after a minute there is another one.
func TestContainerdHangs(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("hung"))
	s := newSpace(t, c)
	s.create("p", sleeper)
	s.ready("p")
	before := s.histories([]string{"p"})
	hung := c.processesOf("containerd")[0]
	if err := unix.Kill(hung, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.nodeSays(t, corev1.NodeReady, corev1.ConditionFalse, "container runtime is down: ", "NodeNotReady")
	s.sameProcesses(before)
	c.nodeEvent(t, "ContainerRuntimeHung", "has not answered for 1m0s")
	c.nodeEvent(t, "ContainerRuntimeDied", "")
	c.nodeEvent(t, "ContainerRuntimeStarted", "The container runtime serves again after ")
	await(t, "another containerd runs", func() error {
		if now := c.processesOf("containerd"); len(now) != 1 || now[0] == hung {
			return fmt.Errorf("there are %v", now)
		}
		return nil
	})
	c.nodeSays(t, corev1.NodeReady, corev1.ConditionTrue, "", "NodeReady")
	s.create("q", sleeper)
	s.ready("q")
	if after := s.histories([]string{"p"}); !maps.Equal(before, after) {
		t.Errorf("after:\n%v\nbefore:\n%v", after, before)
	}
}

// A disk that cannot be written to any more: the node is not ready and says
// why, what runs goes on, and all is well once the disk is.
func TestReadOnlyDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("readonly"))
	s := newSpace(t, c)
	s.create("p", sleeper)
	s.ready("p")
	before := s.histories([]string{"p"})
	dir := filepath.Join(c.dir, "pods")
	if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""), unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() error {
		if restored {
			return nil
		}
		restored = true
		return unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT, "")
	}
	t.Cleanup(func() {
		if err := errors.Join(restore(), unix.Unmount(dir, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	c.nodeSays(t, corev1.NodeReady, corev1.ConditionFalse, dir+" cannot be written to: read-only file system", "NodeNotReady")
	c.nodeEvent(t, "FilesystemIsReadOnly", "no pod can be started")
	s.sameProcesses(before)
	s.create("q", "nodeName: "+nodeName+sleeper)
	s.event("q", "Warning FailedToMakePodDataDirectories: error making pod data directories: ")
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	c.nodeSays(t, corev1.NodeReady, corev1.ConditionTrue, "", "NodeReady")
	s.ready("q")
	if after := s.histories([]string{"p"}); !maps.Equal(before, after) {
		t.Errorf("after:\n%v\nbefore:\n%v", after, before)
	}
}

// measured waits until the node knows that a pod has so many bytes on the disk.
func (s *space) measured(pod string, bytes uint64) {
	s.t.Helper()
	await(s.t, "the node has measured pod "+pod, func() error {
		out, err := s.cluster.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/stats/summary")
		if err != nil {
			return err
		}
		var sum statsv1alpha1.Summary
		if err := json.Unmarshal([]byte(out), &sum); err != nil {
			return err
		}
		for _, p := range sum.Pods {
			for _, c := range p.Containers {
				if p.PodRef.Name == pod && c.Rootfs != nil && c.Rootfs.UsedBytes != nil && *c.Rootfs.UsedBytes >= bytes {
					return nil
				}
			}
		}
		return errors.New("it has not")
	})
}

// onTmpfs gives the cluster's data a file system of its own, with such options.
func (c *cluster) onTmpfs(t *testing.T, options string) {
	t.Helper()
	if err := errors.Join(os.Mkdir(c.dir, 0o700), unix.Mount("tmpfs", c.dir, "tmpfs", 0, options)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, c.dir) })
}

// unmount takes away what is mounted last in a folder, if something is.
func unmount(t *testing.T, folder string) {
	t.Helper()
	if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		t.Errorf("unmount %s: %v", folder, err)
	}
}

// fillUp writes to a file until there is no more left on its file system than that.
func fillUp(t *testing.T, ballast string, left uint64) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(ballast), &st); err != nil {
		t.Fatal(err)
	}
	size := int64(st.Bavail*uint64(st.Bsize)) - int64(left)
	f, err := os.OpenFile(ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for zero := make([]byte, 1<<20); size > 0; size -= int64(len(zero)) {
		if _, err := f.Write(zero[:min(int64(len(zero)), size)]); err != nil {
			return // full is full
		}
	}
}

// A disk that fills up: the node says so in a condition and an event, the logs
// of pods that are gone make room first, then the pod goes that uses most, and
// it says when it is over. When there is no room at all, nothing that runs is
// lost.
//
//lint:long one disk, which fills up once
func TestFullDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	c := newCluster("full", "--eviction-pressure-transition-period=5s", "--minimum-image-ttl-duration=1s")
	c.onTmpfs(t, "size=1500m")
	if err := errors.Join(c.up(), c.importImages()); err != nil {
		t.Fatal(err)
	}
	s := newSpace(t, c)
	s.create("gone", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "head -c 1000000 /dev/zero | tr '\\0' x | fold"]}
`)
	s.finished("gone")
	s.kubectl("delete", "pod", "gone")
	if got := s.lastLog("gone"); len(got) < 1_000_000 {
		t.Errorf("its log has %d bytes", len(got))
	}
	unused := s.publishLayer("unused", "unused")
	s.create("once", runs(unused, "Always", ""))
	s.finished("once")
	s.kubectl("delete", "pod", "once")
	ballast := filepath.Join(c.dir, "ballast")
	fill := func(left uint64) { fillUp(t, ballast, left) }
	fill(100 << 20)
	c.nodeSays(t, corev1.NodeDiskPressure, corev1.ConditionTrue, "", "NodeHasDiskPressure")
	await(t, "the logs of pods that are gone make room", func() error {
		if _, err := s.hansaLogs("gone"); err == nil {
			return errors.New("they are there")
		}
		return nil
	})
	await(t, "images that nobody uses make room, imported ones do not", func() error {
		out, err := c.hansa("image", "list", "--data-dir", c.dir)
		if err == nil && (strings.Contains(out, "unused") || !strings.Contains(out, "hansa.local/busybox")) {
			err = errors.New(out)
		}
		return err
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	c.nodeSays(t, corev1.NodeDiskPressure, corev1.ConditionFalse, "", "NodeHasNoDiskPressure")
	s.create("p", sleeper)
	s.ready("p")
	s.create("big", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "dd if=/dev/zero of=/file bs=1M count=200; exec sleep 1000"]}
`)
	s.ready("big")
	s.measured("big", 200<<20)
	fill(100 << 20)
	gone := s.finished("big")
	if !strings.HasPrefix(gone.Status.Message, "The node was low on resource: ephemeral-storage. Threshold quantity: ") || gone.Status.Reason != "Evicted" ||
		!strings.Contains(gone.Status.Message, ", request is 0, has larger consumption of ephemeral-storage. ") {
		t.Errorf("reason %s: %q", gone.Status.Reason, gone.Status.Message)
	}
	// Its going is enough: the other one, which is there still, stays.
	c.nodeSays(t, corev1.NodeDiskPressure, corev1.ConditionFalse, "", "NodeHasNoDiskPressure")
	s.ready("p")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := s.histories([]string{"p"})
	fill(0)
	s.sameProcesses(before)
	var out, errOut bytes.Buffer
	for i := range 20 { // refused or not: nobody hangs, and what is acknowledged stays
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := c.pipe(ctx, nil, &out, &errOut, "kubectl", "--data-dir", c.dir, "-n", s.name, "create", "configmap", fmt.Sprint("c", i), "--from-literal=a="+strings.Repeat("x", 1000)); err == nil {
			t.Logf("configmap %d was written", i)
		}
		cancel()
	}
	acknowledged := strings.Count(out.String(), "created")
	s.sameProcesses(before)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-c.ended:
		t.Logf("hansa ended, for it could not write: %v", err)
		c.process = nil
		if err := c.up(); err != nil {
			t.Fatal(err)
		}
	default:
	}
	list, err := c.client.CoreV1().ConfigMaps(s.name).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) < acknowledged {
		t.Errorf("%d of %d objects are there: %v", len(list.Items), acknowledged, err)
	}
	if after := s.histories([]string{"p"}); !maps.Equal(before, after) {
		t.Errorf("after:\n%v\nbefore:\n%v", after, before)
	}
	s.create("q", sleeper)
	s.ready("q")
}
