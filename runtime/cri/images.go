package cri

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"slices"
	"sort"
	"strings"
	"time"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	streamapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime"
)

// namespace is where containerd's CRI plugin keeps its images and containers.
const namespace = "k8s.io"

// inNamespace makes a context for calls of containerd's own API about them.
func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// Labels on imported images. The first makes the CRI plugin show the image, the
// second keeps it from image garbage collection: nobody could pull it again.
// The third marks the images of one import, so that their names can be told.
const (
	labelManaged = "io.cri-containerd.image"
	labelPinned  = "io.cri-containerd.pinned"
	labelImport  = "hansa.dev/import"
)

// tagOnly is the repository of an image whose archive gives it only a tag, as
// OCI layouts may.
const tagOnly = "hansa.local/import"

// Image is the image of that name, tag or id.
func (c *Client) Image(ctx context.Context, ref string) (*cri.Image, error) {
	r, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
	if err != nil {
		return nil, wrap(err, "look up image %s", ref)
	}
	if r.GetImage() == nil {
		return nil, fmt.Errorf("look up image %s: %w", ref, runtime.ErrNotFound)
	}
	return r.GetImage(), nil
}

// ListImages are all images on the node.
func (c *Client) ListImages(ctx context.Context) ([]*cri.Image, error) {
	r, err := c.images.ListImages(ctx, &cri.ListImagesRequest{})
	return r.GetImages(), wrap(err, "list images")
}

// PullImage fetches an image from its registry.
func (c *Client) PullImage(ctx context.Context, ref string, auth *cri.AuthConfig, sandbox *cri.PodSandboxConfig) (string, error) {
	r, err := c.images.PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref, UserSpecifiedImage: ref}, Auth: auth, SandboxConfig: sandbox})
	if err == nil {
		err = c.settle(ctx)
	}
	return r.GetImageRef(), wrap(err, "pull image %s", ref)
}

// settle has the disk take what was unpacked. containerd does not wait for that,
// and an image that it knows is never unpacked again: after a loss of power its
// files would be empty for good.
func (c *Client) settle(ctx context.Context) error {
	r, err := c.images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return err
	}
	for _, fs := range r.GetImageFilesystems() {
		folder, err := os.Open(fs.GetFsId().GetMountpoint())
		if err != nil {
			return err
		}
		err = unix.Syncfs(int(folder.Fd()))
		if err = errors.Join(err, folder.Close()); err != nil {
			return fmt.Errorf("write images to disk: %w", err)
		}
	}
	return nil
}

// RemoveImage removes an image by name or id; one that is not there is removed.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	_, err := c.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}})
	return gone(wrap(err, "remove image %s", ref))
}

// RemoveName removes one name of an image. The image goes with its last name,
// and when it is called by its id.
func (c *Client) RemoveName(ctx context.Context, name string) error {
	found, err := c.Image(ctx, name)
	if err != nil {
		return err
	}
	tags := found.GetRepoTags()
	i := slices.IndexFunc(tags, func(t string) bool {
		return t == name || t == "docker.io/"+name || t == "docker.io/library/"+name
	})
	if i < 0 || len(tags) == 1 {
		return c.RemoveImage(ctx, name)
	}
	remove := []string{tags[i]}
	if r := repository(tags[i]); !slices.ContainsFunc(slices.Delete(slices.Clone(tags), i, i+1), func(t string) bool { return repository(t) == r }) {
		for _, d := range found.GetRepoDigests() {
			if repository(d) == r {
				remove = append(remove, d)
			}
		}
	}
	ctx = inNamespace(ctx)
	for _, n := range remove {
		if _, err := imagesapi.NewImagesClient(c.conn).Delete(ctx, &imagesapi.DeleteImageRequest{Name: n, Sync: true}); err != nil && status.Code(err) != codes.NotFound {
			return wrap(err, "remove image name %s", n)
		}
	}
	return nil
}

// repository is a reference without tag and digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i]
	}
	return ref
}

