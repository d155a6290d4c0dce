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

// unmapProgram lets go of the pages of this program's file. Each was mapped
// with its neighbours when something near it was used, most of them by a start
// that does not come again; what is needed comes back from the page cache at its
// next use. Failing is no harm: they stay.
func unmapProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range clean(f, exe) {
		// madvise(2): pages of a file that were not written to are read anew.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// span is a part of the address space.
type span struct{ from, to uintptr }

// clean are the mappings of a file of which no page can differ from the file:
// that cannot be written and have no page of their own. (A part that was
// written and then protected, as relocations are, has.)
func clean(smaps io.Reader, file string) []span {
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
		if len(fields) < 6 || fields[1][1] == 'w' || strings.Join(fields[5:], " ") != file {
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
