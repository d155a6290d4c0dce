package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const reservedPages = "/proc/sys/vm/nr_hugepages" // of 2 MiB; the machine's, in all namespaces

// hugePages is what the kernel says of them.
func hugePages(t testing.TB, what string) int {
	t.Helper()
	data, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/" + what)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// hugetlb is the hierarchy that limits huge pages by version 1 of control groups.
// Few hosts mount it, and then it concerns all processes of the host: what would
// measure a container and does not see it mounted fails.
const hugetlb = "/sys/fs/cgroup/hugetlb"

// mountHugetlb gives the machine a folder of hierarchies of its own that has it.
func mountHugetlb(t *testing.T) {
	t.Helper()
	const host, own = "/sys/fs/cgroup", "/tmp/cgroup"
	entries, err := os.ReadDir(host)
	err = errors.Join(err, os.Mkdir(own, 0o755), unix.Mount("tmpfs", own, "tmpfs", 0, ""))
	for _, e := range entries {
		at := filepath.Join(own, e.Name())
		if e.Type() == fs.ModeSymlink { // cpu, of cpu,cpuacct
			to, linkErr := os.Readlink(filepath.Join(host, e.Name()))
			err = errors.Join(err, linkErr, os.Symlink(to, at))
			continue
		}
		err = errors.Join(err, os.Mkdir(at, 0o755), unix.Mount(filepath.Join(host, e.Name()), at, "", unix.MS_BIND, ""))
	}
	at := filepath.Join(own, "hugetlb")
	err = errors.Join(err, os.Mkdir(at, 0o755), unix.Mount("cgroup", at, "cgroup", 0, "hugetlb"), unix.Mount(own, host, "", unix.MS_BIND|unix.MS_REC, ""))
	if err != nil {
		t.Fatal(err)
	}
}

// endHugetlb takes the hierarchy away after whoever mounted it has ended, however that
// was. It goes when it is unmounted while no group is in it; the kernel takes a moment
// for either, and stops that when it is mounted again.
func endHugetlb(t *testing.T) {
	t.Helper()
	at := t.TempDir()
	var last time.Time
	await(t, "nobody has the hierarchy of huge pages", func() error {
		b, err := os.ReadFile("/proc/cgroups")
		if err == nil && strings.Contains(string(b), "\nhugetlb\t0\t") {
			return nil
		}
		if time.Since(last) < time.Second {
			return errors.Join(err, errors.New("it is there"))
		}
		last = time.Now()
		err = errors.Join(err, unix.Mount("cgroup", at, "cgroup", 0, "hugetlb"))
		if _, left := os.Stat(filepath.Join(at, "hansa")); left == nil {
			err = errors.Join(err, removeGroup(filepath.Join(at, "hansa")))
		}
		return errors.Join(err, unix.Unmount(at, 0), errors.New("it was there"))
	})
}

// hugeLimit is how many bytes of huge pages of 2 MiB a control group may use.
func hugeLimit(t *testing.T, group string) string {
	t.Helper()
	if unified() {
		return readWord(t, filepath.Join("/sys/fs/cgroup", group, "hugetlb.2MB.max"))
	}
	return readWord(t, filepath.Join(hugetlb, group, "hugetlb.2MB.limit_in_bytes"))
}

// "Manage HugePages": what is reserved is the node's to give; a pod has a file
// system of them, its groups let it use no more than it asked for, and they come back
// with its end.
func TestHugePages(t *testing.T) {
	_, err := os.Stat(hugetlb)
	lacks := err != nil && !unified()
	if !undisturbing(t) {
		if lacks {
			endHugetlb(t)
		}
		return
	}
	if lacks {
		mountHugetlb(t)
	}
	before := hugePages(t, "nr_hugepages")
	reserve := func(n int) error { return os.WriteFile(reservedPages, []byte(strconv.Itoa(n)), 0o644) }
	t.Cleanup(func() {
		if err := reserve(before); err != nil {
			t.Error(err)
		}
	})
	if err := reserve(before + 4); err != nil {
		t.Fatal(err)
	}
	s := newSpace(t, started(t, newCluster("huge")))
	if q, n := s.node().Status.Capacity["hugepages-2Mi"], s.node().Status.Allocatable["hugepages-2Mi"]; q.Value() != int64(before+4)<<21 || n.Cmp(q) != 0 {
		t.Fatalf("the node has %s of huge pages, %s to give: the machine has %d", q.String(), n.String(), hugePages(t, "nr_hugepages"))
	}
	free := hugePages(t, "free_hugepages")
	s.create("p", `
volumes: [{name: huge, emptyDir: {medium: HugePages}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "fallocate -l 4194304 /huge/f && exec sleep 1000"]
  resources: {limits: {hugepages-2Mi: 4Mi, memory: 20Mi, cpu: 100m}}
  volumeMounts: [{name: huge, mountPath: /huge}]
`)
	p := s.ready("p")
	await(t, "two pages are in use", func() error {
		if now := hugePages(t, "free_hugepages"); now != free-2 {
			return fmt.Errorf("%d of %d are free", now, free)
		}
		return nil
	})
	if got := s.exec("p", "sh", "-c", "grep ' /huge ' /proc/mounts; stat -f -c %S /huge"); !strings.Contains(got, " hugetlbfs ") || !strings.HasSuffix(got, "2097152\n") {
		t.Errorf("its mount: %s", got)
	}
	pod := s.podGroup(p, "guaranteed")
	for _, group := range []string{pod, filepath.Join(pod, strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://"))} {
		if got := hugeLimit(t, group); got != "4194304" {
			t.Errorf("limit of %s: %s", group, got)
		}
	}
	if got := hugeLimit(t, filepath.Join("hansa", s.id(), "pods")); got != fmt.Sprint(int64(before+4)<<21) {
		t.Errorf("limit of all pods: %s", got)
	}
	if out, code, err := s.execIn("p", "main", "fallocate", "-l", "2097152", "/huge/third"); err != nil || code == 0 {
		t.Errorf("a third page: exit code %d, %v: %s", code, err, out)
	}
	s.create("without", sleeper)
	q := s.ready("without")
	pod = s.podGroup(q, "besteffort")
	for _, group := range []string{pod, filepath.Join(pod, strings.TrimPrefix(q.Status.ContainerStatuses[0].ContainerID, "containerd://"))} {
		if got := hugeLimit(t, group); got != "0" {
			t.Errorf("limit of %s, which asks for none: %s", group, got)
		}
	}
	s.kubectl("delete", "pod", "p")
	await(t, "they are free again", func() error {
		if now := hugePages(t, "free_hugepages"); now != free {
			return fmt.Errorf("%d of %d are free", now, free)
		}
		return nil
	})
}
