package agent

import (
	"context"
	"time"

	"hansa.dev/hansa/agent/logs"
)

// Limits of container logs, those of Kubernetes.
const (
	maxLogSize     = 10 << 20
	maxLogFiles    = 5
	rotateInterval = 10 * time.Second
)

// rotateLogs keeps the logs of running containers at a bounded size.
func (a *Agent) rotateLogs(ctx context.Context) error {
	tick := a.Clock.NewTicker(rotateInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C():
		}
		for _, l := range a.openLogs() {
			reopen := func() error { return a.Runtime.ReopenLog(ctx, l.id) }
			if err := logs.Rotate(l.file, maxLogSize, maxLogFiles, a.Clock.Now(), reopen); err != nil && ctx.Err() == nil {
				a.Log.Warn("container log not rotated", "file", l.file, "err", err)
			}
		}
	}
}

type openLog struct{ id, file string }

func (a *Agent) openLogs() []openLog {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	var out []openLog
	for _, w := range a.workers {
		for id, file := range w.Logs() {
			out = append(out, openLog{id, file})
		}
	}
	return out
}
