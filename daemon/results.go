package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/internal/ledger"
)

// resultDirs are where the CNI library in containerd notes what plugins have
// answered, outermost first. The place is a constant of that library. A file is
// named NETWORK-CONTAINER-LINK, so the network's name tells the instance.
var resultDirs = []string{"/var/lib/cni", "/var/lib/cni/results"}

// recordResults notes the folders in the ledger that are there for Hansa only:
// those that are missing, and those in which only other instances have files.
func recordResults(book *ledger.Ledger) error {
	for _, dir := range resultDirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at the results of network plugins: %w", err)
		}
		foreign := slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
			return !strings.HasPrefix(e.Name(), "hansa-") && !slices.Contains(resultDirs, filepath.Join(dir, e.Name()))
		})
		if foreign || err == nil && len(entries) == 0 {
			continue
		}
		if err := book.Record("dir", dir); err != nil {
			return err
		}
	}
	return nil
}

// removeResults removes an instance's files from there, and the folders that
// the ledger names once they are empty.
func removeResults(i instance) error {
	files, err := filepath.Glob(filepath.Join(resultDirs[len(resultDirs)-1], i.network()+"-*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a network plugin's result: %w", err)
		}
	}
	book, err := ledger.Open(i.ledgerFile())
	if err != nil {
		return err
	}
	defer book.Close()
	for _, dir := range slices.Backward(resultDirs) {
		if !slices.Contains(book.Entries(), ledger.Entry{Kind: "dir", Name: dir}) {
			continue
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove the folder of network plugins' results: %w", err)
		}
	}
	return nil
}
