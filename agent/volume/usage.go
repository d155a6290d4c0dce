package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"
)

// EmptyDirUsage is how many bytes of disk each emptyDir of a pod takes.
func (m *Manager) EmptyDirUsage(p *v1.Pod) (map[string]int64, error) {
	out := map[string]int64{}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != v1.StorageMediumDefault {
			continue
		}
		n, err := diskUsage(m.dir(p.UID, emptyDir, v.Name))
		if err != nil {
			return nil, err
		}
		out[v.Name] = n
	}
	return out, nil
}

// diskUsage counts the blocks of a tree, those of a file with several names
// once. Files that go while it looks count for nothing.
func diskUsage(root string) (int64, error) {
	var sum int64
	seen := map[uint64]bool{}
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || seen[st.Ino] {
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			seen[st.Ino] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return sum, err
}
