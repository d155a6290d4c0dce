package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountsBelow lists the mount points in and below a directory, in the order in
// which they were mounted.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		at := unescape(fields[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			out = append(out, at)
		}
	}
	return out, lines.Err()
}

// unescape undoes the octal escapes of mountinfo (space, tab, newline, \).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// UnmountBelow unmounts everything in and below a directory, the newest first.
// A mount that is in use is detached: its users keep it, the tree is free.
// Afterwards nothing is mounted there, or there is an error.
func UnmountBelow(dir string) error {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", dir, err)
	}
	var errs []error
	for _, at := range slices.Backward(mounts) {
		err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	return errors.Join(errs...)
}

// isMountPoint says whether a directory is the root of a mount: its device
// differs from its parent's.
func isMountPoint(dir string) (bool, error) {
	var at, parent unix.Stat_t
	if err := unix.Lstat(dir, &at); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if err := unix.Lstat(filepath.Dir(dir), &parent); err != nil {
		return false, fmt.Errorf("look at %s: %w", filepath.Dir(dir), err)
	}
	return at.Dev != parent.Dev, nil
}

// record notes in the ledger, before a mount is made, where all of ours are.
func (m *Manager) record() error {
	if err := m.Record(LedgerKind, m.PodsDir); err != nil {
		return fmt.Errorf("record mounts below %s: %w", m.PodsDir, err)
	}
	return nil
}

// tmpfs mounts a memory file system on dir unless there is one. size is in
// bytes, 0 for the kernel's default.
func (m *Manager) tmpfs(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if mounted, err := isMountPoint(dir); err != nil || mounted {
		return err
	}
	if err := m.record(); err != nil {
		return err
	}
	options := "mode=0777"
	if size > 0 {
		options += ",size=" + strconv.FormatInt(size, 10)
	}
	// What is in memory for secrecy must not reach a swap device; kernels
	// before 6.3 do not know the option.
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	if err != nil {
		return fmt.Errorf("mount memory file system: %w", err)
	}
	return nil
}
