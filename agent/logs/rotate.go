package logs

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	stampFormat = "20060102-150405"
	gz          = ".gz"
	tmp         = ".tmp"
)

// Rotate renames a log that has grown to limit bytes and has the runtime open a
// new one. Of all its files at most keep stay; those before the newest rotated
// one are compressed.
//
//	0.log                         is written to
//	0.log.20260102-150405         was, before; may be read still
//	0.log.20260102-140405.gz
func Rotate(file string, limit int64, keep int, now time.Time, reopen func() error) error {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at log: %w", err)
	}
	if info.Size() < limit {
		return nil
	}
	old, err := rotated(file)
	if err != nil {
		return err
	}
	// Room for the current file and the one it is renamed to.
	for len(old) > max(keep-2, 0) {
		if err := os.Remove(old[0]); err != nil {
			return fmt.Errorf("remove rotated log: %w", err)
		}
		old = old[1:]
	}
	for _, f := range old {
		if !strings.HasSuffix(f, gz) {
			if err := compress(f); err != nil {
				return err
			}
		}
	}
	to := file + "." + now.Format(stampFormat)
	if err := os.Rename(file, to); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	if err := reopen(); err != nil {
		// The runtime still writes to the renamed file: give it its name back.
		return errors.Join(fmt.Errorf("reopen log: %w", err), os.Rename(to, file))
	}
	return nil
}

// rotated lists the rotated files of a log, the oldest first, and removes what
// an interrupted compression left.
func rotated(file string) ([]string, error) {
	all, err := filepath.Glob(file + ".*")
	if err != nil {
		return nil, fmt.Errorf("list rotated logs: %w", err)
	}
	var out []string
	for _, f := range all {
		if strings.HasSuffix(f, tmp) {
			if err := os.Remove(f); err != nil {
				return nil, fmt.Errorf("remove unfinished log: %w", err)
			}
			continue
		}
		if slices.Contains(all, strings.TrimSuffix(f, gz)) && strings.HasSuffix(f, gz) {
			continue // the original is still there and will be compressed anew
		}
		out = append(out, f)
	}
	slices.Sort(out)
	return out, nil
}

func compress(file string) (err error) {
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(file+tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("compress log %s: %w", file, err), os.Remove(file+tmp))
	}
	if err := os.Rename(file+tmp, file+gz); err != nil {
		return fmt.Errorf("compress log: %w", err)
	}
	return os.Remove(file)
}
