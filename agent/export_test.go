package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"hansa.dev/hansa/agent/metrics"
)

// CollectContainers counts ended containers, as every minute.
func (a *Agent) CollectContainers() { a.collectContainers() }

// CollectImages looks at images, as every five minutes.
func (a *Agent) CollectImages(ctx context.Context) { a.collectImages(ctx) }

// ImageInterval is how often images are looked at.
func (a *Agent) ImageInterval() time.Duration { return a.imageInterval() }

// KeepHouse tidies up once, as every ten seconds.
func (a *Agent) KeepHouse(ctx context.Context) {
	a.rotateLogs(ctx)
	a.makeRoom(ctx)
}

// CountAll counts each thing that happens once.
func (a *Agent) CountAll() {
	m, now := a.metrics, a.Clock.Now()
	m.Worked(metrics.Sync, 1)
	m.Admitted(1)
	m.Ran(1)
	m.Started(1, 1, false)
	m.Wrote(1)
	m.Sandbox(true, errors.New("no"))
	m.Start(metrics.Container, "ErrImagePull")
	m.End(metrics.Container, 1, "Error")
	m.ImageVolumes(1, nil)
	m.Pulled(1, 1)
	m.Collected(metrics.ForAge)
	m.Evicted("memory.available")
	m.Refused("OutOfcpu")
	m.Orphan()
	m.Restarted()
	m.Grouped("create", 1)
	m.ShutdownBegan(now)
	m.ShutdownEnded(now)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.Runtime.RunSandbox(over, nil, "none"); err == nil {
		panic("a sandbox of nothing runs")
	}
}

// Families are those of /metrics: type and labels by name.
func (a *Agent) Families() map[string]string {
	families, err := a.registry.Gather()
	if err != nil {
		panic(err) // it is a test
	}
	out := map[string]string{}
	for _, f := range families {
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		out[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + cmp.Or(strings.Join(labels, ","), "-")
	}
	return out
}
