package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Gone are the logs of a pod that is not there any more.
type Gone struct {
	Namespace  string    `json:"namespace"`
	Name       string    `json:"name"`
	UID        string    `json:"uid"`
	Deleted    time.Time `json:"deleted"`
	Bytes      int64     `json:"bytes"`
	Containers []string  `json:"containers"`
}

// Limits bound what is kept of pods that are gone.
type Limits struct {
	For   time.Duration // 0: nothing is kept
	Bytes int64         // of all together; the oldest go first
}

// Keeper keeps the logs of pods that are gone, in ROOT/.gone under the name that
// they had in ROOT; when a pod went is its folder's time. There are no other
// records. Its methods may be called from any goroutine.
type Keeper struct {
	root   string
	limits Limits
	clock  clock.PassiveClock

	mu    sync.Mutex
	gone  []Gone // by time
	bytes int64
}

// mostGone bounds the number of pods whose logs are kept.
const mostGone = 10_000

// NewKeeper finds what was kept by an earlier one.
func NewKeeper(root string, l Limits, c clock.PassiveClock) (*Keeper, error) {
	k := &Keeper{root: root, limits: l, clock: c}
	entries, err := os.ReadDir(k.dir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look at the logs of pods that are gone: %w", err)
	}
	for _, e := range entries {
		if g, err := k.look(e.Name()); err == nil {
			k.gone = append(k.gone, g)
			k.bytes += g.Bytes
		}
	}
	slices.SortStableFunc(k.gone, func(a, b Gone) int { return a.Deleted.Compare(b.Deleted) })
	return k, nil
}

func (k *Keeper) dir() string { return filepath.Join(k.root, ".gone") }

// look reads what a folder says.
func (k *Keeper) look(folder string) (Gone, error) {
	parts := strings.Split(folder, "_") // no name has one
	if len(parts) != 3 {
		return Gone{}, fmt.Errorf("folder %s is none of a pod's logs", folder)
	}
	g := Gone{Namespace: parts[0], Name: parts[1], UID: parts[2]}
	dir := filepath.Join(k.dir(), folder)
	info, err := os.Stat(dir)
	if err != nil {
		return g, err
	}
	g.Deleted = info.ModTime()
	containers, err := os.ReadDir(dir)
	for _, c := range containers {
		g.Containers = append(g.Containers, c.Name())
		files, filesErr := os.ReadDir(filepath.Join(dir, c.Name()))
		err = errors.Join(err, filesErr)
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				g.Bytes += info.Size()
			}
		}
	}
	return g, err
}

// Take takes the logs of a pod that is going: they are kept, or removed. It may
// be repeated.
func (k *Keeper) Take(namespace, name, uid string) error {
	from := PodDir(k.root, namespace, name, uid)
	if k.limits.For <= 0 {
		return os.RemoveAll(from)
	}
	if err := os.MkdirAll(k.dir(), 0o755); err != nil {
		return fmt.Errorf("keep the logs of pod %s/%s: %w", namespace, name, err)
	}
	to := PodDir(k.dir(), namespace, name, uid)
	err := k.move(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has logged nothing, or is kept already
	}
	if err != nil {
		return fmt.Errorf("keep the logs of pod %s/%s: %w", namespace, name, err)
	}
	return k.Prune()
}

// move takes over a folder, in place of one of an earlier life: a static pod that comes
// again is the same. Until it is listed nobody may list, or logs that are not in their
// place any more would not be found at all.
func (k *Keeper) move(from, to string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	if err := os.Chtimes(from, now, now); err != nil {
		return err
	}
	k.gone = slices.DeleteFunc(k.gone, func(g Gone) bool {
		same := PodDir(k.dir(), g.Namespace, g.Name, g.UID) == to
		if same {
			k.bytes -= g.Bytes
		}
		return same
	})
	if err := errors.Join(os.RemoveAll(to), os.Rename(from, to)); err != nil {
		return err
	}
	g, err := k.look(filepath.Base(to))
	if err != nil {
		return fmt.Errorf("look at what is kept: %v", err) // not that there was nothing to keep
	}
	k.gone = append(k.gone, g)
	k.bytes += g.Bytes
	return nil
}

