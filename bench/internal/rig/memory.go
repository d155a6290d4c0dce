package rig

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Memory is what a process has for itself, in bytes: the sum of what the kernel
// calls Private, pages of its own file included.
type Memory struct {
	Private int64 // all of it
	// Database is the part that is etcd's file mapped: pages that the kernel may
	// drop, since they are in the file.
	Database int64
}

// MemoryOf looks at a process as it is now.
func MemoryOf(pid int) (Memory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return Memory{}, err
	}
	defer f.Close()
	return readMemory(f)
}

// readMemory adds up the mappings of proc_pid_smaps(5): each is a line with its
// addresses and maybe a path, then lines `Key: value`.
func readMemory(r io.Reader) (m Memory, err error) {
	database := false
	for lines := bufio.NewScanner(r); ; {
		if !lines.Scan() {
			return m, lines.Err()
		}
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "Private_Clean:", "Private_Dirty:":
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return m, fmt.Errorf("read smaps: %w", err)
			}
			m.Private += kib << 10
			if database {
				m.Database += kib << 10
			}
		default:
			if !strings.HasSuffix(fields[0], ":") {
				database = strings.HasSuffix(lines.Text(), "/member/snap/db")
			}
		}
	}
}