// ImportImage reads an archive into containerd's store and unpacks it, so that
// the first pod need not.
func (c *Client) ImportImage(ctx context.Context, archive io.Reader) ([]string, error) {
	ctx, cancel := context.WithCancel(inNamespace(ctx))
	defer cancel()
	id := rand.Text()
	ctx, release, err := c.lease(ctx, id)
	if status.Code(err) == codes.Unimplemented {
		return nil, fmt.Errorf("import image: the container runtime at %s is not containerd and cannot import; pull the image from a registry instead", c.endpoint)
	}
	if err != nil {
		return nil, wrap(err, "lease for an image import")
	}
	defer release()
	// A read error of ours ends the stream as if the archive were complete, so
	// it is remembered and outranks what the runtime makes of the torso.
	source := &errReader{Reader: archive}
	if err := c.sendStream(ctx, id, source); err != nil {
		return nil, wrap(err, "open image stream to container runtime")
	}
	platform := &types.Platform{OS: "linux", Architecture: goruntime.GOARCH}
	src, err := anyOf(&transfertypes.ImageImportStream{Stream: id})
	if err != nil {
		return nil, err
	}
	dst, err := anyOf(&transfertypes.ImageStore{
		Labels:          map[string]string{labelManaged: "managed", labelPinned: "pinned", labelImport: id},
		Platforms:       []*types.Platform{platform},
		ExtraReferences: []*transfertypes.ImageReference{{Name: tagOnly, IsPrefix: true, AllowOverwrite: true}},
		Unpacks:         []*transfertypes.UnpackConfiguration{{Platform: platform}},
	})
	if err != nil {
		return nil, err
	}
	_, err = transferapi.NewTransferClient(c.conn).Transfer(ctx, &transferapi.TransferRequest{Source: src, Destination: dst, Options: &transferapi.TransferOptions{}})
	if source.err != nil {
		return nil, fmt.Errorf("read image archive: %w", source.err)
	}
	if err == nil {
		err = c.settle(ctx)
	}
	if err != nil {
		return nil, wrap(err, "import image")
	}
	return c.imported(ctx, id)
}

// leaseTime is when containerd gives up a lease whose holder has died.
const leaseTime = time.Hour

// lease keeps what is made with the context it returns, the stream above all,
// from containerd's garbage collection, until released.
func (c *Client) lease(ctx context.Context, id string) (leased context.Context, release func(), err error) {
	leases := leasesapi.NewLeasesClient(c.conn)
	_, err = leases.Create(ctx, &leasesapi.CreateRequest{ID: id, Labels: map[string]string{
		"containerd.io/gc.expire": time.Now().Add(leaseTime).Format(time.RFC3339),
	}})
	if err != nil {
		return nil, nil, err
	}
	return metadata.AppendToOutgoingContext(ctx, "containerd-lease", id), func() {
		// What fails here expires.
		_, _ = leases.Delete(context.WithoutCancel(ctx), &leasesapi.DeleteRequest{ID: id})
	}, nil
}

// imported names the images that an import made.
func (c *Client) imported(ctx context.Context, id string) ([]string, error) {
	r, err := imagesapi.NewImagesClient(c.conn).List(ctx, &imagesapi.ListImagesRequest{
		Filters: []string{fmt.Sprintf("labels.%q==%s", labelImport, id)},
	})
	if err != nil {
		return nil, wrap(err, "list imported images")
	}
	var names []string
	for _, i := range r.GetImages() {
		names = append(names, i.GetName())
	}
	if len(names) == 0 {
		return nil, errors.New("import image: the archive names no image; give it one (docker save NAME:TAG, or the OCI annotation org.opencontainers.image.ref.name)")
	}
	sort.Strings(names)
	return names, nil
}

type errReader struct {
	io.Reader
	err error
}

func (r *errReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// chunk is the most that one message of a stream carries, as containerd has it.
const chunk = 32 << 10

// sendStream opens containerd's binary stream id and sends r on it in the
// background, as far as the receiver's window updates allow. It ends with ctx.
func (c *Client) sendStream(ctx context.Context, id string, r io.Reader) error {
	stream, err := streamapi.NewStreamingClient(c.conn).Stream(ctx)
	if err != nil {
		return err
	}
	hello, err := anyOf(&streamapi.StreamInit{ID: id})
	if err != nil {
		return err
	}
	if err := stream.Send(hello); err != nil {
		return err
	}
	// containerd confirms that the stream is registered with one message.
	if _, err := stream.Recv(); err != nil {
		return err
	}
	windows := make(chan int32)
	go func() {
		defer close(windows)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			var w transfertypes.WindowUpdate
			if proto.Unmarshal(m.GetValue(), &w) != nil {
				return
			}
			select {
			case windows <- w.Update:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		defer stream.CloseSend() //nolint:errcheck // the receiver is gone already
		buf := make([]byte, chunk)
		for window := int32(0); ; {
			for window <= 0 {
				w, ok := <-windows
				if !ok {
					return
				}
				window += w
			}
			n, err := r.Read(buf[:min(chunk, window)])
			if n > 0 {
				window -= int32(n)
				data, merr := anyOf(&transfertypes.Data{Data: buf[:n]})
				if merr != nil || stream.Send(data) != nil {
					return
				}
			}
			if err != nil {
				return
			}
			select {
			case w := <-windows:
				window += w
			default:
			}
		}
	}()
	return nil
}

// anyOf packs a message the way containerd names types: without a host.
func anyOf(m proto.Message) (*anypb.Any, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: b}, nil
}
