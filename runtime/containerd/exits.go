package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hansa.dev/hansa/internal/whole"
)

// exit is what a shim writes into the bundle of a container that has ended.
type exit struct {
	Timestamp time.Time
	Status    int32
}

// exitsDir has the exits of containers that ended while no containerd heard it, a
// file for each, named by its ID. It outlives the machine's end, as the
// containers' status does.
func (c Config) exitsDir() string { return filepath.Join(c.rootDir(), "exits") }

// keepExits keeps what the shims have written of ended containers: a containerd
// that starts clears the bundles of those away and knows of no exit any more. What
// was kept of containers that are removed goes. It is called while no containerd
// runs.
func (c Config) keepExits() error {
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
	found, err := filepath.Glob(filepath.Join(c.stateDir(), "io.containerd.runtime.v2.task", criNamespace, "*", "exit.json"))
	if err != nil {
		return fmt.Errorf("list exits: %w", err)
	}
	if len(found) > 0 {
		errs = append(errs, os.MkdirAll(c.exitsDir(), 0o700))
	}
	for _, file := range found {
		data, err := os.ReadFile(file)
		if err == nil {
			err = whole.Write(filepath.Join(c.exitsDir(), filepath.Base(filepath.Dir(file))), data)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keep exits of containers: %w", err)
	}
	return nil
}

// Exit is how and when a container ended of whose end containerd does not know.
func (c Config) Exit(id string) (code int32, at time.Time, known bool) {
	data, err := os.ReadFile(filepath.Join(c.exitsDir(), id))
	if err != nil {
		return 0, time.Time{}, false
	}
	var e exit
	if json.Unmarshal(data, &e) != nil || e.Timestamp.IsZero() {
		return 0, time.Time{}, false
	}
	return e.Status, e.Timestamp, true
}
