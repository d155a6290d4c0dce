package agent

import (
	"context"
	"fmt"
	"time"

	"hansa.dev/hansa/client/events"
)

// leastJump is by how much the clock has to be set for it to be of any consequence:
// tokens and leases are reckoned in seconds.
const leastJump = time.Second

// clockJumped says that the clock was set, and renews what others judge by the time
// of day: the lease and the pods' tokens. What waits for a time of day waits anew.
func (a *Agent) clockJumped(by time.Duration) {
	if by.Abs() < leastJump {
		return
	}
	way := "forward"
	if by < 0 {
		way = "back"
	}
	a.nodeEvent(events.Warning, "ClockJumped", fmt.Sprintf("The clock jumped %s by %s: it was set, or the machine was suspended", way, by.Abs().Round(time.Millisecond)))
	a.keeper.Renew()
	a.post(func(context.Context) {
		for _, w := range a.workers {
			w.Refresh()
		}
	})
}
