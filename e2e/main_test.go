package e2e

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
)

// The main goroutine keeps the main thread: a machine dies with the thread that
// started it.
func init() { runtime.LockOSThread() }

// Parts that a process of this program plays, told by the environment.
const (
	roleVariable = "HANSA_E2E_ROLE"
	roleInit     = "init"  // process 1 of a machine
	roleShared   = "tests" // the tests, beside a shared cluster
	roleAlone    = "alone" // one test on a machine of its own, with no cluster yet
)

// sideBySide is how many tests run at once. Most of their time they wait.
const sideBySide = "8"

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := 1, error(nil)
	switch role := os.Getenv(roleVariable); role {
	case "":
		code, err = outermost()
	case roleInit:
		code, err = initProcess()
	case roleShared, roleAlone:
		code, err = tests(m, role)
	default:
		err = fmt.Errorf("%s=%q is no role", roleVariable, role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// outermost makes what the machine is given and runs all tests in one.
func outermost() (int, error) {
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("these tests make machines and containers: run them as root")
	}
	if f := flag.Lookup("test.list"); f != nil && f.Value.String() != "" {
		return 1, fmt.Errorf("-list is not offered: TestMain makes a machine first; use `go doc`")
	}
	if err := buildImages(); err != nil {
		return 1, err
	}
	// Whoever writes to a shared object is to be found.
	if err := os.Setenv("HANSA_DETECT_MUTATIONS", "1"); err != nil {
		return 1, err
	}
	return runMachine(roleShared, os.Args[1:], os.Stdout, os.Stderr)
}

// tests runs the tests themselves, inside a machine.
func tests(m *testing.M, role string) (code int, err error) {
	if err := connectMachine(); err != nil {
		return 1, err
	}
	if err := serveOutside(); err != nil {
		return 1, err
	}
	if err := serveRegistry(); err != nil {
		return 1, err
	}
	if role == roleAlone {
		return m.Run(), nil
	}
	if flag.Lookup("test.parallel").Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		if err := flag.Set("test.parallel", sideBySide); err != nil {
			return 1, err
		}
	}
	shared = newCluster("shared", "--serialize-image-pulls=false")
	if err := shared.up(); err != nil {
		return 1, err
	}
	if err := shared.importImages(); err != nil {
		return 1, err
	}
	code = m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "last lines of the shared cluster's log:\n%s\n", shared.logTail(40))
	}
	return code, shared.purge()
}
