// Package ends keeps how containers ended, for when containerd does not know.
package ends

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// End is how a container ended, in the form in which its shim writes it, and whether
// the kernel killed any of its processes for memory.
type End struct {
	Timestamp time.Time
	Pid       int
	Status    int
	OOMKilled bool `json:",omitempty"`
}

// Keeper keeps the ends of containers, a file for each, named by its ID. As long as a
// container's task is not deleted its control group is there, and with it the count of
// what the kernel has killed in it.
type Keeper struct {
	// Dir is where they are kept.
	Dir string
	// Bundles has what containerd has of tasks, by namespace and ID.
	Bundles string
	// Cgroups is where control groups are mounted.
	Cgroups string
}

// Keep writes how a container ended, of which OOMKilled is still to be seen.
func (k Keeper) Keep(ns, id string, e End) (End, error) {
	var failed error
	e.OOMKilled, failed = k.oomKilled(ns, id)
	data, err := json.Marshal(e)
	if err != nil {
		return e, err
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return e, err
	}
	beside := filepath.Join(k.Dir, "."+id+".new")
	if err := os.WriteFile(beside, data, 0o600); err != nil {
		return e, err
	}
	return e, errors.Join(failed, os.Rename(beside, filepath.Join(k.Dir, id)))
}

// KeepWritten keeps what shims have written of ends, each into its bundle.
func (k Keeper) KeepWritten() error {
	files, err := filepath.Glob(filepath.Join(k.Bundles, "*", "*", "exit.json"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var e End
		if json.Unmarshal(data, &e) != nil || e.Timestamp.IsZero() {
			continue // its shim died over it
		}
		bundle := filepath.Dir(file)
		_, err = k.Keep(filepath.Base(filepath.Dir(bundle)), filepath.Base(bundle), e)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// oomKilled says whether the kernel killed a process of a container for memory. It
// knows of none where there is no such group or count.
func (k Keeper) oomKilled(ns, id string) (bool, error) {
	data, err := os.ReadFile(filepath.Join(k.Bundles, ns, id, "config.json"))
	if err != nil {
		return false, unlessNone(err)
	}
	var spec struct{ Linux struct{ CgroupsPath string } }
	if err := json.Unmarshal(data, &spec); err != nil {
		return false, err
	}
	group := spec.Linux.CgroupsPath
	if group == "" {
		return false, nil
	}
	// In version 1 memory has a hierarchy of its own, also where there is one of
	// version 2 beside it.
	data, err = os.ReadFile(filepath.Join(k.Cgroups, "memory", group, "memory.oom_control"))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(filepath.Join(k.Cgroups, group, "memory.events"))
	}
	if err != nil {
		return false, unlessNone(err)
	}
	for line := range strings.Lines(string(data)) {
		if count, is := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); is {
			n, err := strconv.ParseUint(count, 10, 64)
			return n > 0, err
		}
	}
	return false, nil
}

func unlessNone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
