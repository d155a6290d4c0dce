package volume

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imageVolume shows the files of an image, read-only. The runtime mounts it for
// each container; its image is pulled with the container's own.
var imageVolume = &plugin{dir: "kubernetes.io~image", setUp: setUpImage, path: func(*v1.Volume) string { return "" }}

func setUpImage(context.Context, *Manager, *v1.Pod, *v1.Volume, string) (time.Time, error) {
	return time.Time{}, nil
}

// PullImages makes sure that the images are there of the volumes that a container
// mounts. With an error comes the reference of the image that is not.
func (m *Manager) PullImages(ctx context.Context, p *v1.Pod, c *v1.Container) (missing string, err error) {
	for i := range c.VolumeMounts {
		v := find(p, c.VolumeMounts[i].Name)
		if v == nil || v.Image == nil {
			continue
		}
		name, err := m.PullImage(ctx, p, v.Image.Reference, v.Image.PullPolicy)
		if err != nil {
			return v.Image.Reference, err
		}
		m.images.put(p.UID, v.Name, name)
	}
	return "", nil
}

// imageMount is how the runtime is to mount an image volume.
func (m *Manager) imageMount(p *v1.Pod, v *v1.Volume, to, sub string) (*cri.Mount, error) {
	name := m.images.get(p.UID, v.Name)
	if name == "" {
		return nil, fmt.Errorf("image %q of volume %q was not pulled", v.Image.Reference, v.Name)
	}
	return &cri.Mount{
		ContainerPath: to, Readonly: true, ImageSubPath: sub,
		Image: &cri.ImageSpec{Image: name, UserSpecifiedImage: v.Image.Reference},
	}, nil
}
