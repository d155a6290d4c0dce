package daemon

import (
	"fmt"
	"os"
	"path/filepath"

	"hansa.dev/hansa/internal/bundle"
)

// The names by which envtest finds its programs in a folder. Called by one of the
// first two, this program is that one.
const (
	NameAPIServer = "kube-apiserver"
	NameEtcd      = "etcd"
	nameKubectl   = "kubectl"
)

// unpackedDir is the folder beside them in which the carried kubectl is.
const unpackedDir = ".hansa"

// Envtest lays out the programs that controller-runtime's envtest runs: links to
// this program, and to the carried kubectl, which is unpacked here once, so that
// starting any of them unpacks nothing. It answers with the folder's absolute
// path. What is there and is no link stays, and is an error.
func Envtest(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	b, err := bundle.Executable()
	if err != nil {
		return "", err
	}
	unpacked, err := b.Unpack(filepath.Join(dir, unpackedDir), nameKubectl)
	if err != nil {
		return "", fmt.Errorf("lay out envtest in %s: %w", dir, err)
	}
	for name, target := range map[string]string{NameAPIServer: self, NameEtcd: self, nameKubectl: unpacked[nameKubectl]} {
		if err := link(target, filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("lay out envtest in %s: %w", dir, err)
		}
	}
	return dir, nil
}

// link makes a symbolic link, in place of another one if there is one.
func link(target, path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("%s is there already and is no link: choose another directory, or remove it", path)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
