package reclaim

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapFiles lets go of the pages of mapped files: of this program and of the
// database. Each was mapped with its neighbours when something near it was used,
// most of them by a start or a load that does not come again; what is needed
// comes back from the page cache at its next use. Failing is no harm: they stay.
func unmapFiles() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range clean(f) {
		// madvise(2): pages of a file that were not written to are read anew.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// span is a part of the address space.
type span struct{ from, to uintptr }

// clean are the mappings of files of which no page can differ from the file:
// that cannot be written and have no page of their own. (A part that was
// written and then protected, as relocations are, has.)
func clean(smaps io.Reader) []span {
	var out []span
	var now span
	var candidate bool
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Bytes()
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && !bytes.ContainsRune(key, ' ') {
			if candidate && string(key) == "Anonymous" {
				candidate = false
				if string(bytes.TrimSpace(value)) == "0 kB" {
					out = append(out, now)
				}
			}
			continue
		}
		// ADDRESS-ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH, of proc_pid_maps(5).
		fields := strings.Fields(string(line))
		candidate = false
		if len(fields) < 6 || fields[1][1] == 'w' || fields[5][0] != '/' {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		a, errA := strconv.ParseUint(from, 16, 64)
		b, errB := strconv.ParseUint(to, 16, 64)
		if candidate = errA == nil && errB == nil; candidate {
			now = span{uintptr(a), uintptr(b)}
		}
	}
	return out
}
