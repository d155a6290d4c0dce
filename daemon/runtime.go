package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/ledger"
	hansaruntime "hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/containerd"
	"hansa.dev/hansa/runtime/cri"
)

// containerdConfig names the container runtime of a data directory; binDir may
// be empty where only names matter.
func containerdConfig(c Config, binDir string) containerd.Config {
	i := c.instance()
	return containerd.Config{
		DataDir: c.DataDir, RunDir: i.runDir(), BinDir: binDir, CgroupRoot: i.cgroup(),
		CNIDir: i.path("cni"), RegistryDir: i.path("registry"), RestrictOOM: !hasSysResource(),
	}
}

// startRuntime unpacks the carried programs, starts or adopts containerd and
// sees that the sandbox image is there. With an endpoint of its own it only
// connects.
func startRuntime(ctx context.Context, l *lifecycle, c Config, tree *cgroup.Tree, layout cgroup.Layout, book *ledger.Ledger, log *slog.Logger) (*nodeRuntime, error) {
	if c.RuntimeEndpoint != "" {
		if err := tryEndpoint(c.RuntimeEndpoint); err != nil {
			return nil, fmt.Errorf("no container runtime answers at %s, given with --container-runtime-endpoint: %w", c.RuntimeEndpoint, err)
		}
		client, err := cri.Dial(c.RuntimeEndpoint)
		if err != nil {
			return nil, err
		}
		l.cleanup("runtime connection", client.Close)
		_, err = client.Version(ctx)
		return &nodeRuntime{Client: client, looked: func() {}}, err
	}
	i := c.instance()
	b, err := bundle.Executable()
	if err != nil {
		return nil, err
	}
	paths, err := b.Unpack(i.path("bin"), "containerd", "containerd-shim-runc-v2", "runc", "hansa-cni", "pause")
	if err != nil {
		return nil, fmt.Errorf("unpack the carried programs: %w", err)
	}
	if err := writeCNIConfig(i); err != nil {
		return nil, err
	}
	if err := book.Record("dir", i.runDir()); err != nil {
		return nil, err
	}
	if err := recordResults(book); err != nil {
		return nil, err
	}
	if err := tree.Ensure(cgroup.SystemGroup, cgroup.Limits{}); err != nil {
		return nil, err
	}
	config := containerdConfig(c, filepath.Dir(paths["containerd"]))
	config.Enter = func(pid int) error { return enter(layout, tree.Path(cgroup.SystemGroup), pid) }
	supervisor, err := containerd.Start(ctx, config, clock.RealClock{}, log)
	if err != nil {
		return nil, err
	}
	l.run("containerd", supervisor.Run)
	client, err := cri.Dial(config.Endpoint())
	if err != nil {
		return nil, err
	}
	client.Exit = config.Exit
	l.cleanup("runtime connection", client.Close)
	if _, err := client.Image(ctx, containerd.PauseImage); errors.Is(err, hansaruntime.ErrNotFound) {
		archive, err := config.PauseArchive()
		if err != nil {
			return nil, err
		}
		if _, err := client.ImportImage(ctx, archive); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	sandboxes := func(ctx context.Context) (map[string]bool, error) {
		list, err := client.Sandboxes(ctx, nil)
		ready := map[string]bool{}
		for _, s := range list {
			ready[s.Id] = s.State == criapi.PodSandboxState_SANDBOX_READY
		}
		return ready, err
	}
	sweep := func() {
		if err := supervisor.Sweep(l.ctx, sandboxes); err != nil {
			log.Warn("not all is cleared away", "err", err)
		}
	}
	return &nodeRuntime{Client: client, ours: true, replace: supervisor.Replace, looked: sweep}, nil
}

// nodeRuntime is the runtime of this node.
type nodeRuntime struct {
	*cri.Client
	ours    bool   // the carried one, with the carried pause
	replace func() // when it hangs; nil for one that is not ours
	looked  func() // after it was away
}

// enter puts a process into a cgroup of every hierarchy.
func enter(layout cgroup.Layout, group string, pid int) error {
	for _, root := range layout.Roots() {
		if err := os.WriteFile(filepath.Join(root, group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("put process %d into cgroup %s: %w", pid, group, err)
		}
	}
	return nil
}

// attachedDir is where the pod network remembers who has which address; beside
// containerd's network configuration, which reads nothing below its folder.
func (i instance) attachedDir() string { return filepath.Join(i.path("cni"), "attached") }

// writeCNIConfig tells containerd to ask our plugin for networks.
func writeCNIConfig(i instance) error {
	if err := os.MkdirAll(i.attachedDir(), 0o700); err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	b, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       i.network(),
		"plugins": []map[string]any{{
			"type": "hansa-cni", "socket": i.cniSocket(), "dir": i.attachedDir(),
			"capabilities": map[string]bool{"portMappings": true},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(i.path("cni"), "10-hansa.conflist")
	if old, err := os.ReadFile(file); err == nil && string(old) == string(b) {
		return nil
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	return nil
}

// hasSysResource says whether this process may lower OOM scores.
func hasSysResource() bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	return false
}
