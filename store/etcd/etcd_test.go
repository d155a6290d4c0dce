package etcd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
	"hansa.dev/hansa/store/storetest"
)

// roleVariable makes this test binary play another program: see TestMain.
const roleVariable = "HANSA_ETCD_TEST_ROLE"

// TestMain lets the tests run children of known code: etcd itself, and a writer
// that is to be killed.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "etcd":
		etcdmain.Main(append([]string{"etcd"}, os.Args[1:]...))
	case "writer":
		writer(os.Args[1], os.Args[2])
	default:
		os.Exit(m.Run())
	}
}

// self is a command that runs this test binary in a role. It dies with the
// test.
func self(t testing.TB, role string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func embedded(t testing.TB, dir string) store.Engine {
	t.Helper()
	e, err := etcd.Start(t.Context(), etcd.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// external starts etcd as a process of its own and gives a way to get an
// engine over it, empty each time.
func external(t *testing.T) func(t *testing.T) store.Engine {
	dir := t.TempDir()
	client := "unix://" + filepath.Join(dir, "client")
	peer := "unix://" + filepath.Join(dir, "peer")
	cmd := self(t, "etcd", "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It was told to end; how it says that it did is of no interest.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return func(t *testing.T) store.Engine {
		e, err := etcd.Connect(t.Context(), etcd.ExternalOptions{Endpoints: []string{client}})
		if err != nil {
			t.Fatal(err)
		}
		wipe(t, e)
		return e
	}
}

func wipe(t *testing.T, e store.Engine) {
	resp, err := e.Range(t.Context(), store.RangeRequest{Start: "\x00", End: "\xff"})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.KVs {
		if _, err := e.Txn(t.Context(), []store.Step{{Then: []store.Put{{Key: kv.Key, Delete: true}}}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEmbedded(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Engine { return embedded(t, t.TempDir()) })
}

func TestExternal(t *testing.T) {
	storetest.Run(t, external(t))
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	e := embedded(t, dir)
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, want 0700", info.Mode().Perm())
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkEmbedded(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Engine { return embedded(b, b.TempDir()) })
}

// BenchmarkStart is the time until a server serves: for the first time, and on
// a directory that is there already.
func BenchmarkStart(b *testing.B) {
	for _, again := range []bool{false, true} {
		name := "first"
		if again {
			name = "again"
		}
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			for range b.N {
				b.StopTimer()
				if !again {
					dir = b.TempDir()
				} else if err := embedded(b, dir).Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				e := embedded(b, dir)
				b.StopTimer()
				if err := e.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
