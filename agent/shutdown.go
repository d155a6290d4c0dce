package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/shutdown"
	"hansa.dev/hansa/client/events"
)

// errShutdown is why a node is not ready while its machine goes down.
var errShutdown = errors.New(shutdown.NotReady)

// busPause is how soon the system's bus is looked for again.
const busPause = time.Second

// keepShutdown ends the pods in order before the machine goes down, if the node
// is configured to. Without a logind to delay it there is no way to know in
// time: that is said, and looked for again.
func (a *Agent) keepShutdown(ctx context.Context) {
	if a.Settings.Grace() == 0 {
		return
	}
	said := ""
	for ctx.Err() == nil {
		err := a.watchShutdown(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			a.Log.Warn("no graceful node shutdown", "err", err)
			a.nodeEvent(events.Warning, "GracefulNodeShutdownUnavailable", said)
		}
		select {
		case <-ctx.Done():
		case <-a.Clock.After(busPause):
		}
	}
}

// watchShutdown delays shutdowns and does what they are delayed for, until the
// connection ends.
func (a *Agent) watchShutdown(ctx context.Context) error {
	l, err := shutdown.Connect(a.Bus)
	if err != nil {
		return err
	}
	defer l.Close()
	delay, err := l.Delay()
	if err != nil {
		return err
	}
	if want := a.Settings.Grace(); delay < want {
		a.nodeEvent(events.Warning, "GracefulNodeShutdownShortened",
			fmt.Sprintf("logind waits for %s only, not %s: set InhibitDelayMaxSec=%d in logind.conf", delay, want, int(want.Seconds())))
	}
	prepare, err := l.Prepare()
	if err != nil {
		return err
	}
	lock, err := l.Inhibit()
	if err != nil {
		return err
	}
	defer func() { closeLock(lock) }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case down, ok := <-prepare:
			if !ok {
				return errors.New("the connection to the system bus ended")
			}
			a.goingDown.Store(down)
			a.keeper.Poke()
			if !down {
				a.nodeEvent(events.Normal, "NodeShutdown", "Shutdown manager detected shutdown cancellation")
				closeLock(lock)
				if lock, err = l.Inhibit(); err != nil {
					return err
				}
				continue
			}
			a.nodeEvent(events.Normal, "NodeShutdown", "Shutdown manager detected shutdown event")
			a.endInOrder(ctx)
			closeLock(lock)
			lock = nil
		}
	}
}

func closeLock(lock *os.File) {
	if lock != nil {
		lock.Close() //nolint:errcheck // nothing was written to it
	}
}

// endInOrder ends the pods, group by group, each for as long as it has.
func (a *Agent) endInOrder(ctx context.Context) {
	a.metrics.ShutdownBegan(a.Clock.Now())
	defer func() { a.metrics.ShutdownEnded(a.Clock.Now()) }()
	running := slices.DeleteFunc(a.pods(), pod.Terminal)
	for _, g := range shutdown.Plan(shutdown.Periods(&a.Settings.KubeletConfiguration), running) {
		a.workersMu.RLock()
		for _, p := range g.Pods {
			if w := a.workers[p.UID]; w != nil {
				w.Terminate(shutdown.Reason, shutdown.Message, g.For(p))
			}
		}
		a.workersMu.RUnlock()
		a.awaitEnd(ctx, g)
	}
}

// awaitEnd waits until the pods of a group have ended, or its time is over.
func (a *Agent) awaitEnd(ctx context.Context, g shutdown.Group) {
	deadline := a.Clock.NewTimer(g.Grace)
	defer deadline.Stop()
	look := a.Clock.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		left := slices.DeleteFunc(a.pods(), func(p *v1.Pod) bool {
			return pod.Terminal(p) || !slices.ContainsFunc(g.Pods, func(o *v1.Pod) bool { return o.UID == p.UID })
		})
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-deadline.C():
			return
		case <-look.C():
		}
	}
}
