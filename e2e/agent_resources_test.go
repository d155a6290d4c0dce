package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

var resourceRows = []row{
	{"resource limits as cgroups, of a container", containerLimits},
	{"resource limits as cgroups, of a pod", podLimits},
	{"resource limits, memory exceeded", outOfMemory},
	{"resource limits, changed in place", resized},
	{"qualities of service", qualities},
}

// Values of control groups in the words of version 1; limit files of version 2
// are translated.
type groupValues struct{ shares, quota, memory string }

// readGroup reads a control group of the host by its path below the mount.
func (s *space) readGroup(group string) groupValues {
	s.t.Helper()
	read := func(path ...string) string {
		b, err := os.ReadFile(filepath.Join(append([]string{"/sys/fs/cgroup"}, path...)...))
		if err != nil {
			s.t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if !unified() {
		return groupValues{
			shares: read("cpu", group, "cpu.shares"),
			quota:  read("cpu", group, "cpu.cfs_quota_us") + " " + read("cpu", group, "cpu.cfs_period_us"),
			memory: read("memory", group, "memory.limit_in_bytes"),
		}
	}
	return groupValues{shares: "weight " + read(group, "cpu.weight"), quota: read(group, "cpu.max"), memory: read(group, "memory.max")}
}

func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// shares is what readGroup says of so many cpu shares.
func shares(n int) string {
	if !unified() {
		return fmt.Sprint(n)
	}
	return fmt.Sprint("weight ", sharesToWeight(n))
}

// sharesToWeight is the conversion that OCI runtimes use since runc 1.3.2: a
// curve through (2, 1), (1024, 100) and (262144, 10000).
func sharesToWeight(n int) int {
	l := math.Log2(float64(n))
	return int(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// The curve, also where the kernel has version 1: its three points and two
// between them.
func TestSharesToWeight(t *testing.T) {
	for n, want := range map[int]int{2: 1, 256: 35, 512: 59, 1024: 100, 262144: 10000} {
		if got := sharesToWeight(n); got != want {
			t.Errorf("%d shares weigh %d, want %d", n, got, want)
		}
	}
}

func (s *space) podGroup(p *corev1.Pod, qos string) string {
	return filepath.Join("hansa", s.id(), "pods", qos, string(p.UID))
}

func containerLimits(s *space) {
	s.create("p", `
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}
`)
	p := s.ready("p")
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	got := s.readGroup(filepath.Join(s.podGroup(p, "burstable"), id))
	if want := (groupValues{shares(256), "50000 100000", "67108864"}); got != want {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
	r := p.Status.ContainerStatuses[0].Resources
	if r == nil || r.Limits.Cpu().String() != "500m" || p.Status.ContainerStatuses[0].AllocatedResources.Memory().String() != "32Mi" {
		s.t.Errorf("resources in the status: %+v", p.Status.ContainerStatuses[0])
	}
}

func podLimits(s *space) {
	s.create("p", `
containers:
- {name: a, image: hansa.local/busybox:1, command: [sleep, "1000"], resources: {limits: {cpu: 300m, memory: 64Mi}}}
- {name: b, image: hansa.local/busybox:1, command: [sleep, "1000"], resources: {limits: {cpu: 200m, memory: 32Mi}}}
`)
	p := s.ready("p")
	if p.Status.QOSClass != corev1.PodQOSGuaranteed {
		s.t.Errorf("quality of service %s", p.Status.QOSClass)
	}
	got := s.readGroup(s.podGroup(p, "guaranteed"))
	if want := (groupValues{shares(512), "50000 100000", "100663296"}); got != want {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
	s.kubectl("delete", "pod", "p")
	await(s.t, "the pod's group is removed", func() error {
		left, err := filepath.Glob("/sys/fs/cgroup/*/" + s.podGroup(p, "guaranteed"))
		if len(left) > 0 {
			err = fmt.Errorf("there is %s", left)
		}
		return err
	})
}

func outOfMemory(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/testimage:1, args: [alloc, "128"], resources: {limits: {memory: 32Mi}}}
`)
	p := s.finished("p")
	e := p.Status.ContainerStatuses[0].State.Terminated
	if p.Status.Phase != corev1.PodFailed || e == nil || e.Reason != "OOMKilled" || e.ExitCode != 137 {
		s.t.Errorf("phase %s, state %+v", p.Status.Phase, p.Status.ContainerStatuses[0].State)
	}
	if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "OOMKilled") {
		s.t.Errorf("kubectl get: %s", got)
	}
}

func resized(s *space) {
	s.create("p", `
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 250m, memory: 32Mi}}
`)
	before := s.ready("p").Status.ContainerStatuses[0]
	s.kubectl("patch", "pod", "p", "--subresource=resize", "-p",
		`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"500m","memory":"64Mi"},"limits":{"cpu":"500m","memory":"64Mi"}}}]}}`)
	p := s.until("p", "the status has the new limits", func(p *corev1.Pod) bool {
		r := p.Status.ContainerStatuses[0].Resources
		return r != nil && r.Limits.Cpu().String() == "500m" && r.Limits.Memory().String() == "64Mi"
	})
	after := p.Status.ContainerStatuses[0]
	if after.ContainerID != before.ContainerID || after.RestartCount != 0 {
		s.t.Errorf("the container was restarted: %+v", after)
	}
	got := s.readGroup(filepath.Join(s.podGroup(p, "guaranteed"), strings.TrimPrefix(after.ContainerID, "containerd://")))
	if want := (groupValues{shares(512), "50000 100000", "67108864"}); got != want {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
}

// Scores are those of the documentation, "Node-pressure Eviction": 1000 for
// best effort, -997 for guaranteed, between them what the request leaves. A
// node that may not lower scores, as one in a container, keeps its own.
func qualities(s *space) {
	guaranteed := "-997"
	if !hasCapability(unix.CAP_SYS_RESOURCE) {
		own, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			s.t.Fatal(err)
		}
		guaranteed = strings.TrimSpace(string(own))
	}
	for name, want := range map[string]struct {
		resources, score string
		qos              corev1.PodQOSClass
	}{
		"best":  {"{}", "1000", corev1.PodQOSBestEffort},
		"burst": {"{requests: {memory: 1Mi}}", "999", corev1.PodQOSBurstable},
		"whole": {"{limits: {cpu: 10m, memory: 16Mi}}", guaranteed, corev1.PodQOSGuaranteed},
	} {
		s.create(name, fmt.Sprintf(`
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /proc/self/oom_score_adj], resources: %s}
`, want.resources))
		p := s.finished(name)
		if got := strings.TrimSpace(s.logs(name, "main")); got != want.score || p.Status.QOSClass != want.qos {
			s.t.Errorf("%s: score %s, want %s; quality %s", name, got, want.score, p.Status.QOSClass)
		}
	}
}

// hasCapability says whether this process has a capability.
func hasCapability(number int) bool {
	var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[number/32].Effective&(1<<(number%32)) != 0
}
