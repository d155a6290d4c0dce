package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"k8s.io/kubelet/pkg/types"

	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/cri"
)

// Images is access to the images of a node that runs on this machine. Close it
// after use.
type Images struct{ client *cri.Client }

// Image is one name of an image.
type Image struct{ Name, ID, Size string }

// OpenImages finds the container runtime of a data directory.
func OpenImages(c Config) (*Images, error) {
	endpoint := containerdConfig(c, "").Endpoint()
	switch err := tryEndpoint(endpoint); {
	case errors.Is(err, os.ErrPermission):
		return nil, errors.New("images belong to root: use sudo")
	case err != nil:
		return nil, fmt.Errorf("nothing runs from data directory %s: start it with hansa up", c.DataDir)
	}
	client, err := cri.Dial(endpoint)
	if err != nil {
		return nil, err
	}
	return &Images{client}, nil
}

// tryEndpoint connects to a runtime's socket once. A client waits for one that
// does not answer, which is right only for one that was there.
func tryEndpoint(endpoint string) error {
	conn, err := net.Dial("unix", strings.TrimPrefix(endpoint, "unix://"))
	if err != nil {
		return err
	}
	return conn.Close()
}

// Close ends the connection.
func (i *Images) Close() error { return i.client.Close() }

// Import reads an archive and answers with the names that it gave.
func (i *Images) Import(ctx context.Context, archive io.Reader) ([]string, error) {
	names, err := i.client.ImportImage(ctx, archive)
	if err != nil && slices.ContainsFunc(notArchives, func(s string) bool { return strings.Contains(err.Error(), s) }) {
		return nil, errors.New("this is no image, or only a part of one: what docker save writes is expected, or a tar of an OCI layout")
	}
	return names, err
}

// notArchives is how containerd says that it cannot read an archive.
var notArchives = []string{"unrecognized image format", "archive/tar:", "unexpected EOF"}

// Remove removes a name of an image, and the image with its last one. The last
// one stays while a container is made of the image.
func (i *Images) Remove(ctx context.Context, name string) error {
	image, err := i.client.Image(ctx, name)
	if errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("there is no image %s; hansa image list shows those there are", name)
	}
	if err != nil {
		return err
	}
	if len(image.RepoTags) < 2 || name == image.Id {
		containers, err := i.client.Containers(ctx, nil)
		if err != nil {
			return err
		}
		for _, c := range containers {
			if c.ImageId == image.Id || c.ImageRef == image.Id || c.GetImage().GetImage() == image.Id {
				return fmt.Errorf("image %s is in use by pod %s/%s: delete the pod first", name, c.Labels[types.KubernetesPodNamespaceLabel], c.Labels[types.KubernetesPodNameLabel])
			}
		}
	}
	return i.client.RemoveName(ctx, name)
}

// List is every name of every image, sorted.
func (i *Images) List(ctx context.Context) ([]Image, error) {
	list, err := i.client.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, image := range list {
		names := image.RepoTags
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		id := strings.TrimPrefix(image.Id, "sha256:")
		for _, n := range names {
			out = append(out, Image{Name: n, ID: id[:min(12, len(id))], Size: Size(image.Size)})
		}
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return out, nil
}

// Size is a number of bytes as people read it.
func Size(n uint64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1fGB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fMB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1fkB", float64(n)/1e3)
}
