package work

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/probe"
)

// probes are the loops that run, by what they probe.
type probes map[probed]context.CancelFunc

type probed struct {
	container, run string
	kind           pod.ProbeKind
}

// syncProbes starts and stops loops so that exactly those run that should: a
// startup probe until it succeeds, then liveness and readiness. A pod that has
// to end keeps its readiness probes only.
func (w *Worker) syncProbes(ctx context.Context) {
	want := map[probed]*v1.Probe{}
	for _, c := range w.state.All() {
		run := c.Running()
		if run == nil || !c.Up || c.Unfit != "" {
			continue
		}
		add := func(kind pod.ProbeKind, p *v1.Probe) {
			if p != nil {
				want[probed{c.Name, run.ID, kind}] = p
			}
		}
		ending := w.state.Stop != nil
		if !c.Started {
			if !ending {
				add(pod.Startup, c.Spec.StartupProbe)
			}
			continue
		}
		add(pod.Readiness, c.Spec.ReadinessProbe)
		if !ending {
			add(pod.Liveness, c.Spec.LivenessProbe)
		}
	}
	for key, stop := range w.probes {
		if want[key] == nil {
			stop()
			delete(w.probes, key)
		}
	}
	for key, p := range want {
		if w.probes[key] != nil {
			continue
		}
		if w.probes == nil {
			w.probes = probes{}
		}
		probeCtx, cancel := context.WithCancel(ctx)
		w.probes[key] = cancel
		go w.loop(key, p).Run(probeCtx)
	}
}

func (w *Worker) stopProbes() {
	for _, stop := range w.probes {
		stop()
	}
}

func (w *Worker) loop(key probed, p *v1.Probe) *probe.Loop {
	c := w.state.Containers[key.container]
	run := c.Running()
	target := probe.Target{Container: c.Spec, IP: w.probeIP(), Exec: func(ctx context.Context, command []string, timeout time.Duration) (string, int, error) {
		out, errOut, code, err := w.node.Runtime.ExecSync(ctx, key.run, command, int64(timeout.Seconds()))
		return string(append(out, errOut...)), int(code), err
	}}
	report := w.reporter(key.container)
	of := w.state.Pod
	subject := probe.Subject{Kind: title(key.kind), Container: key.container, Pod: of.Name, Namespace: of.Namespace, UID: string(of.UID)}
	l := &probe.Loop{
		Clock: w.node.Clock,
		Probe: p,
		Since: run.Started,
		Once: func(ctx context.Context) (probe.Outcome, error) {
			began := w.node.Clock.Now()
			o, err := probe.Once(ctx, p, target)
			if ctx.Err() == nil {
				w.node.Probes.Observe(subject, o, err, w.node.Clock.Since(began))
			}
			if err != nil && ctx.Err() == nil {
				report(v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe errored and resulted in unknown state: %v", title(key.kind), err))
			}
			if o.Warning {
				report(v1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", title(key.kind), o.Message))
			}
			return o, err
		},
		Changed: func(ok bool) {
			w.post(func(time.Time) { w.state.Probed(key.container, key.run, key.kind, ok) })
		},
		Failed: func(o probe.Outcome) {
			report(v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", title(key.kind), o.Message))
		},
	}
	switch key.kind {
	case pod.Startup:
		l.StopAfter = func(bool) bool { return true }
	case pod.Readiness:
		ready := false
		changed := l.Changed
		l.Changed = func(ok bool) { ready = ok; changed(ok) }
		// A command costs a process each time; it is not run more often.
		if p.Exec == nil {
			l.Eager = func() bool { return !ready }
		}
	}
	return l
}

func (w *Worker) probeIP() string {
	if w.state.Pod.Spec.HostNetwork {
		return first(w.node.IPs)
	}
	return first(w.state.Sandbox.IPs)
}

func title(kind pod.ProbeKind) string {
	switch kind {
	case pod.Startup:
		return "Startup"
	case pod.Liveness:
		return "Liveness"
	default:
		return "Readiness"
	}
}
