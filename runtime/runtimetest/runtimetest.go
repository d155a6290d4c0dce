// Package runtimetest is the suite that every runtime.Runtime passes.
package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime"
)

// Harness makes what a test needs.
type Harness struct {
	// New gives a runtime that is ready, with no sandbox of this test in it.
	New func(t *testing.T) runtime.Runtime
	// Archive is an image archive that names Image and has sh, sleep, cat, echo.
	Archive func(t *testing.T) io.Reader
	Image   string
	// HostNetwork runs sandboxes without a pod network.
	HostNetwork bool
}

// patience is how long a condition may take to become true; only a failing test
// waits for it.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*fixture){
		"Images":                images,
		"SandboxLifecycle":      sandboxLifecycle,
		"ContainerLifecycle":    containerLifecycle,
		"ExitCode":              exitCode,
		"Events":                events,
		"IdempotentEnds":        idempotentEnds,
		"StopSendsTermThenKill": stopKills,
		"ExecSync":              execSync,
		"ExecStreams":           execStreams,
		"ExecExitCode":          execExitCode,
		"Logs":                  logs,
		"ReopenLog":             reopenLog,
		"UnknownIsNotFound":     unknown,
		"StatsAndUpdate":        stats,
		"CommandThatIsNotThere": missingCommand,
	} {
		t.Run(name, func(t *testing.T) { test(newFixture(t, h)) })
	}
}

type fixture struct {
	*testing.T
	Harness
	runtime.Runtime
	ctx     context.Context
	logs    string
	attempt uint32 // of the next container: names must differ
}

func newFixture(t *testing.T, h Harness) *fixture {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	f := &fixture{T: t, Harness: h, Runtime: h.New(t), ctx: ctx, logs: t.TempDir()}
	if _, err := f.Image(ctx, h.Image); errors.Is(err, runtime.ErrNotFound) {
		if _, err := f.ImportImage(ctx, h.Archive(t)); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// Image hides the field of the same name.
func (f *fixture) Image(ctx context.Context, ref string) (*cri.Image, error) {
	return f.Runtime.Image(ctx, ref)
}

func (f *fixture) sandboxConfig(name string) *cri.PodSandboxConfig {
	c := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		Labels:       map[string]string{"name": name, "suite": "runtime"},
		Hostname:     name,
		LogDirectory: f.logs,
		Linux:        &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}}},
	}
	if f.HostNetwork {
		c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
		c.Hostname = ""
	}
	return c
}

func (f *fixture) sandbox(name string) (string, *cri.PodSandboxConfig) {
	f.Helper()
	c := f.sandboxConfig(name)
	id, err := f.RunSandbox(f.ctx, c, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(f.StopSandbox(ctx, id), f.RemoveSandbox(ctx, id)); err != nil {
			f.Error(err)
		}
	})
	return id, c
}

func (f *fixture) create(sandbox string, sc *cri.PodSandboxConfig, command ...string) string {
	f.Helper()
	f.attempt++
	id, err := f.CreateContainer(f.ctx, sandbox, &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "main", Attempt: f.attempt},
		Labels:   sc.Labels,
		Image:    &cri.ImageSpec{Image: f.Harness.Image},
		Command:  command,
		LogPath:  "main.log",
		Stdin:    true,
		Linux:    &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: sc.Linux.SecurityContext.NamespaceOptions}},
	}, sc)
	if err != nil {
		f.Fatal(err)
	}
	return id
}

