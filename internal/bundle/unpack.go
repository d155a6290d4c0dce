package bundle

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Unpack makes the named members, or all when none is named, exist as
// DIR/ID/NAME with mode 0755, and returns each one's path by its name.
//
// A member is written beside its place, compared with its hash, synced and
// renamed, so a path that exists is complete: after a crash, and with other
// processes unpacking the same at once. What is there already costs one stat.
// Nothing is ever removed here: a shim may be running from an older folder.
func (b *Bundle) Unpack(dir string, names ...string) (map[string]string, error) {
	members := b.Members
	if len(names) > 0 {
		members = make([]Member, 0, len(names))
		for _, name := range names {
			m, err := b.member(name)
			if err != nil {
				return nil, err
			}
			members = append(members, m)
		}
	}
	folder := filepath.Join(dir, b.ID)
	paths := make(map[string]string, len(members))
	missing := make(map[string]Member)
	for _, m := range members {
		path := filepath.Join(folder, m.Name)
		paths[m.Name] = path
		if info, err := os.Lstat(path); err != nil || info.Size() != m.Size || info.Mode() != 0o755 {
			missing[m.Name] = m
		}
	}
	if len(missing) == 0 {
		return paths, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("unpack programs: %w", err)
	}
	f, err := os.Open(b.path)
	if err != nil {
		return nil, fmt.Errorf("unpack programs: %w", err)
	}
	defer f.Close()
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	// The largest first: started last it would run alone.
	largestFirst := func(x, y Member) int { return cmp.Compare(y.Size, x.Size) }
	for _, m := range slices.SortedFunc(maps.Values(missing), largestFirst) {
		g.Go(func() error {
			if err := b.unpack(f, m, folder); err != nil {
				return fmt.Errorf("unpack %s into %s: %w", m.Name, folder, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return paths, nil
}

// Exec replaces the running process by the member called name, unpacked under
// dir if it is not there yet. args are its arguments without the program's
// name. It returns only with an error.
func (b *Bundle) Exec(dir, name string, args, env []string) error {
	paths, err := b.Unpack(dir, name)
	if err != nil {
		return err
	}
	argv := append([]string{name}, args...)
	return fmt.Errorf("run %s: %w", paths[name], unix.Exec(paths[name], argv, env))
}

// unpack writes one member to its place in folder. The temporary file goes
// away with any failure that leaves us alive; one that a crash leaves behind
// has a name of its own and disturbs nobody.
func (b *Bundle) unpack(f *os.File, m Member, folder string) (err error) {
	tmp, err := os.CreateTemp(folder, "."+m.Name+"-*")
	if err != nil {
		return err
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if err := decompress(tmp, io.NewSectionReader(f, b.start+m.Offset, m.Length), m); err != nil {
		return err
	}
	if err := tmp.Chmod(0o755); err != nil {
		return err
	}
	// Synced before the name appears, else a power cut leaves a whole name on
	// part of the data.
	if err := tmp.Sync(); err != nil {
		return err
	}
	// Closed before the rename: a program still open for writing cannot be run.
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(folder, m.Name))
}

// decompress streams a member's frame from r to w and compares size and hash.
func decompress(w io.Writer, r io.Reader, m Member) error {
	dec, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(WindowSize))
	if err != nil {
		return err
	}
	defer dec.Close()
	out := &hashing{w: w, h: sha256.New(), left: m.Size}
	// WriteTo hands over the decoder's own blocks; nothing is copied twice.
	n, err := dec.WriteTo(out)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if n != m.Size || hex.EncodeToString(out.h.Sum(nil)) != m.SHA256 {
		return fmt.Errorf("%w: what was unpacked does not match its hash", ErrCorrupt)
	}
	return nil
}

// hashing writes to w and hashes what it writes; it refuses more than left
// bytes, so that a damaged frame cannot fill the disk.
type hashing struct {
	w    io.Writer
	h    hash.Hash
	left int64
}

func (x *hashing) Write(p []byte) (int, error) {
	if x.left -= int64(len(p)); x.left < 0 {
		return 0, fmt.Errorf("more than the expected bytes")
	}
	x.h.Write(p)
	return x.w.Write(p)
}
