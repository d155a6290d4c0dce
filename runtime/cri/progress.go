package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/google/go-containerregistry/pkg/name"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hansa.dev/hansa/runtime"
)

// sourceLabel and a registry's host, without its port, are a label of
// containerd's on what came from there; its value has the repositories, with
// commas between.
const sourceLabel = "containerd.io/distribution.source."

// largestManifest is what a manifest may have at most, as registries have it.
const largestManifest = 4 << 20

// PullProgress says how much of an image that is being pulled has been fetched.
// CRI does not tell, containerd's content store does: the manifest of the
// repository that names layers which are being written. It is ErrNotFound while
// none does.
func (c *Client) PullProgress(ctx context.Context, ref string) (fetched, total int64, err error) {
	parsed, err := name.ParseReference(ref, name.WeakValidation)
	if err != nil {
		return 0, 0, err
	}
	ctx = inNamespace(ctx)
	store := contentapi.NewContentClient(c.conn)
	writes, err := store.ListStatuses(ctx, &contentapi.ListStatusesRequest{})
	if err != nil {
		return 0, 0, wrap(err, "look at the pull of image %s", ref)
	}
	written := map[string]int64{}
	for _, w := range writes.GetStatuses() {
		// layer-sha256:…
		if _, digest, ok := strings.Cut(w.GetRef(), "-"); ok {
			written[digest] = w.GetOffset()
		}
	}
	layers, err := c.layersOf(ctx, store, parsed.Context(), written)
	if err != nil {
		return 0, 0, fmt.Errorf("look at the pull of image %s: %w", ref, err)
	}
	for digest, size := range layers {
		total += size
		if n, now := written[digest]; now {
			fetched += n
			continue
		}
		_, err := store.Info(ctx, &contentapi.InfoRequest{Digest: digest})
		switch {
		case err == nil:
			fetched += size
		case status.Code(err) != codes.NotFound:
			return 0, 0, wrap(err, "look at the pull of image %s", ref)
		}
	}
	return fetched, total, nil
}

// layersOf are the sizes of the layers of the newest manifest of a repository
// of which a layer is being written.
func (c *Client) layersOf(ctx context.Context, store contentapi.ContentClient, repo name.Repository, written map[string]int64) (map[string]int64, error) {
	registry, _, _ := strings.Cut(repo.RegistryStr(), ":")
	if registry == name.DefaultRegistry {
		registry = "docker.io"
	}
	list, err := store.List(ctx, &contentapi.ListContentRequest{Filters: []string{fmt.Sprintf("labels.%q", sourceLabel+registry)}})
	if err != nil {
		return nil, wrap(err, "list content")
	}
	var found map[string]int64
	var newest time.Time
	for {
		part, err := list.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, wrap(err, "list content")
		}
		for _, i := range part.GetInfo() {
			of := "," + i.GetLabels()[sourceLabel+registry] + ","
			if i.GetSize() > largestManifest || !strings.Contains(of, ","+repo.RepositoryStr()+",") || i.GetCreatedAt().AsTime().Before(newest) {
				continue
			}
			layers, err := readLayers(ctx, store, i.GetDigest())
			if err != nil {
				return nil, err
			}
			for digest := range layers {
				if _, now := written[digest]; now {
					found, newest = layers, i.GetCreatedAt().AsTime()
					break
				}
			}
		}
	}
	if found == nil {
		return nil, runtime.ErrNotFound
	}
	return found, nil
}

// readLayers are the sizes of the layers that some content names, none if it is
// no manifest.
func readLayers(ctx context.Context, store contentapi.ContentClient, digest string) (map[string]int64, error) {
	stream, err := store.Read(ctx, &contentapi.ReadContentRequest{Digest: digest})
	if err != nil {
		return nil, wrap(err, "read content %s", digest)
	}
	var data bytes.Buffer
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, wrap(err, "read content %s", digest)
		}
		data.Write(part.GetData())
	}
	var manifest struct {
		Layers []struct {
			Digest string `json:"digest"`
			Size   int64  `json:"size"`
		} `json:"layers"`
	}
	if json.Unmarshal(data.Bytes(), &manifest) != nil {
		return nil, nil // a layer, or a configuration
	}
	out := map[string]int64{}
	for _, l := range manifest.Layers {
		out[l.Digest] = l.Size
	}
	return out, nil
}
