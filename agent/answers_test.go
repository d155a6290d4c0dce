package agent

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hansa.dev/hansa/runtime"
)

// A runtime that says nothing: the node is ready for 30 s more, unless it said last
// that it is not; and it is called hung once a minute. One that cannot say how it is,
// and says that, is down as well, but does not hang.
func TestRuntimeAnswers(t *testing.T) {
	no := &runtime.NotReady{Condition: "RuntimeReady", Reason: "Why", Message: "so"}
	silence := context.DeadlineExceeded
	broken := &runtime.Error{Doing: "ask status of container runtime", Said: "server is not initialized yet"}
	const failing = "container runtime is down: ask status of container runtime: server is not initialized yet"
	const down, refused = "container runtime is down: context deadline exceeded", "container runtime not ready: RuntimeReady=false reason:Why message:so"
	start := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	var a answers
	for _, c := range []struct {
		at    int // seconds, of the question; silence takes five more
		err   error
		ready string // "" for ready
		hung  bool
	}{
		{0, silence, down, false}, // nothing is known yet
		{10, nil, "", false},
		{20, silence, "", false}, {34, silence, "", false},
		{35, silence, down, false}, {74, silence, down, false},
		{75, silence, down, true}, {80, silence, down, false}, {134, silence, down, false}, {135, silence, down, true},
		{140, nil, "", false},
		{150, no, refused, false}, {160, silence, refused, false}, {175, silence, down, false},
		{180, no, refused, false}, {190, nil, "", false}, {400, silence, down, false}, {455, silence, down, true},
		{500, nil, "", false}, {510, broken, "", false}, {530, broken, failing, false}, {600, broken, failing, false}, {700, broken, failing, false},
		{710, silence, down, false}, {754, silence, down, false}, {755, silence, down, true}, {760, broken, failing, false}, {814, silence, down, false},
	} {
		asked := start.Add(time.Duration(c.at) * time.Second)
		now := asked
		if c.err == silence {
			now = asked.Add(askTime)
		}
		hung := a.note(c.err, asked, now)
		got := ""
		if err := a.ready(c.err, now); err != nil {
			got = fmt.Sprint(err)
		}
		if got != c.ready || hung != c.hung {
			t.Errorf("at %d: %q, hung %v; want %q, %v", c.at, got, hung, c.ready, c.hung)
		}
	}
}
