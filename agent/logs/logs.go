// Package logs reads the log files of containers, in the format of the
// Container Runtime Interface, and keeps them at a bounded size:
//
//	2026-01-02T15:04:05.123456789Z stdout F a whole line
//	2026-01-02T15:04:05.123456790Z stdout P a part of a line that is too
//	2026-01-02T15:04:05.123456791Z stdout F  long for one record
//
// The layout is the kubelet's: LOGS/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log,
// rotated to ATTEMPT.log.YYYYMMDD-HHMMSS.
package logs

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// PodDir is the directory of a pod's logs below root.
func PodDir(root, namespace, name, uid string) string {
	return filepath.Join(root, namespace+"_"+name+"_"+uid)
}

// File is a container's log file, relative to the pod's directory.
func File(container string, attempt int) string {
	return filepath.Join(container, strconv.Itoa(attempt)+".log")
}

// The streams.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// record is one line of a log file.
type record struct {
	time    time.Time
	stream  string
	partial bool
	text    []byte
}

// parse reads a line of a log file, with its newline if it has one. The text
// of a whole line ends with a newline, that of a part does not.
func parse(line []byte) (record, error) {
	var r record
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return r, fmt.Errorf("log line %q has no time", line)
	}
	var err error
	if r.time, err = time.Parse(time.RFC3339Nano, string(stamp)); err != nil {
		return r, fmt.Errorf("log line %q: %w", line, err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return r, fmt.Errorf("log line %q has no stream", line)
	}
	r.stream = string(stream)
	if r.stream != Stdout && r.stream != Stderr {
		return r, fmt.Errorf("log line %q is of an unknown stream", line)
	}
	tags, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		tags, text = bytes.TrimSuffix(rest, []byte{'\n'}), []byte{'\n'}
	}
	first, _, _ := bytes.Cut(tags, []byte{':'})
	r.partial = string(first) == "P"
	if r.partial {
		text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	r.text = text
	return r, nil
}
