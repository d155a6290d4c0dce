package fake

import (
	"context"
	"errors"
	"io"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// image finds one by name, digest or ID. r.mu is held.
func (r *Runtime) image(ref string) *cri.Image {
	if i := r.images[ref]; i != nil {
		return i
	}
	for _, i := range r.images {
		if i.Id == ref || i.RepoDigests[0] == ref {
			return i
		}
	}
	return nil
}

// Image finds an image that is present.
func (r *Runtime) Image(_ context.Context, ref string) (*cri.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.image(ref); i != nil {
		return i, nil
	}
	return nil, notFound("image", ref)
}

// ListImages lists all.
func (r *Runtime) ListImages(context.Context) ([]*cri.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*cri.Image
	for _, i := range r.images {
		out = append(out, i)
	}
	return out, nil
}

// HoldPulls lets pulls wait until release is closed. Each tells of itself on
// begun.
func (r *Runtime) HoldPulls(begun chan<- string, release <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = func(ref string) {
		begun <- ref
		<-release
	}
}

// WantLogins lets all pulls fail that come without credentials.
func (r *Runtime) WantLogins() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.private = true
}

// PullProgress is that of half an image of 100 bytes.
func (r *Runtime) PullProgress(context.Context, string) (fetched, total int64, err error) {
	return 50, 100, nil
}

// PullImage makes any image present, unless told to fail.
func (r *Runtime) PullImage(_ context.Context, ref string, auth *cri.AuthConfig, _ *cri.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	hold := r.hold
	r.mu.Unlock()
	if hold != nil {
		hold(ref)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	who := ""
	if auth != nil {
		who = " as " + auth.GetUsername()
	}
	if err := r.enter("PullImage", "%s%s", ref, who); err != nil {
		return "", err
	}
	if r.private && auth == nil {
		return "", errors.New("no basic auth credentials")
	}
	if i := r.image(ref); i != nil {
		return i.Id, nil
	}
	return r.addImage(ref, nil).Id, nil
}

// RemoveImage forgets an image.
func (r *Runtime) RemoveImage(_ context.Context, ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter("RemoveImage", "%s", ref); err != nil {
		return err
	}
	for name, i := range r.images {
		if name == ref || i.Id == ref {
			delete(r.images, name)
		}
	}
	return nil
}

// archivePrefix begins what ImportImage takes for an archive.
const archivePrefix = "image "

// Archive is what ImportImage takes for an archive of one image.
func Archive(name string) io.Reader { return strings.NewReader(archivePrefix + name) }

// ImportImage reads what Archive made.
func (r *Runtime) ImportImage(_ context.Context, archive io.Reader) ([]string, error) {
	data, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	name, ok := strings.CutPrefix(string(data), archivePrefix)
	if !ok {
		return nil, errors.New("import image: not an archive")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addImage(name, nil).Pinned = true
	return []string{name}, nil
}
