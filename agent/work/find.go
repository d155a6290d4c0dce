package work

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
)

// Found is a run that somebody wants to look at.
type Found struct {
	ID      string
	LogFile string
	Running bool
	// Ended is closed once the run is over.
	Ended <-chan struct{}
}

// FindRun finds the newest run of a container, or the one before it. Its errors
// are for users to read.
func (w *Worker) FindRun(ctx context.Context, container string, previous bool) (Found, error) {
	var found Found
	err := w.ask(ctx, func() (err error) {
		found, err = w.findRun(container, previous)
		return err
	})
	return found, err
}

// FindSandbox finds the pod's sandbox, if it is ready.
func (w *Worker) FindSandbox(ctx context.Context) (string, error) {
	id := ""
	err := w.ask(ctx, func() error {
		if !w.state.Sandbox.Ready {
			return fmt.Errorf("pod %s is not running", w.state.Pod.Name)
		}
		id = w.state.Sandbox.ID
		return nil
	})
	return id, err
}

// ask runs f on the worker's goroutine and waits for it.
func (w *Worker) ask(ctx context.Context, f func() error) error {
	answer := make(chan error, 1)
	w.post(func(time.Time) { answer <- f() })
	select {
	case err := <-answer:
		return err
	case <-w.done:
		return errors.New("the pod has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *Worker) findRun(container string, previous bool) (Found, error) {
	p := w.state.Pod
	c := w.state.Containers[container]
	if c == nil {
		return Found{}, fmt.Errorf("container %q in pod %q is not available", container, p.Name)
	}
	i := 0
	if previous {
		// While the next run is not there, the one that ended is the previous.
		i = slices.IndexFunc(c.Runs, func(r *pod.Run) bool { return r.Ended() && (r != c.Runs[0] || len(c.Runs) == 1 && c.Attempts > 1) })
		if i < 0 {
			return Found{}, fmt.Errorf("previous terminated container %q in pod %q not found", container, p.Name)
		}
	}
	if len(c.Runs) == 0 {
		reason := "ContainerCreating"
		st := w.state.Status(w.node.Clock.Now())
		for _, cs := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses) {
			if cs.Name == container && cs.State.Waiting != nil {
				reason = cs.State.Waiting.Reason
			}
		}
		return Found{}, fmt.Errorf("container %q in pod %q is waiting to start: %s", container, p.Name, reason)
	}
	r := c.Runs[i]
	return Found{
		ID: r.ID, Running: r.Running(), Ended: w.endOf(r),
		LogFile: filepath.Join(w.logDir(p), logs.File(container, r.Attempt)),
	}, nil
}

// endOf is a channel that is closed once a run is over.
func (w *Worker) endOf(r *pod.Run) <-chan struct{} {
	if w.ends == nil {
		w.ends = map[string]chan struct{}{}
	}
	ch := w.ends[r.ID]
	if ch == nil {
		ch = make(chan struct{})
		w.ends[r.ID] = ch
		w.closeEnds()
	}
	return ch
}

// closeEnds closes the channels of the runs that are over.
func (w *Worker) closeEnds() {
	if len(w.ends) == 0 {
		return
	}
	going := map[string]bool{}
	for _, c := range w.state.Containers {
		for _, r := range c.Runs {
			going[r.ID] = !r.Ended()
		}
	}
	for id, ch := range w.ends {
		if !going[id] {
			close(ch)
			delete(w.ends, id)
		}
	}
}

// Logs are the log files that running containers write to, by container ID.
func (w *Worker) Logs() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs
}

// Ended are the ended runs of containers that may go. Not to be written to.
func (w *Worker) Ended() []pod.Ended {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// shareLogs makes what Logs and Ended give; it is not written to afterwards.
func (w *Worker) shareLogs() {
	logFiles := map[string]string{}
	for _, c := range w.state.Containers {
		if r := c.Running(); r != nil {
			logFiles[r.ID] = filepath.Join(w.logDir(w.state.Pod), logs.File(c.Name, r.Attempt))
		}
	}
	ended := w.state.Old()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logs, w.ended = logFiles, ended
}
