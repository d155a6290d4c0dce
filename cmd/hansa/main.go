// Command hansa is the whole orchestrator in one binary; `hansa --help` tells
// what it does. This package turns flags, environment and a configuration file
// into a daemon.Config and nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
)

// usageError is wrong usage: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	// A second Ctrl-C does not wait for anything. A second SIGTERM does: it may
	// come from another `hansa down`.
	context.AfterFunc(ctx, func() { signal.Reset(unix.SIGINT) })
	os.Exit(run(ctx, byName(os.Args)))
}

// run is one command from its arguments to its exit status: 0, 2 for wrong
// usage, 1 for any other failure, which is said in one sentence.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "hansa: %s\n", oneLine(err.Error()))
	var usage usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// oneLine makes one sentence of the lines that some libraries write, and of
// several errors at once.
func oneLine(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			continue
		case strings.HasSuffix(b.String(), ":"):
			b.WriteString(" ")
		case b.Len() > 0:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}
