package events_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/events"
)

var start = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

func pod(name string) v1.ObjectReference {
	return events.About(v1.SchemeGroupVersion.WithKind("Pod"), &metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u-" + "1"}, "spec.containers{app}")
}

// note writes what the correlator decides, as a recorder does.
func note(c *events.Correlator, about v1.ObjectReference, message string, at time.Time) string {
	w, ok := c.Note(about, events.Warning, "Bad", message, at)
	if !ok {
		return "spam"
	}
	c.Written(w, w.Event)
	verb := "create"
	if w.Repeats {
		verb = "update"
	}
	return fmt.Sprintf("%s %q count=%d", verb, w.Event.Message, w.Event.Count)
}

// The same event again is counted; another one is a new object.
func TestSeries(t *testing.T) {
	c := events.NewCorrelator(v1.EventSource{Component: "kubelet", Host: "n1"})
	for i, want := range []string{`create "x" count=1`, `update "x" count=2`, `update "x" count=3`} {
		if got := note(c, pod("a"), "x", start.Add(time.Duration(i)*time.Minute)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := note(c, pod("a"), "y", start); got != `create "y" count=1` {
		t.Error(got)
	}
	if got := note(c, pod("b"), "x", start); got != `create "x" count=1` {
		t.Error(got)
	}
	w, _ := c.Note(pod("a"), events.Warning, "Bad", "x", start.Add(time.Hour))
	if e := w.Event; !e.FirstTimestamp.Time.Equal(start) || !e.LastTimestamp.Time.Equal(start.Add(time.Hour)) || e.Source.Host != "n1" || e.InvolvedObject.FieldPath != "spec.containers{app}" {
		t.Errorf("%+v", e)
	}
}

// Many different messages of one kind are folded into one event.
func TestFold(t *testing.T) {
	c := events.NewCorrelator(v1.EventSource{})
	var got []string
	for i := range 13 {
		got = append(got, note(c, pod("a"), fmt.Sprint(i), start))
	}
	want := []string{`create "9" count=1`, `create "(combined from similar events): 10" count=1`, `update "(combined from similar events): 11" count=2`, `update "(combined from similar events): 12" count=3`}
	if !slices.Equal(got[9:], want) {
		t.Errorf("got %q", got)
	}
	if got := note(c, pod("a"), "later", start.Add(11*time.Minute)); got != `create "later" count=1` {
		t.Errorf("after a pause: %s", got)
	}
}

// An object that never stops has one event every five minutes, others have
// theirs.
func TestSpam(t *testing.T) {
	c := events.NewCorrelator(v1.EventSource{})
	passed := 0
	for range 100 {
		if note(c, pod("a"), "x", start) != "spam" {
			passed++
		}
	}
	if passed != 25 {
		t.Errorf("%d passed", passed)
	}
	if got := note(c, pod("b"), "x", start); got == "spam" {
		t.Error("another object was hit")
	}
	if got := note(c, pod("a"), "x", start.Add(5*time.Minute)); !strings.HasPrefix(got, "update") {
		t.Errorf("after five minutes: %s", got)
	}
	if got := note(c, pod("a"), "x", start.Add(5*time.Minute)); got != "spam" {
		t.Errorf("again: %s", got)
	}
}

// Whatever is noted, the tables stay bounded, and what was used lately is
// remembered.
// A clock that was set back makes no spam of what is told next.
func TestSpamAfterClockJump(t *testing.T) {
	c := events.NewCorrelator(v1.EventSource{})
	for i, at := range []time.Duration{0, -24 * time.Hour, 0, -24 * time.Hour} {
		if got := note(c, pod("a"), fmt.Sprint(i), start.Add(at)); got == "spam" {
			t.Errorf("event %d, at %v: %s", i, at, got)
		}
	}
}

func TestBounded(t *testing.T) {
	c := events.NewCorrelator(v1.EventSource{})
	for i := range 20_000 {
		note(c, pod(fmt.Sprint(i)), "x", start)
		if i%500 == 0 {
			if got := note(c, pod("kept"), fmt.Sprint("y", i/2000), start.Add(time.Duration(i)*time.Second)); i%2000 != 0 && !strings.HasPrefix(got, "update") {
				t.Fatalf("forgotten after %d: %s", i, got)
			}
		}
	}
}

// Events reach the API; a repetition updates the object, also after it has
// expired.
func TestBroadcaster(t *testing.T) {
	client := direct.New(requesttest.Handler(t, nil), requesttest.Admin, "test")
	b := events.New(client, clock.RealClock{}, "kubelet", "n1", slog.Default())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	row := kinds.Registry().Must("", "events")
	find := func(what string, ok func([]*v1.Event) bool) []*v1.Event {
		t.Helper()
		timeout := time.After(20 * time.Second)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			var list []*v1.Event
			for obj := range client.View().List(row, "default") {
				list = append(list, obj.(*v1.Event))
			}
			if ok(list) {
				return list
			}
			select {
			case <-tick.C:
			case <-timeout:
				t.Fatalf("waited for %s in vain: %v", what, list)
			}
		}
	}
	for range 3 {
		b.Event(pod("a"), events.Normal, "Good", "fine")
	}
	list := find("three in one", func(l []*v1.Event) bool { return len(l) == 1 && l[0].Count == 3 })
	if e := list[0]; e.Reason != "Good" || e.Type != v1.EventTypeNormal || e.Source.Component != "kubelet" || e.ReportingController != "kubelet" {
		t.Errorf("%+v", e)
	}
	if err := client.Delete(t.Context(), requesttest.Ref("", "events", "default", list[0].Name), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.Event(pod("a"), events.Normal, "Good", "fine")
	find("it to be written again", func(l []*v1.Event) bool { return len(l) == 1 && l[0].Count == 4 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Nobody writes any more: noting does not block.
	for range 2000 {
		b.Event(pod("a"), events.Normal, "Good", "fine")
	}
	if b.Lost() == 0 {
		t.Error("a bounded queue lost nothing")
	}
}
