package agent

import (
	"context"
	"time"
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
