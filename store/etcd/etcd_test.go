package etcd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdmain"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// startServer starts etcd as a process of its own on a directory, until it is
// stopped.
func startServer(t *testing.T, dir string) (endpoint string, stop func()) {
	endpoint = "unix://" + filepath.Join(dir, "client")
	peer := "unix://" + filepath.Join(dir, "peer")
	cmd := self(t, "etcd", "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
		"--listen-client-urls", endpoint, "--advertise-client-urls", endpoint,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return endpoint, sync.OnceFunc(func() {
		// It is told to end; how it says that it did is of no interest.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// connect gives an engine over a server.
func connect(t *testing.T, endpoint string) store.Engine {
	e, err := etcd.Connect(t.Context(), etcd.ExternalOptions{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	return e
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
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Engine { return embedded(t, t.TempDir()) })
}

func TestExternal(t *testing.T) {
	t.Parallel()
	endpoint, stop := startServer(t, t.TempDir())
	t.Cleanup(stop)
	storetest.Run(t, func(t *testing.T) store.Engine {
		e := connect(t, endpoint)
		wipe(t, e)
		return e
	})
}

// A store outlives its server: when that is back, the copy goes on where it was.
func TestExternalRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	endpoint, stop := startServer(t, dir)
	reg := storetest.Registry()
	configmaps := reg.Must("", "configmaps")
	s, err := store.Open(t.Context(), connect(t, endpoint), reg, store.Options{DetectMutations: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	w, err := s.Watch(t.Context(), store.Query{Resource: configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 2 {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("cm-", i)}}
		for {
			_, err = s.Create(t.Context(), configmaps, cm.DeepCopy(), store.WriteOptions{})
			if err == nil || apierrors.IsAlreadyExists(err) {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
		events, err := w.Next(t.Context())
		if err != nil || len(events) != 1 || events[0].Object.GetName() != cm.Name {
			t.Fatalf("events %v, %v; want %s", events, err, cm.Name)
		}
		stop()
		if i == 0 {
			_, stop = startServer(t, dir)
		}
	}
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
