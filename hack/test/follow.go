package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// tally counts the outcomes of tests, subtests included.
type tally struct {
	passed, failed int
	skipped        []string // PACKAGE.TEST
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// follow reads the events of one `go test -json` and prints to w what a person
// wants to see: the closing line of every package that has tests, and all that
// a failed test, package or build had to say.
func follow(events io.Reader, w io.Writer) (tally, error) {
	var t tally
	said := map[string][]string{} // output by test, held until it ends
	failedIn := map[string]int{}  // failed tests by package
	name := func(e event) string { return e.Package + "." + e.Test }
	for dec := json.NewDecoder(events); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return t, nil
		} else if err != nil {
			return t, fmt.Errorf("read events of go test: %w", err)
		}
		switch {
		case e.Action == "build-output":
			fmt.Fprint(w, e.Output)
		case e.Action == "output" && e.Test == "":
			said[e.Package] = append(said[e.Package], e.Output)
		case e.Action == "output" && strings.HasPrefix(e.Output, "=== "):
			// That a test runs, pauses and goes on is noise beside its outcome.
		case e.Action == "output":
			said[name(e)] = append(said[name(e)], e.Output)
		case e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
			// A package that fails with no failed test did so outside of one:
			// it did not build, or its process ended.
			if e.Action == "fail" && failedIn[e.Package] == 0 {
				t.failed++
			}
			printPackage(w, e, said)
		case e.Action == "pass":
			t.passed++
			delete(said, name(e))
		case e.Action == "fail":
			t.failed++
			failedIn[e.Package]++
			fmt.Fprint(w, strings.Join(said[name(e)], ""))
			delete(said, name(e))
		case e.Action == "skip":
			t.skipped = append(t.skipped, name(e))
			fmt.Fprint(w, strings.Join(said[name(e)], ""))
			delete(said, name(e))
		}
	}
}

// printPackage prints what a package said: all of it when it failed, else the
// line that closes it. Tests that never ended, as after a panic, are in said
// still.
func printPackage(w io.Writer, e event, said map[string][]string) {
	lines := said[e.Package]
	delete(said, e.Package)
	for key, unfinished := range said {
		if strings.HasPrefix(key, e.Package+".") {
			if e.Action == "fail" {
				fmt.Fprint(w, strings.Join(unfinished, ""))
			}
			delete(said, key)
		}
	}
	for _, line := range lines {
		closing := strings.HasPrefix(line, "ok  \t") || strings.HasPrefix(line, "FAIL\t")
		if e.Action == "fail" || closing {
			fmt.Fprint(w, line)
		}
	}
}
