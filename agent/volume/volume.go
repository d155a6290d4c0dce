// Package volume gives pods their volumes: directories below
// PODS/UID/volumes/kubernetes.io~TYPE/NAME in the kubelet's layout, filled and
// mounted here, bound into containers by the runtime.
//
// Everything is idempotent, and everything can be taken away by looking at the
// disk alone, so that what a former agent made is cleaned up like our own.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/downward"
)

// Objects are what volumes show of the API.
type Objects interface {
	// ConfigMap and Secret answer nil when there is none of that name.
	ConfigMap(namespace, name string) *v1.ConfigMap
	Secret(namespace, name string) *v1.Secret
	TrustBundle(name string) *certificatesv1.ClusterTrustBundle
	// TrustBundles goes through all.
	TrustBundles(yield func(*certificatesv1.ClusterTrustBundle) bool)
	// Token asks for a service account's token, bound to the pod.
	Token(ctx context.Context, p *v1.Pod, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	Certificates
}

// Config is what a Manager needs.
type Config struct {
	PodsDir string
	Objects Objects
	Clock   clock.PassiveClock
	// Allocatable is what the node has for pods.
	Allocatable func() v1.ResourceList
	// Record notes PodsDir in the ledger before something is mounted below it.
	// It is called for each mount.
	Record func(kind, name string) error
	// PullImage makes sure that an image is there and answers with the
	// runtime's name for it.
	PullImage func(ctx context.Context, p *v1.Pod, ref string, policy v1.PullPolicy) (name string, err error)
	// Addresses are the pod's and the node's, as far as they are known.
	Addresses func(uid types.UID) downward.Addresses
	// Event tells a pod what happens.
	Event func(p *v1.Pod, kind, reason, message string)
}

// LedgerKind is the kind of this package's entries in the ledger.
const LedgerKind = "mount"

// Manager makes and removes volumes. Its methods may be called from any
// goroutine, for one pod from one at a time.
type Manager struct {
	Config
	tokens       *kept[token]
	certificates *kept[certificate]
	images       *kept[string] // the runtime's names, by volume
	salt         string        // of the order of trust anchors
}

// New makes a manager.
func New(c Config) *Manager {
	return &Manager{
		Config: c, tokens: newKept[token](), certificates: newKept[certificate](), images: newKept[string](),
		salt: c.Clock.Now().String(),
	}
}

// PodDir is where all that the agent keeps for a pod is.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.PodsDir, string(uid)) }

// plugin is how one type of volume is made.
type plugin struct {
	dir string // the type's directory name
	// setUp makes the volume in dir, or brings its content up to date. It
	// answers when it has to be called again at the latest (zero: never).
	setUp func(ctx context.Context, m *Manager, p *v1.Pod, v *v1.Volume, dir string) (time.Time, error)
	// path is where the content is, for volumes that are not in dir.
	path func(v *v1.Volume) string
	// live says that the content follows objects of the API.
	live bool
}

// pluginFor finds how a volume is made. The error says what is not possible.
func pluginFor(v *v1.Volume) (*plugin, error) {
	switch {
	case v.EmptyDir != nil:
		return emptyDir, nil
	case v.HostPath != nil:
		return hostPath, nil
	case v.ConfigMap != nil:
		return configMap, nil
	case v.Secret != nil:
		return secret, nil
	case v.DownwardAPI != nil:
		return downwardAPI, nil
	case v.Projected != nil:
		return projected, nil
	case v.Image != nil:
		return imageVolume, nil
	}
	return nil, fmt.Errorf("volume %q is of a type that this node cannot mount: it has emptyDir, hostPath, configMap, secret, downwardAPI, projected and image", v.Name)
}

// Path is where a volume's content is on the host.
func (m *Manager) Path(p *v1.Pod, v *v1.Volume) (string, error) {
	pl, err := pluginFor(v)
	if err != nil {
		return "", err
	}
	if pl.path != nil {
		return pl.path(v), nil
	}
	return m.dir(p.UID, pl, v.Name), nil
}

func (m *Manager) dir(uid types.UID, pl *plugin, name string) string {
	return filepath.Join(m.PodDir(uid), "volumes", pl.dir, name)
}

// Error is the failure of one volume.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// Mount makes all volumes of a pod. It tries all of them and joins an Error for
// each that failed. next is when Refresh is due at the latest, zero for never.
func (m *Manager) Mount(ctx context.Context, p *v1.Pod) (next time.Time, err error) {
	return m.setUp(ctx, p, func(*plugin) bool { return true })
}

// Refresh brings the content of those volumes up to date that follow the API.
func (m *Manager) Refresh(ctx context.Context, p *v1.Pod) (next time.Time, err error) {
	return m.setUp(ctx, p, func(pl *plugin) bool { return pl.live })
}

func (m *Manager) setUp(ctx context.Context, p *v1.Pod, which func(*plugin) bool) (next time.Time, err error) {
	var errs []error
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		pl, err := pluginFor(v)
		if err != nil {
			errs = append(errs, &Error{v.Name, err})
			continue
		}
		if !which(pl) {
			continue
		}
		at, err := pl.setUp(ctx, m, p, v, m.dir(p.UID, pl, v.Name))
		if err != nil {
			errs = append(errs, &Error{v.Name, err})
		}
		next = earlier(next, at)
	}
	return next, errors.Join(errs...)
}

// earlier is the earlier of two times of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Unmount takes away all mounts below a pod's directory, then its volumes. It
// needs no object: what is there is what is taken away.
func (m *Manager) Unmount(uid types.UID) error {
	dir := m.PodDir(uid)
	if err := UnmountBelow(dir); err != nil {
		return err
	}
	m.tokens.forget(uid)
	m.certificates.forget(uid)
	m.images.forget(uid)
	for _, sub := range []string{"volumes", "volume-subpaths"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
		}
	}
	return nil
}

// Remove takes away all that is kept for a pod.
func (m *Manager) Remove(uid types.UID) error {
	if err := m.Unmount(uid); err != nil {
		return err
	}
	if err := os.RemoveAll(m.PodDir(uid)); err != nil {
		return fmt.Errorf("remove directory of pod %s: %w", uid, err)
	}
	return nil
}

// Known are the pods that have a directory.
func (m *Manager) Known() ([]types.UID, error) {
	entries, err := os.ReadDir(m.PodsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pods' directories: %w", err)
	}
	var out []types.UID
	for _, e := range entries {
		out = append(out, types.UID(e.Name()))
	}
	return out, nil
}
