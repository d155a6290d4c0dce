package agent

import "context"

// CollectContainers counts ended containers, as every minute.
func (a *Agent) CollectContainers() { a.collectContainers() }

// CollectImages looks at images, as every five minutes.
func (a *Agent) CollectImages(ctx context.Context) { a.collectImages(ctx) }

// KeepHouse tidies up once, as every ten seconds.
func (a *Agent) KeepHouse(ctx context.Context) {
	a.rotateLogs(ctx)
	a.makeRoom(ctx)
}