func (f *fixture) start(sandbox string, sc *cri.PodSandboxConfig, command ...string) string {
	f.Helper()
	id := f.create(sandbox, sc, command...)
	if err := f.StartContainer(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	return id
}

// exited waits until a container has ended.
func (f *fixture) exited(id string) *cri.ContainerStatus {
	f.Helper()
	deadline := time.Now().Add(patience)
	for {
		s, err := f.ContainerStatus(f.ctx, id)
		if err != nil {
			f.Fatal(err)
		}
		if s.State == cri.ContainerState_CONTAINER_EXITED {
			return s
		}
		if time.Now().After(deadline) {
			f.Fatalf("container %s is still %s", id, s.State)
		}
	}
}

func images(f *fixture) {
	i, err := f.Image(f.ctx, f.Harness.Image)
	if err != nil {
		f.Fatal(err)
	}
	if !slices.Contains(i.RepoTags, f.Harness.Image) || i.Size == 0 {
		f.Errorf("image = %v", i)
	}
	all, err := f.ListImages(f.ctx)
	if err != nil || !slices.ContainsFunc(all, func(o *cri.Image) bool { return o.Id == i.Id }) {
		f.Errorf("the image is not listed: %v, %v", all, err)
	}
	if err := f.RemoveImage(f.ctx, f.Harness.Image); err != nil {
		f.Fatal(err)
	}
	if _, err := f.Image(f.ctx, f.Harness.Image); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("after removal: %v", err)
	}
	if err := f.RemoveImage(f.ctx, f.Harness.Image); err != nil {
		f.Errorf("second removal: %v", err)
	}
	names, err := f.ImportImage(f.ctx, f.Archive(f.T))
	if err != nil || !slices.Equal(names, []string{f.Harness.Image}) {
		f.Errorf("import = %v, %v", names, err)
	}
	// The same archive again changes nothing.
	if names, err = f.ImportImage(f.ctx, f.Archive(f.T)); err != nil || !slices.Equal(names, []string{f.Harness.Image}) {
		f.Errorf("second import = %v, %v", names, err)
	}
	// Nobody could pull it again, so it is not to be collected.
	if i, err = f.Image(f.ctx, f.Harness.Image); err != nil || !i.Pinned {
		f.Errorf("imported image = %v, %v: want it pinned", i, err)
	}
	if all, err = f.ListImages(f.ctx); err != nil || !slices.ContainsFunc(all, func(o *cri.Image) bool { return o.Id == i.Id && o.Pinned }) {
		f.Errorf("the imported image is not listed as pinned: %v, %v", all, err)
	}
	if _, err := f.ImportImage(f.ctx, strings.NewReader("no archive at all")); err == nil {
		f.Error("garbage was imported")
	}
}

