package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/volume"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/runtime/fake"
)

// What a pod that is gone got since the runtime was looked at goes with the rest.
func TestOrphanIsLookedAtAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clk := clocktesting.NewFakeClock(time.Unix(1000, 0))
		runtime := fake.New(clk)
		layout, err := cgroup.Detect("/sys/fs/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		keeper, err := logs.NewKeeper(t.TempDir(), logs.Limits{}, clk)
		if err != nil {
			t.Fatal(err)
		}
		a := &Agent{Config: Config{Runtime: runtime, Clock: clk, Log: slog.New(slog.DiscardHandler)}, node: &work.Node{
			Runtime: runtime, Volumes: volume.New(volume.Config{PodsDir: t.TempDir(), Clock: clk}),
			Groups: cgroup.New(layout, "/hansa-none", nil), Logs: keeper, LogsDir: t.TempDir(),
		}}
		sandbox := func(attempt uint32) {
			_, err := runtime.RunSandbox(t.Context(), &cri.PodSandboxConfig{
				Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "u", Attempt: attempt},
				Labels:   map[string]string{work.LabelUID: "u"},
			}, "")
			if err != nil {
				t.Fatal(err)
			}
		}
		sandbox(0)
		known, err := a.look(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		runtime.Fail("StopSandbox", errors.New("not now"))
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.removeOrphan(t.Context(), "u", known["u"])
		}()
		synctest.Wait()
		sandbox(1)
		clk.Step(orphanPause)
		<-done
		if left, err := runtime.Sandboxes(t.Context(), nil); len(left) > 0 || err != nil {
			t.Errorf("left are %v, %v", left, err)
		}
	})
}

// A runtime that comes and goes is looked at each time that it is there, and
// afterwards as often as one that came once.
func TestLooksAfterReconnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clk := clocktesting.NewFakeClock(time.Unix(1000, 0))
		ctx, cancel := context.WithCancel(t.Context())
		a := &Agent{Config: Config{Clock: clk}, wake: make(chan struct{}, 1)}
		for range 5 {
			a.reconnected(ctx)
		}
		for _, want := range []int{5, 1, 1} {
			synctest.Wait()
			if got := len(a.take()); got != want {
				t.Errorf("%d looks, want %d", got, want)
			}
			clk.Step(callsPause)
		}
		cancel()
		a.running.Wait()
	})
}
