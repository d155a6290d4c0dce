package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

func key(name string) api.Key { return api.Key{Namespace: "default", Name: name} }

func next(t *testing.T, q *Queue) api.Key {
	t.Helper()
	k, err := q.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestQueueGivesAKeyOnce(t *testing.T) {
	q := NewQueue(clock.RealClock{})
	q.Add(key("a"))
	q.Add(key("a"))
	q.Add(key("b"))
	if q.Len() != 2 {
		t.Errorf("length = %d, want 2", q.Len())
	}
	if k := next(t, q); k != key("a") {
		t.Errorf("first = %v", k)
	}
}

// A key that changes while it is worked on is worked on again, afterwards.
func TestQueueNeverGivesARunningKey(t *testing.T) {
	q := NewQueue(clock.RealClock{})
	q.Add(key("a"))
	a := next(t, q)
	q.Add(a)
	if q.Len() != 0 {
		t.Fatal("a running key is ready")
	}
	q.Done(a, 0, false)
	if k := next(t, q); k != a {
		t.Errorf("after done = %v", k)
	}
}

func TestQueueBackoffDoublesAndIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(clock.RealClock{})
		q.Add(key("a"))
		k := next(t, q)
		fail := func(want time.Duration) {
			t.Helper()
			start := time.Now()
			q.Done(k, 0, true)
			next(t, q)
			if got := time.Since(start); got != want {
				t.Errorf("backoff = %v, want %v", got, want)
			}
		}
		fail(firstBackoff)
		fail(2 * firstBackoff)
		fail(4 * firstBackoff)
		for range 30 {
			q.Done(k, 0, true)
			next(t, q)
		}
		fail(mostBackoff)
		q.Done(k, 0, false)
		q.Add(k)
		next(t, q)
		fail(firstBackoff)
	})
}

func TestQueueTakesTheEarliestOfSeveralDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(clock.RealClock{})
		q.AddAfter(key("a"), time.Hour)
		q.AddAfter(key("a"), time.Minute)
		q.AddAfter(key("a"), 2*time.Hour)
		start := time.Now()
		k := next(t, q)
		if got := time.Since(start); got != time.Minute {
			t.Errorf("given after %v, want a minute", got)
		}
		q.Done(k, 0, false)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if k, err := q.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given again: %v, %v", k, err)
		}
	})
}

func TestQueueWakesEveryWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(clock.RealClock{})
		got := make(chan api.Key)
		for range 3 {
			go func() {
				k, err := q.Next(t.Context())
				if err == nil {
					got <- k
				}
			}()
		}
		synctest.Wait()
		for _, n := range []string{"a", "b", "c"} {
			q.Add(key(n))
		}
		seen := map[api.Key]bool{}
		for range 3 {
			seen[<-got] = true
		}
		if len(seen) != 3 {
			t.Errorf("keys = %v", seen)
		}
	})
}
