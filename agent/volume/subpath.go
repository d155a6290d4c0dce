package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// bindSubPath makes one path inside a volume available at a place that a
// container cannot redirect: it is opened without ever leaving the volume, and
// what was opened is bind-mounted.
func (m *Manager) bindSubPath(uid types.UID, volumePath, volume, container string, index int, sub string) (string, error) {
	fd, err := openBeneath(volumePath, sub)
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", volume, container, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(m.PodDir(uid), "volume-subpaths", volume, container, strconv.Itoa(index))
	if err := m.bind(fd, target); err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", volume, container, err)
	}
	return target, nil
}

// openBeneath opens a path below base, making directories that are missing. No
// link leads out of base.
func openBeneath(base, sub string) (fd int, err error) {
	dir, err := unix.Open(base, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", base, err)
	}
	defer unix.Close(dir)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	fd, err = unix.Openat2(dir, sub, how)
	if !errors.Is(err, unix.ENOENT) {
		return fd, wrapPath(err, base, sub)
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return -1, wrapPath(err, base, sub)
	}
	if err := makeBeneath(dir, sub, st.Mode&0o7777); err != nil {
		return -1, wrapPath(err, base, sub)
	}
	fd, err = unix.Openat2(dir, sub, how)
	return fd, wrapPath(err, base, sub)
}

func wrapPath(err error, base, sub string) error {
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("subPath %q leads out of its volume %s", sub, base)
	}
	if err != nil {
		return fmt.Errorf("open %s in %s: %w", sub, base, err)
	}
	return nil
}

// makeBeneath makes the directories of a path that are missing, with the mode
// of the volume's root.
func makeBeneath(dir int, sub string, mode uint32) error {
	at := "."
	for part := range strings.SplitSeq(sub, "/") {
		if part == "" || part == "." {
			continue
		}
		parent, err := unix.Openat2(dir, at, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != nil {
			return err
		}
		err = unix.Mkdirat(parent, part, mode)
		if err == nil {
			// The mode is set apart from the umask.
			err = unix.Fchmodat(parent, part, mode, 0)
		} else if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		unix.Close(parent)
		if err != nil {
			return err
		}
		at += "/" + part
	}
	return nil
}

// bind mounts an open file or directory on target, in place of what an earlier
// run of the container had there.
func (m *Manager) bind(fd int, target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(target, 0o750); err != nil {
			return err
		}
	} else if err := os.WriteFile(target, nil, 0o640); err != nil {
		return err
	}
	if err := m.record(); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind mount on %s: %w", target, err)
	}
	return nil
}

// subPath is the path inside the volume that a mount asks for, with the
// container's variables put in.
func subPath(mount *v1.VolumeMount, expand func(string) (string, error)) (string, error) {
	sub := mount.SubPath
	if mount.SubPathExpr != "" {
		var err error
		if sub, err = expand(mount.SubPathExpr); err != nil {
			return "", err
		}
	}
	if sub == "" {
		return "", nil
	}
	if filepath.IsAbs(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	for part := range strings.SplitSeq(sub, "/") {
		if part == ".." {
			return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
		}
	}
	return sub, nil
}