// Prune removes what is older than the limit, and the oldest of what is too
// much.
func (k *Keeper) Prune() error { return k.prune(k.limits.Bytes) }

// Release removes half of what is kept: the disk is full. It answers whether
// there was any.
func (k *Keeper) Release() (bool, error) {
	k.mu.Lock()
	had := k.bytes
	k.mu.Unlock()
	return had > 0, k.prune(had / 2)
}

func (k *Keeper) prune(most int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.clock.Now().Add(-k.limits.For)
	for len(k.gone) > 0 && (k.bytes > most || len(k.gone) > mostGone || k.gone[0].Deleted.Before(old)) {
		g := k.gone[0]
		if err := os.RemoveAll(PodDir(k.dir(), g.Namespace, g.Name, g.UID)); err != nil {
			return fmt.Errorf("remove the logs of pod %s/%s, which is gone: %w", g.Namespace, g.Name, err)
		}
		k.gone, k.bytes = k.gone[1:], k.bytes-g.Bytes
	}
	return nil
}

// List are the pods whose logs are kept, the newest first; of one namespace, or
// of all ("").
func (k *Keeper) List(namespace string) []Gone {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []Gone{}
	for _, g := range slices.Backward(k.gone) {
		if namespace == "" || g.Namespace == namespace {
			out = append(out, g)
		}
	}
	return out
}

// Find finds the newest pod of a name, or that with a UID.
func (k *Keeper) Find(namespace, name, uid string) (Gone, bool) {
	for _, g := range k.List(namespace) {
		if g.Name == name && (uid == "" || g.UID == uid) {
			return g, true
		}
	}
	return Gone{}, false
}

// Files are all files of the newest run of a container of a pod that is gone, or
// of the run before it, the oldest first. There are none when there was no such
// run.
func (k *Keeper) Files(g Gone, container string, previous bool) ([]string, error) {
	dir := filepath.Join(PodDir(k.dir(), g.Namespace, g.Name, g.UID), container)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var attempts []int
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), ".log")
		if n, err := strconv.Atoi(number); err == nil {
			attempts = append(attempts, n)
		}
	}
	slices.Sort(attempts)
	attempts = slices.Compact(attempts)
	i := len(attempts) - 1
	if previous {
		i--
	}
	if i < 0 {
		return nil, nil
	}
	return filesOf(filepath.Join(dir, fmt.Sprint(attempts[i], ".log")))
}

// ReadFiles copies whole files, one after the other, to out. They are not
// followed.
func ReadFiles(ctx context.Context, files []string, o Options, out io.Writer) error {
	count, drop, n := lineCount{stream: o.Stream}, int64(0), int64(0)
	if o.Tail >= 0 {
		if err := eachRecord(ctx, files, func(line []byte) error { count.add(line); return nil }); err != nil {
			return err
		}
		drop = count.all() - o.Tail
	}
	r := &reader{o: o, out: out}
	err := eachRecord(ctx, files, func(line []byte) error {
		if drop > 0 {
			if n++; count.isEnd(n, line) {
				drop--
			}
			return nil
		}
		return r.record(line)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// eachRecord calls f with each line of the files.
func eachRecord(ctx context.Context, files []string, f func([]byte) error) error {
	for _, file := range files {
		if err := eachRecordOf(ctx, file, f); err != nil {
			return err
		}
	}
	return nil
}

func eachRecordOf(ctx context.Context, file string, f func([]byte) error) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	from, err := plain(in)
	if err != nil {
		return err
	}
	for buf := bufio.NewReader(from); ; {
		line, err := buf.ReadBytes('\n')
		if err == io.EOF {
			return nil // what is begun is no record
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if err := errors.Join(ctx.Err(), f(line)); err != nil {
			return err
		}
	}
}
