package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// A disk that can break: an ext4 in a file.
type disk struct{ device, folder string }

// newDisk makes a disk of so many megabytes and mounts it. It goes with the test.
func newDisk(t *testing.T, folder string, megabytes int64) *disk {
	t.Helper()
	file := folder + ".img"
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(megabytes<<20), f.Close(), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	d := &disk{folder: folder}
	if err := command("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", file); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatalf("make a device of %s: %v", file, err)
	}
	d.device = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		unmount(t, folder)
		if err := command("losetup", "--detach", d.device); err != nil { // once nobody uses it
			t.Error(err)
		}
	})
	d.mount(t)
	return d
}

func (d *disk) mount(t *testing.T) {
	t.Helper()
	if err := unix.Mount(d.device, d.folder, "ext4", 0, "errors=remount-ro"); err != nil {
		t.Fatal(err)
	}
}

// breakDown has the kernel find an error on the disk, after which it writes nothing
// to it any more. What was not synced until now is lost.
func (d *disk) breakDown(t *testing.T) {
	t.Helper()
	file := filepath.Join("/sys/fs/ext4", filepath.Base(d.device), "trigger_fs_error")
	if err := os.WriteFile(file, []byte("as if it had broken"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.folder, "probe"), 0o700); !errors.Is(err, unix.EROFS) {
		t.Fatalf("the disk takes changes: %v", err)
	}
}

// loseDisk is loseMachine for one whose data are on a disk, which is repaired then.
func (c *cluster) loseDisk(t *testing.T, d *disk) {
	t.Helper()
	c.loseMachine(t)
	await(t, "nobody uses the disk", func() error { return unix.Unmount(d.folder, 0) })
	if err := command("sh", "-c", "fsck.ext4 -fy "+d.device+" || test $? -eq 1"); err != nil { // 1: repaired
		t.Fatal(err)
	}
	d.mount(t)
}

// A disk breaks, and the kernel writes no more to it: the node says so, in its
// condition and an event, and what runs goes on. hansa does not start from it, and
// says why. Once it is repaired and the machine started again, all is there, images
// of just before included.
func TestBrokenDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	c := newCluster("broken")
	d := newDisk(t, c.dir, 2000)
	own, etcd := c.dir+"-etcd", filepath.Join(c.dir, "etcd")
	if err := errors.Join(os.Mkdir(own, 0o700), os.Mkdir(etcd, 0o700), unix.Mount(own, etcd, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.up(), c.importImages()); err != nil {
		t.Fatal(err)
	}
	s := newSpace(t, c)
	s.create("p", sleeper)
	s.ready("p")
	before := s.histories([]string{"p"})
	d.breakDown(t)
	var folders []string
	for _, name := range []string{"pods", "logs", "agent", "containerd"} {
		folders = append(folders, filepath.Join(c.dir, name))
	}
	text := fmt.Sprintf("no pod can be started: %s cannot be written to: read-only file system", strings.Join(folders, ", "))
	c.nodeSays(t, corev1.NodeReady, corev1.ConditionFalse, text, "NodeNotReady")
	c.nodeEvent(t, "FilesystemIsReadOnly", text)
	s.sameProcesses(before)
	if after := s.histories([]string{"p"}); !maps.Equal(before, after) {
		t.Errorf("after:\n%v\nbefore:\n%v", after, before)
	}
	if err := c.stop(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.up(); err == nil || !strings.Contains(err.Error(), "hansa: lock data directory "+c.dir+": ") || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("hansa up: %v", err)
	}
	s.sameProcesses(before)

	c.loseDisk(t, d)
	if err := errors.Join(unix.Mount(own, etcd, "", unix.MS_BIND, ""), c.up()); err != nil {
		t.Fatal(err)
	}
	s.until("p", "it runs again", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	c.nodeSays(t, corev1.NodeReady, corev1.ConditionTrue, "", "NodeReady")
}
