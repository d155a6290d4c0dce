package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
)

// hostPath is a place of the node itself; only its type is checked here.
var hostPath = &plugin{
	dir:   "kubernetes.io~host-path",
	setUp: setUpHostPath,
	path:  func(v *v1.Volume) string { return v.HostPath.Path },
}

func setUpHostPath(_ context.Context, _ *Manager, _ *v1.Pod, v *v1.Volume, _ string) (time.Time, error) {
	kind := v1.HostPathUnset
	if v.HostPath.Type != nil {
		kind = *v.HostPath.Type
	}
	return time.Time{}, checkHostPath(v.HostPath.Path, kind)
}

func checkHostPath(path string, kind v1.HostPathType) error {
	if kind == v1.HostPathUnset {
		return nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		switch kind {
		case v1.HostPathDirectoryOrCreate:
			return os.MkdirAll(path, 0o755)
		case v1.HostPathFileOrCreate:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	} else if err != nil {
		return err
	}
	is := func(t fs.FileMode) bool { return err == nil && info.Mode()&fs.ModeType == t }
	ok, what := false, ""
	switch kind {
	case v1.HostPathDirectory, v1.HostPathDirectoryOrCreate:
		ok, what = is(fs.ModeDir), "directory"
	case v1.HostPathFile, v1.HostPathFileOrCreate:
		ok, what = is(0), "file"
	case v1.HostPathSocket:
		ok, what = is(fs.ModeSocket), "socket file"
	case v1.HostPathCharDev:
		ok, what = is(fs.ModeDevice|fs.ModeCharDevice), "character device"
	case v1.HostPathBlockDev:
		ok, what = is(fs.ModeDevice), "block device"
	default:
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", path, what)
	}
	return nil
}
