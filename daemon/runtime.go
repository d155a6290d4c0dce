package daemon

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/runtime/containerd"
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

// hasSysResource says whether this process may lower OOM scores.
func hasSysResource() bool {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var caps uint64
			if _, err := fmt.Sscanf(strings.TrimSpace(v), "%x", &caps); err != nil {
				return false
			}
			return caps&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	return false
}
