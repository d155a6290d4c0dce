package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hansa.dev/hansa/runtime"
)

// exit is how a container ended, as the carried containerd writes it down.
type exit struct {
	Timestamp time.Time
	Status    int32
	OOMKilled bool
}

// exitsDir has the exits of containers of whose end containerd may not know, a file for
// each, named by its ID. It outlives the machine's end, as the containers' status does.
func (c Config) exitsDir() string { return filepath.Join(c.rootDir(), "exits") }

// forgetExits forgets what was kept of containers that are removed. It is called while
// no containerd runs.
func (c Config) forgetExits() error {
	kept, err := filepath.Glob(filepath.Join(c.exitsDir(), "*"))
	if err != nil {
		return fmt.Errorf("list kept exits: %w", err)
	}
	var errs []error
	for _, file := range kept {
		known := filepath.Join(c.rootDir(), "io.containerd.grpc.v1.cri", "containers", filepath.Base(file))
		if _, err := os.Stat(known); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.Remove(file))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forget exits of removed containers: %w", err)
	}
	return nil
}

// Exit is how and when a container ended of whose end containerd may not know all.
func (c Config) Exit(id string) (e runtime.Exit, known bool) {
	data, err := os.ReadFile(filepath.Join(c.exitsDir(), id))
	if err != nil {
		return runtime.Exit{}, false
	}
	var kept exit
	if json.Unmarshal(data, &kept) != nil || kept.Timestamp.IsZero() {
		return runtime.Exit{}, false
	}
	return runtime.Exit{Code: kept.Status, At: kept.Timestamp, OOMKilled: kept.OOMKilled}, true
}
