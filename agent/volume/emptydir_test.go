package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestEmptyDirInMemory(t *testing.T) {
	m, _ := newManager(t)
	limit := resource.MustParse("1Mi")
	p := podWith(v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory, SizeLimit: &limit}}})
	mount(t, m, p)
	path, _ := m.Path(p, &p.Spec.Volumes[0])
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil || int64(st.Blocks)*st.Bsize != 1<<20 {
		t.Errorf("size is %d: %v", int64(st.Blocks)*st.Bsize, err)
	}
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mount(t, m, p) // as after a restart of the agent
	if _, err := os.Stat(filepath.Join(path, "f")); err != nil {
		t.Errorf("content is lost when mounted again: %v", err)
	}
	if err := m.Remove(p.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.PodDir(p.UID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

// What emptyDirs take of the disk: bytes of each, inodes of all, and nothing of those
// in memory.
func TestEmptyDirUsage(t *testing.T) {
	m, _ := newManager(t)
	p := podWith(
		v1.Volume{Name: "a", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{Name: "b", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		v1.Volume{Name: "m", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
	)
	mount(t, m, p)
	for i := range p.Spec.Volumes {
		dir, err := m.Path(p, &p.Spec.Volumes[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"one", "two"} {
			if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 8192), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	bytes, inodes, err := m.EmptyDirUsage(p)
	if err != nil || inodes != 6 || len(bytes) != 2 || bytes["a"] < 2*8192 || bytes["a"] != bytes["b"] {
		t.Errorf("%v bytes, %d inodes, %v", bytes, inodes, err)
	}
}

// "Manage HugePages": an emptyDir of the page size that its medium names, or of the
// one that the pod requests; two of them and no name is refused, and names both ways
// out.
func TestEmptyDirInHugePages(t *testing.T) {
	m, _ := newManager(t)
	for _, c := range []struct {
		medium   v1.StorageMedium
		requests []v1.ResourceName
		page     int64
		refused  string
	}{
		{"HugePages", []v1.ResourceName{"hugepages-2Mi"}, 2 << 20, ""},
		{"HugePages-2Mi", []v1.ResourceName{"hugepages-2Mi", "hugepages-1Gi"}, 2 << 20, ""},
		{"HugePages-1Gi", []v1.ResourceName{"hugepages-2Mi", "hugepages-1Gi"}, 1 << 30, ""},
		{"HugePages", []v1.ResourceName{"hugepages-2Mi", "hugepages-1Gi"}, 0, "does not say which of the pod's page sizes to use"},
		{"HugePages-many", nil, 0, "page size of medium"},
	} {
		p := podWith(v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: c.medium}}})
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{}
		for _, name := range c.requests {
			p.Spec.Containers[0].Resources.Requests[name] = resource.MustParse("2Gi")
		}
		for range 2 { // again, as after a restart of the agent
			_, err := m.Mount(t.Context(), p)
			if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s with %v: %v", c.medium, c.requests, err)
			}
		}
		path, err := m.Path(p, &p.Spec.Volumes[0])
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Statfs_t
		if c.page != 0 && (unix.Statfs(path, &st) != nil || st.Type != unix.HUGETLBFS_MAGIC || st.Bsize != c.page) {
			t.Errorf("%s with %v: file system %x with blocks of %d", c.medium, c.requests, st.Type, st.Bsize)
		}
		if err := m.Remove(p.UID); err != nil {
			t.Fatal(err)
		}
	}
}
