package volume

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerMounts are the volumes of a container as the runtime is to mount
// them. expand puts the container's variables into a subPathExpr.
func (m *Manager) ContainerMounts(p *v1.Pod, c *v1.Container, expand func(string) (string, error)) ([]*cri.Mount, error) {
	var out []*cri.Mount
	for i := range c.VolumeMounts {
		mount := &c.VolumeMounts[i]
		v := find(p, mount.Name)
		if v == nil {
			return nil, fmt.Errorf("volume %q of volumeMount %q not found", mount.Name, mount.MountPath)
		}
		path, err := m.Path(p, v)
		if err != nil {
			return nil, err
		}
		sub, err := subPath(mount, expand)
		if err != nil {
			return nil, err
		}
		to := mount.MountPath
		if !filepath.IsAbs(to) {
			to = "/" + to
		}
		if v.Image != nil {
			im, err := m.imageMount(p, v, to, sub)
			if err != nil {
				return nil, err
			}
			out = append(out, im)
			continue
		}
		if sub != "" {
			if path, err = m.bindSubPath(p.UID, path, v.Name, c.Name, i, sub); err != nil {
				return nil, err
			}
		} else if v.HostPath != nil {
			if err := ensureHostPath(path); err != nil {
				return nil, err
			}
		}
		out = append(out, &cri.Mount{
			ContainerPath:     to,
			HostPath:          path,
			Readonly:          mount.ReadOnly || ofAPI(v),
			RecursiveReadOnly: recursive(mount),
			Propagation:       propagation(mount.MountPropagation),
		})
	}
	return out, nil
}

// ensureHostPath makes the directory of an unchecked hostPath that is missing.
func ensureHostPath(path string) error {
	if _, err := os.Stat(path); err == nil || !os.IsNotExist(err) {
		return nil // what is there is for the runtime to judge
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("make hostPath %s: %w", path, err)
	}
	return nil
}

func find(p *v1.Pod, name string) *v1.Volume {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return &p.Spec.Volumes[i]
		}
	}
	return nil
}

// ofAPI tells whether a volume's files come from the API: containers cannot
// write to those (Kubernetes documentation, "Volumes").
func ofAPI(v *v1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
}

// recursive: IfPossible is possible, for the runtime that is carried supports
// recursive read-only mounts on every kernel that we run on.
func recursive(mount *v1.VolumeMount) bool {
	return mount.ReadOnly && mount.RecursiveReadOnly != nil && *mount.RecursiveReadOnly != v1.RecursiveReadOnlyDisabled
}

func propagation(mode *v1.MountPropagationMode) cri.MountPropagation {
	if mode == nil {
		return cri.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *mode {
	case v1.MountPropagationHostToContainer:
		return cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case v1.MountPropagationBidirectional:
		return cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
	default:
		return cri.MountPropagation_PROPAGATION_PRIVATE
	}
}

// maxEnvFile bounds a file that variables come from.
const maxEnvFile = 64 << 10

// ReadFile reads a file of one of the pod's volumes. No link leads out of the
// volume.
func (m *Manager) ReadFile(p *v1.Pod, volume, path string) ([]byte, error) {
	v := find(p, volume)
	if v == nil {
		return nil, fmt.Errorf("volume %q not found", volume)
	}
	base, err := m.Path(p, v)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxEnvFile {
		return nil, fmt.Errorf("file %s is larger than %d bytes", path, maxEnvFile)
	}
	return data, nil
}
