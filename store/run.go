package store

import (
	"context"
	"errors"
	"time"
)

// History is kept for historyKept, and cut that often; the quota is looked at
// every statusEvery.
const (
	historyKept = 5 * time.Minute
	statusEvery = 30 * time.Second
)

// Shares of the quota, in percent, at which to warn and at which to refuse
// creates.
const (
	quotaWarn   = 80
	quotaRefuse = 95
)

// Pressure is how full the database is.
type Pressure struct {
	Status
	Warn   bool // at 80 % of the quota: something should be done
	Refuse bool // at 95 %: creates are refused with 507, except for leases
}

// Run compacts the history and watches the quota until the context ends.
// Several servers may do this at the same time: each forgets only what it saw
// five minutes ago.
func (s *Store) Run(ctx context.Context) error {
	compact := s.opts.Clock.NewTicker(historyKept)
	defer compact.Stop()
	status := s.opts.Clock.NewTicker(statusEvery)
	defer status.Stop()
	then := s.snap.Load().revision
	var before []int64 // revisions seen at the last ticks of status
	s.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.life.Done():
			return nil
		case <-compact.C():
			now := s.snap.Load().revision
			if err := s.engine.Compact(ctx, then); err != nil && !errors.Is(err, ErrFutureRevision) {
				s.opts.Logger.Warn("the store could not forget its old history", "revision", then, "error", err)
			}
			then = now
		case <-status.C():
			before = append(before, s.snap.Load().revision)
			if len(before) > ringTicks {
				s.forget(before[0])
				before = before[1:]
			}
			s.look(ctx)
		}
	}
}

// ringTicks of statusEvery are how long recent events are kept at most, so
// that a quiet store does not hold on to what nobody will ask for.
const ringTicks = 3

func (s *Store) forget(revision int64) {
	for _, t := range s.layout.Load().all() {
		t.dropUntil(lastOf(revision))
	}
}

// Relax lets go of recent events but for the newest of each resource, and those
// that a watcher still waits for: the engine's history has them. For a process
// that has come to rest; any goroutine may call it.
func (s *Store) Relax() {
	for _, t := range s.layout.Load().all() {
		t.relax()
	}
}

// look acts on how full the database is.
func (s *Store) look(ctx context.Context) {
	p, err := s.Pressure(ctx)
	if err != nil {
		if ctx.Err() == nil && s.life.Err() == nil {
			s.opts.Logger.Warn("the store could not find out how full it is", "error", err)
		}
		return
	}
	if p.Refuse != s.full.Swap(p.Refuse) {
		s.opts.Logger.Warn("the store changed its mind on creates", "refused", p.Refuse, "bytes", p.InUse, "quota", p.Quota)
	}
	if s.opts.OnPressure != nil {
		s.opts.OnPressure(p)
	}
}

// Pressure tells how full the database is. What counts is the space in use:
// the file does not shrink, but its free pages are used first.
func (s *Store) Pressure(ctx context.Context) (Pressure, error) {
	status, err := s.engine.Status(ctx)
	if err != nil {
		return Pressure{}, errRead("ask how full the database is", err)
	}
	p := Pressure{Status: status}
	if status.Quota > 0 {
		percent := status.InUse * 100 / status.Quota
		p.Warn, p.Refuse = percent >= quotaWarn, percent >= quotaRefuse
	}
	return p, nil
}