func sandboxLifecycle(f *fixture) {
	id, config := f.sandbox("sandbox")
	if other, err := f.RunSandbox(f.ctx, config, ""); err == nil {
		f.Errorf("attempt 0 of the pod was made twice: %s and %s", id, other)
	}
	s, err := f.SandboxStatus(f.ctx, id)
	if err != nil || s.State != cri.PodSandboxState_SANDBOX_READY {
		f.Fatalf("status = %v, %v", s, err)
	}
	f.sandbox("sandbox-2")
	list, err := f.Sandboxes(f.ctx, config.Labels)
	if err != nil || len(list) != 1 || list[0].Id != id {
		f.Errorf("with its labels are %v, %v", list, err)
	}
	if err := f.StopSandbox(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	if s, err = f.SandboxStatus(f.ctx, id); err != nil || s.State != cri.PodSandboxState_SANDBOX_NOTREADY {
		f.Fatalf("status after stop = %v, %v", s, err)
	}
	if err := f.RemoveSandbox(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	list, err = f.Sandboxes(f.ctx, nil)
	if err != nil || len(list) == 0 || slices.ContainsFunc(list, func(s *cri.PodSandbox) bool { return s.Id == id }) {
		f.Errorf("still listed: %v", err)
	}
}

func containerLifecycle(f *fixture) {
	sb, sc := f.sandbox("container")
	id := f.create(sb, sc, "sleep", "1000")
	s, err := f.ContainerStatus(f.ctx, id)
	if err != nil || s.State != cri.ContainerState_CONTAINER_CREATED {
		f.Fatalf("created: %v, %v", s, err)
	}
	if err := f.StartContainer(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	if s, err = f.ContainerStatus(f.ctx, id); err != nil || s.State != cri.ContainerState_CONTAINER_RUNNING || s.StartedAt == 0 {
		f.Fatalf("started: %v, %v", s, err)
	}
	other, otherConfig := f.sandbox("container-2")
	f.create(other, otherConfig, "sleep", "1000")
	list, err := f.Containers(f.ctx, sc.Labels)
	if err != nil || len(list) != 1 || list[0].Id != id || list[0].PodSandboxId != sb {
		f.Errorf("with its labels are %v, %v", list, err)
	}
	if list, err = f.Containers(f.ctx, nil); err != nil || len(list) < 2 {
		f.Errorf("all are %v, %v", list, err)
	}
	if err := f.StopContainer(f.ctx, id, 0); err != nil {
		f.Fatal(err)
	}
	if s = f.exited(id); s.ExitCode != 137 || s.FinishedAt == 0 {
		f.Errorf("stopped: %v", s)
	}
	if err := f.RemoveContainer(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	if _, err := f.ContainerStatus(f.ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("removed: %v", err)
	}
}

func exitCode(f *fixture) {
	sb, sc := f.sandbox("exit")
	if s := f.exited(f.start(sb, sc, "sh", "-c", "exit 3")); s.ExitCode != 3 || s.Reason != "Error" {
		f.Errorf("status = %v", s)
	}
	if s := f.exited(f.start(sb, sc, "sh", "-c", "exit 0")); s.ExitCode != 0 || s.Reason != "Completed" {
		f.Errorf("status = %v", s)
	}
}

func events(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	var mu sync.Mutex
	seen := map[string]bool{}
	changed := make(chan struct{}, 1)
	connected := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- f.Events(ctx, func(e *cri.ContainerEventResponse) {
			mu.Lock()
			defer mu.Unlock()
			seen[e.ContainerId+" "+e.ContainerEventType.String()] = true
			select {
			case changed <- struct{}{}:
			default:
			}
		}, func() {
			select {
			case connected <- struct{}{}:
			default:
			}
		}, func() { f.Error("the runtime went away") })
	}()
	<-connected
	sb, sc := f.sandbox("events")
	id := f.start(sb, sc, "sh", "-c", "exit 3")
	f.exited(id)
	if err := f.RemoveContainer(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	for _, want := range []string{
		sb + " CONTAINER_STARTED_EVENT",
		id + " CONTAINER_CREATED_EVENT", id + " CONTAINER_STARTED_EVENT",
		id + " CONTAINER_STOPPED_EVENT", id + " CONTAINER_DELETED_EVENT",
	} {
		for {
			mu.Lock()
			ok := seen[want]
			mu.Unlock()
			if ok {
				break
			}
			select {
			case <-changed:
			case <-time.After(patience):
				f.Fatalf("no event %q among %v", want, seen)
			}
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		f.Errorf("end = %v", err)
	}
}

func idempotentEnds(f *fixture) {
	sb, sc := f.sandbox("idempotent")
	id := f.start(sb, sc, "sleep", "1000")
	for range 2 {
		if err := errors.Join(f.StopContainer(f.ctx, id, 0), f.StopSandbox(f.ctx, sb)); err != nil {
			f.Error(err)
		}
	}
	for range 2 {
		if err := errors.Join(f.RemoveContainer(f.ctx, id), f.RemoveSandbox(f.ctx, sb)); err != nil {
			f.Error(err)
		}
	}
}

func stopKills(f *fixture) {
	sb, sc := f.sandbox("stop")
	id := f.start(sb, sc, "sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 1; done")
	f.logged("ready")
	if err := f.StopContainer(f.ctx, id, 20); err != nil {
		f.Fatal(err)
	}
	if s := f.exited(id); s.ExitCode != 7 {
		f.Errorf("a container that handles TERM: %v", s)
	}
}

func execSync(f *fixture) {
	sb, sc := f.sandbox("execsync")
	id := f.start(sb, sc, "sleep", "1000")
	out, errOut, code, err := f.ExecSync(f.ctx, id, []string{"sh", "-c", "echo out; echo err >&2; exit 4"}, 10)
	if err != nil || code != 4 || string(out) != "out\n" || string(errOut) != "err\n" {
		f.Errorf("exec = %q, %q, %d, %v", out, errOut, code, err)
	}
	if _, _, _, err := f.ExecSync(f.ctx, id, []string{"sleep", "1000"}, 1); !errors.Is(err, context.DeadlineExceeded) {
		f.Errorf("exec over its time: %v", err)
	}
}

func execStreams(f *fixture) {
	sb, sc := f.sandbox("exec")
	id := f.start(sb, sc, "sleep", "1000")
	var out, errOut bytes.Buffer
	err := f.Exec(f.ctx, id, []string{"sh", "-c", "cat; echo err >&2"}, runtime.Streams{
		Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut,
	})
	if err != nil || out.String() != "hello" || errOut.String() != "err\n" {
		f.Errorf("exec = %q, %q, %v", out.String(), errOut.String(), err)
	}
}

func execExitCode(f *fixture) {
	sb, sc := f.sandbox("execexit")
	id := f.start(sb, sc, "sleep", "1000")
	err := f.Exec(f.ctx, id, []string{"sh", "-c", "exit 5"}, runtime.Streams{Stdout: io.Discard})
	var exit *runtime.ExitError
	if !errors.As(err, &exit) || exit.Code != 5 {
		f.Errorf("exec = %v", err)
	}
}

// logged waits until the container's log has a line that ends with text.
func (f *fixture) logged(text string) string {
	f.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(filepath.Join(f.logs, "main.log"))
		if err == nil && strings.Contains(string(b), text+"\n") {
			return string(b)
		}
		if time.Now().After(deadline) {
			f.Fatalf("log = %q, %v", b, err)
		}
	}
}

// The log's format is the CRI's: time, stream, P or F, text.
func logs(f *fixture) {
	sb, sc := f.sandbox("logs")
	f.exited(f.start(sb, sc, "sh", "-c", "echo hello"))
	line := strings.Fields(f.logged("hello"))
	if len(line) != 4 || line[1] != "stdout" || line[2] != "F" {
		f.Errorf("log line = %q", line)
	}
	if _, err := time.Parse(time.RFC3339Nano, line[0]); err != nil {
		f.Errorf("time of log line: %v", err)
	}
}

// A log that was renamed and reopened goes on in a new file: no line is lost and
// none is there twice.
func reopenLog(f *fixture) {
	sb, sc := f.sandbox("reopen")
	id := f.start(sb, sc, "sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.01; done")
	f.logged("line 9")
	file := filepath.Join(f.logs, "main.log")
	if err := os.Rename(file, file+".old"); err != nil {
		f.Fatal(err)
	}
	if err := f.ReopenLog(f.ctx, id); err != nil {
		f.Fatal(err)
	}
	f.logged("line 99")
	if err := f.StopContainer(f.ctx, id, 0); err != nil {
		f.Fatal(err)
	}
	f.exited(id)
	var all []byte
	for _, name := range []string{file + ".old", file} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b...)
	}
	n := 0
	for line := range strings.Lines(string(all)) {
		if !strings.HasSuffix(line, fmt.Sprintf(" stdout F line %d\n", n)) {
			f.Fatalf("line %d of both files: %q", n, line)
		}
		n++
	}
}

func unknown(f *fixture) {
	if _, err := f.ContainerStatus(f.ctx, "0123"); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("container: %v", err)
	}
	if _, err := f.SandboxStatus(f.ctx, "0123"); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("sandbox: %v", err)
	}
	if _, err := f.Image(f.ctx, "hansa.local/nothing:1"); !errors.Is(err, runtime.ErrNotFound) {
		f.Errorf("image: %v", err)
	}
}

func stats(f *fixture) {
	sb, sc := f.sandbox("stats")
	id := f.start(sb, sc, "sleep", "1000")
	s, err := f.ContainerStats(f.ctx, id)
	if err != nil || s.GetAttributes().GetId() != id {
		f.Errorf("stats = %v, %v", s, err)
	}
	if err := f.UpdateContainer(f.ctx, id, &cri.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}); err != nil {
		f.Error(err)
	}
}

func missingCommand(f *fixture) {
	sb, sc := f.sandbox("missing")
	id := f.create(sb, sc, "/no/such/program")
	if err := f.StartContainer(f.ctx, id); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		f.Errorf("start = %v", err)
	}
}
