package containerd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// PauseImage is the sandbox image: built from the carried pause program,
// imported at start, never pulled. Its tag changes with the program.
const PauseImage = "hansa.local/pause:2"

// Config says where one instance's containerd lives. DataDir, RunDir and BinDir
// are absolute.
type Config struct {
	DataDir string // images and metadata go to DataDir/containerd
	RunDir  string // /run/hansa/ID: sockets and runtime state
	BinDir  string // the carried programs
	// CgroupRoot is "/hansa/ID": below it are system (containerd and shims) and
	// pods.
	CgroupRoot string
	// CNIDir holds the network configuration and the network plugin is in BinDir.
	CNIDir string
	// RestrictOOM keeps containers from asking for a lower OOM score than the
	// daemon's own: needed without CAP_SYS_RESOURCE, where lowering fails.
	RestrictOOM bool
	// RegistryDir holds registry configuration in containerd's hosts format.
	RegistryDir string
	// Enter puts a process into the instance's system cgroup.
	Enter func(pid int) error
}

// Endpoint is the path of the socket that serves CRI and containerd's own API.
func (c Config) Endpoint() string { return filepath.Join(c.RunDir, "containerd.sock") }

func (c Config) rootDir() string    { return filepath.Join(c.DataDir, "containerd") }
func (c Config) stateDir() string   { return filepath.Join(c.RunDir, "containerd") }
func (c Config) configFile() string { return filepath.Join(c.rootDir(), "config.toml") }
func (c Config) logFile() string    { return filepath.Join(c.DataDir, "logs", "containerd.log") }
func (c Config) pidFile() string    { return filepath.Join(c.RunDir, "containerd.pid") }
func (c Config) binary() string     { return filepath.Join(c.BinDir, "containerd") }

// The shim's socket directory is short because a unix socket's path has at most
// 108 bytes, 65 of which the shim itself uses. Plugins that look outside of our
// directories (NRI, CDI, /etc/cni) are pointed away from them or disabled. The
// manager of shims is the carried containerd's own, in the place of upstream's.
//
// Left alone, the CRI service asks every shim for the processor time of its
// containers each second, whether anybody wants to know or not. It is to do so
// every ten years; a rate is then between two questions, as the agent's are.
const configTemplate = `version = 4
root = {Root}
state = {State}
imports = [{Imports}]
oom_score = 0
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.native",
  "io.containerd.server.v1.grpc-tcp",
  "io.containerd.metrics.v1.grpc-prometheus",
  "io.containerd.shim.v1.manager",
]

[debug]
  level = "warn"

[plugins."io.containerd.server.v1.grpc"]
  address = {Socket}
[plugins."io.containerd.server.v1.ttrpc"]
  address = {TTRPC}
[plugins."io.containerd.shim.v1.hansa"]
  socket_dir = {Shims}
  exits = {Exits}
[plugins."io.containerd.internal.v1.opt"]
  path = {Opt}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  stats_collect_period = 60
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {Pause}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {Registry}
[plugins."io.containerd.transfer.v1.local"]
  config_path = {Registry}

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {RestrictOOM}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  cdi_spec_dirs = []
  enable_criu = false
  stats_collect_period = "87600h"
  disable_hugetlb_controller = false
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = {Runc}
        Root = {RuncRoot}
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [{Bin}]
    conf_dir = {CNI}
    max_conf_num = 1
    use_internal_loopback = true

[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
`

// render is the text of containerd's configuration file. It does without
// text/template: a program that has that keeps all exported methods of all types.
func (c Config) render() []byte {
	values := []string{"{RestrictOOM}", strconv.FormatBool(c.RestrictOOM)}
	for name, path := range map[string]string{
		"Root": c.rootDir(), "State": c.stateDir(), "Socket": c.Endpoint(),
		"TTRPC": c.Endpoint() + ".ttrpc", "Shims": filepath.Join(c.RunDir, "s"),
		"Opt": filepath.Join(c.rootDir(), "opt"), "Pause": PauseImage, "Registry": c.RegistryDir,
		"Runc": filepath.Join(c.BinDir, "runc"), "RuncRoot": filepath.Join(c.RunDir, "runc"),
		"Bin": c.BinDir, "CNI": c.CNIDir, "Exits": c.exitsDir(), "Imports": filepath.Join(c.importDir(), "*.toml"),
	} {
		values = append(values, "{"+name+"}", strconv.Quote(path))
	}
	return []byte(strings.NewReplacer(values...).Replace(configTemplate))
}

// importDir holds parts of containerd's configuration that users add: runtime
// handlers, above all.
func (c Config) importDir() string { return filepath.Join(c.DataDir, "containerd.d") }

// imported is the identity of the parts that users have added, as a comment.
func (c Config) imported() ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(c.importDir(), "*.toml"))
	if err != nil || len(files) == 0 {
		return nil, err
	}
	h := sha256.New()
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read addition to the configuration of containerd: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", f, len(data), data)
	}
	return fmt.Appendf(nil, "# additions: %x\n", h.Sum(nil)), nil
}

// writeConfig makes the directories and the configuration file. It says whether
// the file changed.
func (c Config) writeConfig() (changed bool, err error) {
	for _, dir := range []string{c.rootDir(), filepath.Dir(c.logFile()), filepath.Join(c.RunDir, "s"), c.RegistryDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return false, fmt.Errorf("prepare directories of containerd: %w", err)
		}
	}
	// The root of a user namespace passes through these to its container, and
	// may not list them.
	for _, dir := range []string{filepath.Dir(c.RunDir), c.RunDir, c.stateDir()} {
		if err := errors.Join(os.MkdirAll(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
			return false, fmt.Errorf("prepare directories of containerd: %w", err)
		}
	}
	added, err := c.imported()
	if err != nil {
		return false, err
	}
	text := append(c.render(), added...)
	if old, err := os.ReadFile(c.configFile()); err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	if err := os.WriteFile(c.configFile(), text, 0o600); err != nil {
		return false, fmt.Errorf("write configuration of containerd: %w", err)
	}
	return true, nil
}
