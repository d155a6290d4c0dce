package volume

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imageVolume shows the files of an image, read-only. The runtime mounts it;
// here it is only made sure that it is there.
var imageVolume = &plugin{dir: "kubernetes.io~image", setUp: setUpImage, path: func(*v1.Volume) string { return "" }}

func setUpImage(ctx context.Context, m *Manager, p *v1.Pod, v *v1.Volume, _ string) (time.Time, error) {
	name, err := m.PullImage(ctx, p, v.Image.Reference, v.Image.PullPolicy)
	if err != nil {
		return time.Time{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.images[p.UID] == nil {
		m.images[p.UID] = map[string]string{}
	}
	m.images[p.UID][v.Name] = name
	return time.Time{}, nil
}

func (m *Manager) forgetImages(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.images, uid)
}

// imageMount is how the runtime is to mount an image volume.
func (m *Manager) imageMount(p *v1.Pod, v *v1.Volume, to, sub string) (*cri.Mount, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := m.images[p.UID][v.Name]
	if name == "" {
		return nil, fmt.Errorf("image %q of volume %q was not pulled", v.Image.Reference, v.Name)
	}
	return &cri.Mount{
		ContainerPath: to, Readonly: true, ImageSubPath: sub,
		Image: &cri.ImageSpec{Image: name, UserSpecifiedImage: v.Image.Reference},
	}, nil
}
