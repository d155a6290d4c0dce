package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/agent/work"
)

// kernelDefaults are the settings of the kernel that a node expects with
// protectKernelDefaults. Without it they are left alone: the machine is
// somebody else's.
var kernelDefaults = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// checkNode refuses a machine on which the node's settings do not want it to
// start. proc is /proc, groups what control groups it has.
func checkNode(s *settings.Settings, proc string, groups cgroup.Layout) error {
	if *s.FailCgroupV1 && groups.Name() == "v1" {
		return errors.New("this machine has control groups of version 1, and failCgroupV1 of the node's configuration refuses them: boot it with systemd.unified_cgroup_hierarchy=1")
	}
	if *s.FailSwapOn {
		data, err := os.ReadFile(filepath.Join(proc, "swaps"))
		if err != nil {
			return fmt.Errorf("look for swap: %w", err)
		}
		if lines := strings.Split(strings.TrimSpace(string(data)), "\n"); len(lines) > 1 {
			return fmt.Errorf("this machine swaps to %s, and failSwapOn of the node's configuration refuses that: swapoff -a", strings.Fields(lines[1])[0])
		}
	}
	for _, e := range s.Enforces() {
		if !cgroup.Exists(groups, e.Group) {
			return fmt.Errorf("there is no control group %s, given as %s, to be limited to what is reserved for it: make it before the node starts, or leave %s out of enforceNodeAllocatable", e.Group, e.Setting, e.Level)
		}
	}
	if !s.ProtectKernelDefaults {
		return nil
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(kernelDefaults)) {
		want := kernelDefaults[name]
		data, err := os.ReadFile(filepath.Join(proc, "sys", name))
		if err != nil {
			return fmt.Errorf("look at the kernel's settings: %w", err)
		}
		if is := strings.TrimSpace(string(data)); is != want {
			wrong = append(wrong, fmt.Sprintf("%s=%s (is %s)", strings.ReplaceAll(name, "/", "."), want, is))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("protectKernelDefaults of the node's configuration expects other settings of the kernel: sysctl -w %s", strings.Join(wrong, " "))
	}
	return nil
}

// warnOf says which of the node's settings do nothing.
func warnOf(s *settings.Settings, log *slog.Logger) {
	for _, w := range s.Warnings {
		log.Warn("node configuration: " + w)
	}
}

// nodeResolver is the resolver configuration of the machine as it is now.
func nodeResolver(s *settings.Settings) (work.Resolver, error) {
	if *s.ResolverConfig == "" {
		return work.Resolver{}, nil
	}
	return hostResolver(*s.ResolverConfig)
}
