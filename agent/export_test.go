package agent

import "context"

// KeepHouse tidies up once, as every ten seconds.
func (a *Agent) KeepHouse(ctx context.Context) {
	a.rotateLogs(ctx)
	if !a.evictOverLimit(ctx) {
		a.relieve(ctx)
	}
}
