package agent

import (
	"errors"
	"path/filepath"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/volume"
)

// Cleanup takes away what an agent made on the host, for `hansa down`: the
// mounts below the data directory and the instance's cgroups. The containers
// have been removed before. It works without a running agent, from what is
// there; done twice it does nothing more.
func Cleanup(dataDir string, layout cgroup.Layout, base string) error {
	return errors.Join(
		volume.UnmountBelow(filepath.Join(dataDir, "pods")),
		cgroup.RemoveBase(layout, base),
	)
}
