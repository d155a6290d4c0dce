package cri_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	crv1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime/containerd"
	"hansa.dev/hansa/runtime/cri"
)

// meanwhile gives a folder of the carried programs with a containerd that, when it is
// started, first does what a script says: then no containerd runs, and the one to come
// has not looked yet at what there is.
func meanwhile(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	programs, err := os.ReadDir(binDir(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if p.Name() == "containerd" {
			continue
		}
		if err := os.Symlink(filepath.Join(binDir(t), p.Name()), filepath.Join(dir, p.Name())); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("#!/bin/sh\n%s\nexec %s/containerd \"$@\"\n", script, binDir(t))
	if err := os.WriteFile(filepath.Join(dir, "containerd"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// How a container ended is known whenever it did: while containerd was away, after what
// was known of ends had been kept, and before the next one looked. So is that it was
// killed for memory.
func TestExitsWhileContainerdIsAway(t *testing.T) {
	c := config(t)
	t.Cleanup(func() { down(t, c) })
	pids := filepath.Join(t.TempDir(), "pids") // of containers that are to end then
	c.BinDir = meanwhile(t, fmt.Sprintf(`
for pid in $(cat %s 2>/dev/null); do
	: >/proc/$pid/root/go
	while kill -0 $pid 2>/dev/null; do sleep 0.01; done
done`, pids))
	s, client := up(t, c)
	client.Exit = c.Exit
	ctx := t.Context()
	if _, err := client.ImportImage(ctx, busybox(t)); err != nil {
		t.Fatal(err)
	}
	awaited := `while [ ! -e /go ]; do sleep 0.1; done; exit `
	before := started(t, client, c, "before", awaited+"5")
	then := started(t, client, c, "then", awaited+"6")
	well := started(t, client, c, "well", awaited+"0")
	on := started(t, client, c, "on", awaited+"7")
	taken := started(t, client, c, "taken", awaited+"8")
	const eats = `while [ ! -e /go ]; do sleep 0.1; done; exec tail /dev/zero`
	killed := started(t, client, c, "killed", eats)
	killedThen := started(t, client, c, "killed-then", eats)
	killedAlone := started(t, client, c, "killed-alone", eats) // its shim is, too
	alone := started(t, client, c, "alone", awaited+"9")
	if err := os.WriteFile(pids, fmt.Appendln(nil, pidOf(t, c, then), pidOf(t, c, well), pidOf(t, c, killedThen)), 0o600); err != nil {
		t.Fatal(err)
	}

	// Of one it has heard, and cannot write it down.
	dir := filepath.Join(c.DataDir, "containerd", "io.containerd.grpc.v1.cri", "containers", taken)
	if err := errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	end(t, c, taken)
	until(t, "its task is deleted", func() bool {
		_, err := os.Stat(bundle(c, taken))
		return err != nil
	})
	if err := unix.Kill(s.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	end(t, c, before)
	end(t, c, killed)
	for _, id := range []string{killedAlone, alone} {
		endWithShim(t, c, id)
	}
	if err := unix.Kill(s.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	ran, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := s.PID()
	done := make(chan error, 1)
	go func() { done <- s.Run(ran) }()
	until(t, "containerd runs again", func() bool { return s.PID() != gone })
	for id, want := range map[string]int32{before: 5, then: 6, well: 0, taken: 8, alone: 9, killed: 137, killedThen: 137, killedAlone: 137} {
		st, err := client.ContainerStatus(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		reason := "Error"
		switch want {
		case 0:
			reason = "Completed"
		case 137:
			reason = "OOMKilled"
		}
		if st.State != crv1.ContainerState_CONTAINER_EXITED || st.ExitCode != want || st.Reason != reason || st.FinishedAt < st.StartedAt {
			t.Errorf("container %s, that ended with %d: %v", st.GetMetadata().GetName(), want, st)
		}
	}
	if st, err := client.ContainerStatus(ctx, on); err != nil || st.State != crv1.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the one that goes on: %v, %v", st, err)
	}
	end(t, c, on)
	until(t, "it has ended, too", func() bool {
		st, err := client.ContainerStatus(ctx, on)
		ended := err == nil && st.State == crv1.ContainerState_CONTAINER_EXITED
		if ended && st.ExitCode != 7 {
			t.Errorf("the one that ended afterwards: %v", st)
		}
		return ended
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// end has a container end that waits for it.
func end(t *testing.T, c containerd.Config, id string) {
	t.Helper()
	n := pidOf(t, c, id)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/go", n), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the container has ended", func() bool { return unix.Kill(n, 0) != nil })
}

// endWithShim is end, and then its shim dies.
func endWithShim(t *testing.T, c containerd.Config, id string) {
	t.Helper()
	shim := parentOf(t, pidOf(t, c, id))
	end(t, c, id)
	until(t, "its shim has written it down", func() bool {
		_, err := os.Stat(filepath.Join(bundle(c, id), "exit.json"))
		return err == nil
	})
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// bundle is where containerd has a container's task.
func bundle(c containerd.Config, id string) string {
	return filepath.Join(c.RunDir, "containerd", "io.containerd.runtime.v2.task", "k8s.io", id)
}

// pidOf is a container's first process.
func pidOf(t *testing.T, c containerd.Config, id string) (pid int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(bundle(c, id), "init.pid"))
	if err == nil {
		_, err = fmt.Sscan(string(text), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// parentOf is the process that started another: a shim a container's first.
func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, after, _ := strings.Cut(string(text), ") ") // the name may have spaces
		_, err = fmt.Sscanf(after, "%1s %d", new(string), &parent)
	}
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

// until waits for what a test needs.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(time.Minute); !is(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("not for a minute: %s", what)
		}
	}
}

// started starts a container with a shell, in a sandbox of its own.
func started(t *testing.T, client *cri.Client, c containerd.Config, name, script string) string {
	t.Helper()
	id := created(t, client, c, name, script)
	if err := client.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return id
}

func created(t *testing.T, client *cri.Client, c containerd.Config, name, script string) string {
	t.Helper()
	ctx := t.Context()
	sc := &crv1.PodSandboxConfig{
		Metadata: &crv1.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		Linux: &crv1.LinuxPodSandboxConfig{
			CgroupParent:    c.CgroupRoot + "/pods/besteffort/" + name,
			SecurityContext: &crv1.LinuxSandboxSecurityContext{NamespaceOptions: &crv1.NamespaceOption{Network: crv1.NamespaceMode_NODE, Pid: crv1.NamespaceMode_CONTAINER}},
		},
	}
	sandbox, err := client.RunSandbox(ctx, sc, "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := client.CreateContainer(ctx, sandbox, &crv1.ContainerConfig{
		Metadata: &crv1.ContainerMetadata{Name: name}, Image: &crv1.ImageSpec{Image: image}, Command: []string{"sh", "-c", script},
		Linux: &crv1.LinuxContainerConfig{
			Resources:       &crv1.LinuxContainerResources{MemoryLimitInBytes: 32 << 20},
			SecurityContext: &crv1.LinuxContainerSecurityContext{NamespaceOptions: sc.Linux.SecurityContext.NamespaceOptions},
		},
	}, sc)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
