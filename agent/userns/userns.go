// Package userns gives pods with hostUsers: false ranges of the host's user and
// group IDs of their own: a process that is root in such a pod is nobody on the
// host, and nobody in any other pod.
package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// Length is how many IDs a pod has.
const Length = 65536

// ranges is how many pods can have one: the host's own IDs, 0 to 65535, and the
// last range, which holds the IDs that mean nobody, are left out.
const ranges = (1<<32)/Length - 2

// Allocator hands out ranges. What a pod has is in a file of its directory, so
// that it keeps it over a restart. Its methods may be called from any goroutine.
type Allocator struct {
	podsDir string

	mu     sync.Mutex
	loaded bool
	taken  map[uint32]types.UID
	of     map[types.UID]uint32
}

// New makes an allocator for the pods whose directories are in podsDir.
func New(podsDir string) *Allocator {
	return &Allocator{podsDir: podsDir, taken: map[uint32]types.UID{}, of: map[types.UID]uint32{}}
}

const fileName = "userns"

// First is the first host ID of a pod's range, which it gets if it has none.
// The pod's directory exists.
func (a *Allocator) First(uid types.UID) (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.load(); err != nil {
		return 0, err
	}
	if n, ok := a.of[uid]; ok {
		return n * Length, nil
	}
	for n := uint32(1); n <= ranges; n++ {
		if _, ok := a.taken[n]; ok {
			continue
		}
		path := filepath.Join(a.podsDir, string(uid), fileName)
		if err := os.WriteFile(path, []byte(strconv.FormatUint(uint64(n), 10)), 0o600); err != nil {
			return 0, fmt.Errorf("note range of user IDs: %w", err)
		}
		a.taken[n], a.of[uid] = uid, n
		return n * Length, nil
	}
	return 0, errors.New("all ranges of user IDs are taken")
}

// Release takes a pod's range back, after its containers are gone.
func (a *Allocator) Release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := a.of[uid]; ok {
		delete(a.taken, n)
		delete(a.of, uid)
	}
}

// load reads, once, what pods of a former agent have.
func (a *Allocator) load() error {
	if a.loaded {
		return nil
	}
	entries, err := os.ReadDir(a.podsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list ranges of user IDs: %w", err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(a.podsDir, e.Name(), fileName))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read range of user IDs: %w", err)
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 16)
		if err != nil || n == 0 || n > ranges {
			return fmt.Errorf("range of user IDs of pod %s is %q", e.Name(), data)
		}
		a.taken[uint32(n)], a.of[types.UID(e.Name())] = types.UID(e.Name()), uint32(n)
	}
	a.loaded = true
	return nil
}
