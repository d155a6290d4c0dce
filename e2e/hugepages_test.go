package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
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

// "Manage HugePages": what is reserved is the node's to give; a pod has a file
// system of them, and they come back with its end.
func TestHugePages(t *testing.T) {
	if !undisturbing(t) {
		return
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
	s.ready("p")
	await(t, "two pages are in use", func() error {
		if now := hugePages(t, "free_hugepages"); now != free-2 {
			return fmt.Errorf("%d of %d are free", now, free)
		}
		return nil
	})
	if got := s.exec("p", "sh", "-c", "grep ' /huge ' /proc/mounts; stat -f -c %S /huge"); !strings.Contains(got, " hugetlbfs ") || !strings.HasSuffix(got, "2097152\n") {
		t.Errorf("its mount: %s", got)
	}
	s.kubectl("delete", "pod", "p")
	await(t, "they are free again", func() error {
		if now := hugePages(t, "free_hugepages"); now != free {
			return fmt.Errorf("%d of %d are free", now, free)
		}
		return nil
	})
}
