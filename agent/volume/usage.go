package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "k8s.io/api/core/v1"
)

// EmptyDirUsage is how many bytes of disk each emptyDir of a pod takes, and how many
// inodes they take together.
func (m *Manager) EmptyDirUsage(p *v1.Pod) (bytes map[string]int64, inodes int64, err error) {
	bytes = map[string]int64{}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != v1.StorageMediumDefault {
			continue
		}
		n, entries, err := diskUsage(m.dir(p.UID, emptyDir, v.Name))
		if err != nil {
			return nil, 0, err
		}
		bytes[v.Name] = n
		inodes += int64(entries)
	}
	return bytes, inodes, nil
}

// Counts of volumes, by the kubelet's names of their types: those that pods are to
// have, and those that are made.
func (m *Manager) Counts(pods []*v1.Pod) (wanted, made map[string]int) {
	wanted, made = map[string]int{}, map[string]int{}
	for _, p := range pods {
		for i := range p.Spec.Volumes {
			v := &p.Spec.Volumes[i]
			pl, err := pluginFor(v)
			if err != nil {
				continue // it will not be there
			}
			name := strings.Replace(pl.dir, "~", "/", 1)
			wanted[name]++
			switch {
			case pl == hostPath:
			case pl == imageVolume && m.images.get(p.UID, v.Name) == "":
				continue
			case pl != imageVolume:
				if _, err := os.Stat(m.dir(p.UID, pl, v.Name)); err != nil {
					continue
				}
			}
			made[name]++
		}
	}
	return wanted, made
}

// Used is what a volume takes.
type Used struct {
	Name, Dir     string
	Bytes, Inodes uint64
}

// Usage is what each volume of a pod takes that is in its own directory.
func (m *Manager) Usage(p *v1.Pod) ([]Used, error) {
	var out []Used
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.EmptyDir == nil && v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil {
			continue
		}
		dir, err := m.Path(p, v)
		if err != nil {
			return nil, err
		}
		bytes, inodes, err := diskUsage(dir)
		if err != nil {
			return nil, err
		}
		out = append(out, Used{v.Name, dir, uint64(bytes), inodes})
	}
	return out, nil
}

// diskUsage counts the blocks and inodes of a tree, those of a file with several
// names once. Files that go while it looks count for nothing.
func diskUsage(root string) (sum int64, inodes uint64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
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
		inodes++
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	return sum, inodes, err
}
