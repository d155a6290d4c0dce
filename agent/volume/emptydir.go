package volume

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
)

// emptyDir lives as long as its pod: on the node's disk, in memory or in huge
// pages.
var emptyDir = &plugin{dir: "kubernetes.io~empty-dir", setUp: setUpEmptyDir}

func setUpEmptyDir(_ context.Context, m *Manager, p *v1.Pod, v *v1.Volume, dir string) (time.Time, error) {
	none := time.Time{}
	if _, err := os.Stat(dir); err == nil && v.EmptyDir.Medium == v1.StorageMediumDefault {
		return none, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return none, err
	}
	switch medium := v.EmptyDir.Medium; {
	case medium == v1.StorageMediumDefault:
	case medium == v1.StorageMediumMemory:
		if mounted, err := isMountPoint(dir); err != nil || mounted {
			return none, err
		}
		if err := m.tmpfs(dir, memorySize(p, v.EmptyDir.SizeLimit, m.Allocatable())); err != nil {
			return none, err
		}
	case strings.HasPrefix(string(medium), string(v1.StorageMediumHugePages)):
		if mounted, err := isMountPoint(dir); err != nil || mounted {
			return none, err
		}
		if err := m.hugetlbfs(dir, p, medium); err != nil {
			return none, err
		}
	default:
		return none, fmt.Errorf("unknown storage medium %q", medium)
	}
	// Everybody in the pod may write; the mode is set apart from the umask.
	if err := os.Chmod(dir, 0o777); err != nil {
		return none, err
	}
	return none, own(dir, ownerOf(p, nil), false)
}

// memorySize is how much an emptyDir in memory may hold: the least of its
// limit, the pod's memory limit and what the node has.
func memorySize(p *v1.Pod, limit *resource.Quantity, allocatable v1.ResourceList) int64 {
	size := allocatable.Memory().Value()
	bounded := true
	for i := range p.Spec.Containers {
		bounded = bounded && !p.Spec.Containers[i].Resources.Limits.Memory().IsZero()
	}
	limits := helpers.PodLimits(p, helpers.PodResourcesOptions{})
	if pod := limits.Memory().Value(); bounded && pod > 0 && (size == 0 || pod < size) {
		size = pod
	}
	if limit != nil && limit.Value() > 0 && (size == 0 || limit.Value() < size) {
		size = limit.Value()
	}
	return size
}

// hugetlbfs mounts huge pages of the size that the medium names, or of the one
// size that the pod asks for.
func (m *Manager) hugetlbfs(dir string, p *v1.Pod, medium v1.StorageMedium) error {
	size := strings.TrimPrefix(string(medium), string(v1.StorageMediumHugePagesPrefix))
	if medium == v1.StorageMediumHugePages {
		size = ""
		for name := range helpers.PodRequests(p, helpers.PodResourcesOptions{}) {
			if s, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
				if size != "" {
					return fmt.Errorf("medium HugePages does not say which of the pod's page sizes to use; name one, such as HugePages-%s", s)
				}
				size = s
			}
		}
	}
	q, err := resource.ParseQuantity(size)
	if err != nil {
		return fmt.Errorf("page size of medium %q: %w", medium, err)
	}
	if err := m.record(); err != nil {
		return err
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", 0, fmt.Sprintf("pagesize=%d", q.Value())); err != nil {
		return fmt.Errorf("mount huge pages of %s: %w", size, err)
	}
	return nil
}
