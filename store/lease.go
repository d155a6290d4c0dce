package store

import (
	"context"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// A lease is shared by writes with the same time to live that come within
// leaseShare of it, and by at most leaseKeys of them: all keys of a lease are
// deleted in one transaction, which has slots for no more than 128.
const (
	leaseShare = 20 // one part in twenty of the time to live
	leaseKeys  = 100
)

// leases hands out engine leases for objects that are to disappear.
type leases struct {
	engine Engine
	clock  clock.Clock

	mu     sync.Mutex
	recent map[time.Duration]*shared
}

type shared struct {
	id    int64
	until time.Time
	left  int
}

func newLeases(e Engine, c clock.Clock) *leases {
	return &leases{engine: e, clock: c, recent: map[time.Duration]*shared{}}
}

// forget makes get not give a lease again.
func (l *leases) forget(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ttl, s := range l.recent {
		if s.id == id {
			delete(l.recent, ttl)
		}
	}
}

// get gives a lease that lasts at least the time, or 0 for no time.
func (l *leases) get(ctx context.Context, ttl time.Duration) (int64, error) {
	if ttl <= 0 {
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	if s := l.recent[ttl]; s != nil && s.left > 0 && now.Before(s.until) {
		s.left--
		return s.id, nil
	}
	window := ttl / leaseShare
	seconds := int64((ttl + window + time.Second - 1) / time.Second)
	id, err := l.engine.Grant(ctx, seconds)
	if err != nil {
		return 0, err
	}
	l.recent[ttl] = &shared{id: id, until: now.Add(window), left: leaseKeys - 1}
	return id, nil
}
