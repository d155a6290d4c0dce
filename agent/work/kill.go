package work

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/internal/whole"
)

// killing is a kill in progress.
type killing struct {
	number int
	cancel context.CancelFunc
	// hooked says that the preStop hook has been run, or is no longer waited
	// for.
	hooked bool
	// noted says that the file of againFile tells of it, or is about to.
	noted bool
}

// minStop is what a container has for the stop signal, however short its grace
// period is and however long its preStop hook took.
const minStop = 2 * time.Second

// kill runs the preStop hook and stops a run, both within the grace period. A
// kill of the same run with an earlier deadline replaces the one in progress;
// the hook is not run twice.
func (w *Worker) kill(ctx context.Context, a pod.Action) step {
	c := w.state.Containers[a.Container]
	before := w.kills[a.Container]
	own := &killing{}
	if before != nil {
		before.cancel()
		own.number, own.hooked, own.noted = before.number+1, true, before.noted
	} else {
		w.containerEvent(a.Container, v1.EventTypeNormal, "Killing", a.Message)
	}
	var killCtx context.Context
	killCtx, own.cancel = context.WithCancel(ctx)
	w.kills[a.Container] = own
	t := hookTarget{spec: c.Spec, ip: first(w.state.Sandbox.IPs), id: a.ID}
	report, sandbox := w.reporter(a.Container), c.Running().Sandbox
	note, again := a.Again && !own.noted, w.againFile(a.Container)
	own.noted = own.noted || note
	return func(context.Context) (func(), error) {
		defer own.cancel()
		if note {
			noteAgain(again, a) //nolint:errcheck // it is for the case that this agent dies
		}
		left := a.Grace
		if l := t.spec.Lifecycle; !own.hooked && l != nil && l.PreStop != nil && a.Grace > 0 {
			left = w.preStop(killCtx, l.PreStop, t, a.Grace, report)
		}
		err := w.node.Runtime.StopContainer(killCtx, a.ID, int64(math.Ceil(max(left, minStop).Seconds())))
		st, statusErr := w.node.Runtime.ContainerStatus(ctx, a.ID)
		if err == nil && statusErr == nil && st.State == cri.ContainerState_CONTAINER_RUNNING {
			// Its shim may have died. Trying again at once would not help.
			err = fmt.Errorf("container %s was stopped and is still running", a.ID)
		}
		return func() {
			if statusErr == nil {
				w.observeRun(sandbox, st)
			}
			if w.kills[a.Container] == own {
				delete(w.kills, a.Container)
			}
		}, err
	}
}

// againFile names, once a container is killed for another run to follow, the run that
// is killed, and in further lines why: for an agent that comes before that is done.
func (w *Worker) againFile(container string) string {
	return filepath.Join(w.node.Volumes.PodDir(w.uid), "containers", container, "again")
}

func noteAgain(file string, a pod.Action) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return whole.Write(file, []byte(a.ID+"\n"+a.Message))
}

// recall takes what a former agent had noted of kills.
func (w *Worker) recall() {
	for name, c := range w.state.Containers {
		if len(c.Runs) == 0 {
			continue
		}
		if note, err := os.ReadFile(w.againFile(name)); err == nil { // else there is none
			id, why, _ := strings.Cut(string(note), "\n")
			w.state.Recall(name, id, why)
		}
	}
}

// preStop runs the hook for as long as the grace period allows and answers what
// is left of it.
func (w *Worker) preStop(ctx context.Context, h *v1.LifecycleHandler, t hookTarget, grace time.Duration, report func(kind, reason, message string)) time.Duration {
	start := w.node.Clock.Now()
	done := make(chan error, 1)
	hookCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { done <- w.hook(hookCtx, h, t) }()
	timer := w.node.Clock.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil && ctx.Err() == nil {
			report(v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
	case <-timer.C():
	case <-ctx.Done():
	}
	return grace - w.node.Clock.Since(start)
}

// removeLogs removes the log files of one attempt.
func (w *Worker) removeLogs(p *v1.Pod, container string, attempt int) error {
	if attempt < 0 {
		return nil
	}
	base := filepath.Join(w.logDir(p), container, strconv.Itoa(attempt)+".log")
	files, err := filepath.Glob(base + "*")
	if err != nil {
		return fmt.Errorf("list logs of container %s: %w", container, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove log of container %s: %w", container, err)
		}
	}
	return nil
}
