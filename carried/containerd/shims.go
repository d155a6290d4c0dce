package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/events/exchange"
	"github.com/containerd/containerd/v2/core/metadata"
	runtime "github.com/containerd/containerd/v2/core/runtime/v2"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"

	"hansa.dev/hansa/carried/containerd/ends"
)

// shimsConfig is the section io.containerd.shim.v1.hansa of the configuration.
type shimsConfig struct {
	// SocketDir is where shims have their sockets.
	SocketDir string `toml:"socket_dir"`
	// Exits is where is kept how containers ended of which containerd may not know.
	Exits string `toml:"exits"`
	// Env is added to the environment of shims.
	Env []string `toml:"env"`
}

// Here is upstream's manager of shims with one thing more: before how a container ended
// is nowhere but in containerd's memory, it is written down. That is when a task is
// deleted, until the CRI service has written its status, and when containerd looks at
// what an earlier one left: it takes a shim in which nothing runs for one that never had
// a task, and clears it away. Of either the manager asks its stores before. A shim that
// has died by then left what it wrote, which is kept before anything is looked at.
func init() {
	registry.Register(&plugin.Registration{
		Type:     plugins.ShimPlugin,
		ID:       "hansa",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.MetadataPlugin},
		Config:   &shimsConfig{},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			config := ic.Config.(*shimsConfig)
			if config.SocketDir == "" || config.Exits == "" {
				return nil, errors.New("socket_dir and exits have to be set")
			}
			m, err := ic.GetSingle(plugins.MetadataPlugin)
			if err != nil {
				return nil, err
			}
			e, err := ic.GetByID(plugins.EventPlugin, "exchange")
			if err != nil {
				return nil, err
			}
			db := m.(*metadata.DB)
			shims := shims{ends.Keeper{
				Dir:     config.Exits,
				Bundles: filepath.Join(filepath.Dir(ic.Properties[plugins.PropertyStateDir]), plugins.RuntimePluginV2.String()+".task"),
				Cgroups: "/sys/fs/cgroup",
			}}
			if err := shims.KeepWritten(); err != nil { // a full disk should not keep containerd away
				log.G(ic.Context).WithError(err).Warn("how containers ended may be lost")
			}
			return runtime.NewShimManager(&runtime.ManagerConfig{
				Address:      ic.Properties[plugins.PropertyGRPCAddress],
				TTRPCAddress: ic.Properties[plugins.PropertyTTRPCAddress],
				SocketDir:    config.SocketDir,
				Events:       e.(*exchange.Exchange),
				ShimEnv:      config.Env,
				SandboxStore: &sandboxStore{Store: metadata.NewSandboxStore(db), shims: shims},
				Store: &containerStore{
					Store: metadata.NewContainerStore(db), shims: shims, noted: map[string]bool{},
					statuses: filepath.Join(filepath.Dir(ic.Properties[plugins.PropertyRootDir]), plugins.GRPCPlugin.String()+".cri", "containers"),
				},
			})
		},
	})
}

// sandboxStore is the store of sandboxes, asked before a shim is cleared away whether
// that is a sandbox's.
type sandboxStore struct {
	sandbox.Store
	shims
}

// Get finds a sandbox, and also a container that is running: should it end in the
// next moment, its shim is still there to be asked by whoever waits for it.
func (s *sandboxStore) Get(ctx context.Context, id string) (sandbox.Sandbox, error) {
	found, err := s.Store.Get(ctx, id)
	if !errdefs.IsNotFound(err) {
		return found, err
	}
	st, failed := s.state(ctx, id)
	switch st.GetStatus() {
	case task.Status_RUNNING, task.Status_PAUSING, task.Status_PAUSED:
		return sandbox.Sandbox{ID: id}, nil
	case task.Status_STOPPED:
		_, failed = s.keep(ctx, id, st)
	}
	if failed != nil && !errdefs.IsNotFound(failed) {
		log.G(ctx).WithError(failed).WithField("id", id).Warn("how a container ended may be lost")
	}
	return found, err
}

// containerStore is the store of containers, asked before a task is deleted.
type containerStore struct {
	containers.Store
	shims
	statuses string // the CRI service's, by container

	mu sync.Mutex
	// noted are whose ends are to be kept until the status is written, or, where it is
	// true, until the container is gone: of a kill for memory the status may not say.
	noted map[string]bool
}

// Get finds a container.
func (s *containerStore) Get(ctx context.Context, id string) (containers.Container, error) {
	if _, err := os.Stat(filepath.Join(s.statuses, id)); err == nil {
		if st, err := s.state(ctx, id); err == nil && st.GetStatus() == task.Status_STOPPED {
			if err := s.note(ctx, id, st); err != nil {
				log.G(ctx).WithError(err).WithField("id", id).Warn("how a container ended may be lost")
			}
		}
	}
	return s.Store.Get(ctx, id)
}

func (s *containerStore) note(ctx context.Context, id string, st *api.StateResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for old, killed := range s.noted {
		if s.written(old, killed) {
			os.Remove(filepath.Join(s.Dir, old)) // it does no harm where it stays
			delete(s.noted, old)
		}
	}
	e, err := s.keep(ctx, id, st)
	s.noted[id] = e.OOMKilled
	return err
}

// written says that the CRI service has written all of a container's status since its
// end was noted, or that the container is gone.
func (s *containerStore) written(id string, killed bool) bool {
	status, err := os.Stat(filepath.Join(s.statuses, id, "status"))
	if err != nil {
		return true
	}
	noted, err := os.Stat(filepath.Join(s.Dir, id))
	return err != nil || !killed && !status.ModTime().Before(noted.ModTime())
}

// shims are those of which containerd has a bundle.
type shims struct{ ends.Keeper }

// state asks a container's shim for its task; it may have none.
func (s shims) state(ctx context.Context, id string) (*api.StateResponse, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(s.Bundles, ns, id, "bootstrap.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errdefs.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	var at struct {
		Version           int
		Protocol, Address string
	}
	if err := json.Unmarshal(data, &at); err != nil {
		return nil, fmt.Errorf("read where a shim is: %w", err)
	}
	if at.Version != 3 || at.Protocol != "ttrpc" {
		return nil, nil // another runtime's
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(at.Address, "unix://"))
	if err != nil {
		return nil, err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	st, err := api.NewTTRPCTaskClient(client).State(ctx, &api.StateRequest{ID: id})
	return st, errgrpc.ToNative(err)
}

// keep writes how a container ended, as its shim says.
func (s shims) keep(ctx context.Context, id string, st *api.StateResponse) (ends.End, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return ends.End{}, err
	}
	return s.Keep(ns, id, ends.End{Timestamp: st.GetExitedAt().AsTime(), Pid: int(st.GetPid()), Status: int(st.GetExitStatus())})
}
