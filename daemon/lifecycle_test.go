package daemon

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestPartsStopInReverseOrder(t *testing.T) {
	l := newLifecycle(context.Background())
	var order []string
	for _, name := range []string{"store", "api", "agent"} {
		l.run(name, func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name)
			return ctx.Err()
		})
		l.cleanup(name, func() error { order = append(order, "close "+name); return nil })
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	want := []string{"close agent", "agent", "close api", "api", "close store", "store"}
	if !slices.Equal(order, want) {
		t.Errorf("order = %v, want %v", order, want)
	}
}

func TestFirstFailureStopsAll(t *testing.T) {
	l := newLifecycle(context.Background())
	stopped := false
	l.run("steady", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
	broken := errors.New("broken")
	l.run("fragile", func(context.Context) error { return broken })
	if err := l.wait(); !errors.Is(err, broken) || err.Error() != "fragile: broken" {
		t.Errorf("wait = %v", err)
	}
	if err := l.stop(); err != nil {
		t.Error(err)
	}
	if !stopped {
		t.Error("the steady part was not stopped")
	}
}

func TestAPartMayNotJustEnd(t *testing.T) {
	l := newLifecycle(context.Background())
	l.run("brief", func(context.Context) error { return nil })
	if err := l.wait(); err == nil || err.Error() != "brief ended unexpectedly" {
		t.Errorf("wait = %v", err)
	}
	if err := l.stop(); err != nil {
		t.Error(err)
	}
}

func TestEndOfContextIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	l := newLifecycle(ctx)
	cancel()
	if err := l.wait(); err != nil {
		t.Errorf("wait = %v", err)
	}
}
