package containerd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/internal/whole"
)

// process is a process that may be no child of ours: known by its pid and the
// moment it started, so that a reused pid is never taken for it.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, /proc/PID/stat field 22
	Exe   string `json:"exe"`
	// Ready says in containerd's file that it has said that it serves.
	Ready bool `json:"ready,omitempty"`
}

// inspect reads a running process from /proc.
func inspect(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The name, field 2, is in parentheses and may itself contain some.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 || string(fields[0]) == "Z" {
		return process{}, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return process{}, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return process{}, err
	}
	return process{PID: pid, Start: start, Exe: exe}, nil
}

// commandLines are those of all processes, by pid: the arguments, each with a
// zero byte behind it (proc_pid_cmdline(5)).
func commandLines() map[int]string {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") //nolint:errcheck // the pattern is well-formed
	lines := make(map[int]string, len(files))
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		if args, err := os.ReadFile(file); err == nil { // else it has ended meanwhile
			lines[pid] = string(args)
		}
	}
	return lines
}

// alive says whether this very process still runs.
func (p process) alive() bool {
	now, err := inspect(p.PID)
	return err == nil && now.Start == p.Start
}

// wait blocks until the process has ended or stop is closed.
func (p process) wait(stop <-chan struct{}) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	defer unix.Close(wake)
	ended := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-stop:
			unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // an eventfd takes 8 bytes
		case <-ended:
		}
	}()
	defer func() { close(ended); <-done }()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch process %d: %w", p.PID, err)
		}
		if fds[0].Revents != 0 || fds[1].Revents != 0 {
			return nil
		}
	}
}

// signal sends a signal to this very process; one that has ended is no error.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

func readPID(file string) (process, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return process{}, err
	}
	var p process
	if err := json.Unmarshal(b, &p); err != nil {
		return process{}, fmt.Errorf("read %s: %w", file, err)
	}
	return p, nil
}

func writePID(file string, p process) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return whole.Write(file, b)
}
