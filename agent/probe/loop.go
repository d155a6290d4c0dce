package probe

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// Loop probes one container until its context ends.
type Loop struct {
	Clock clock.WithTicker
	Probe *v1.Probe
	// Since is when the container was started.
	Since time.Time
	// Once carries out one probe.
	Once func(ctx context.Context) (Outcome, error)
	// Changed is called when the result has passed its threshold: with the
	// first result, and whenever it changes.
	Changed func(ok bool)
	// Failed is called for each failure that counts, with what there is to say.
	Failed func(o Outcome)
	// Eager says that the container is not ready yet and may be probed more
	// often than every period, so that it gets ready sooner. Nil for never.
	Eager func() bool
	// StopAfter ends the loop when the result is this; nil for never.
	StopAfter func(ok bool) bool
}

// eagerFirst is the first pause of an eager probe; it doubles up to the period.
const eagerFirst = 100 * time.Millisecond

// Run probes. The schedule follows "Configure probes": the first one after
// initialDelaySeconds, then one every periodSeconds, a result counting once it
// has come successThreshold or failureThreshold times in a row.
func (l *Loop) Run(ctx context.Context) {
	period := time.Duration(max(l.Probe.PeriodSeconds, 1)) * time.Second
	first := l.Since.Add(time.Duration(l.Probe.InitialDelaySeconds) * time.Second)
	if !l.sleep(ctx, first.Sub(l.Clock.Now())) {
		return
	}
	due := l.Clock.Now() // of the next probe on schedule
	pause := eagerFirst
	var last, known, result bool
	run := int32(0)
	for {
		scheduled := !l.Clock.Now().Before(due)
		if scheduled {
			due = l.Clock.Now().Add(period)
		}
		o, err := l.Once(ctx)
		if ctx.Err() != nil {
			return
		}
		// A probe that could not be carried out says nothing; nor does the
		// failure of one that was only tried to be early.
		if err == nil && (scheduled || o.OK) {
			if o.OK == last && run > 0 {
				run++
			} else {
				last, run = o.OK, 1
			}
			if !o.OK {
				l.Failed(o)
			}
			if run >= l.threshold(o.OK) && (!known || result != o.OK) {
				known, result = true, o.OK
				l.Changed(o.OK)
				if l.StopAfter != nil && l.StopAfter(o.OK) {
					return
				}
			}
		}
		wait := due.Sub(l.Clock.Now())
		if l.Eager != nil && l.Eager() && pause < wait {
			wait = pause
			pause *= 2
		}
		if !l.sleep(ctx, wait) {
			return
		}
	}
}

func (l *Loop) threshold(ok bool) int32 {
	if ok {
		return max(l.Probe.SuccessThreshold, 1)
	}
	if l.Probe.FailureThreshold > 0 {
		return l.Probe.FailureThreshold
	}
	return 3
}

func (l *Loop) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := l.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C():
		return true
	}
}
