package clockjump

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A clock that is put on by a nanosecond was set, and by hardly anything.
func TestWatch(t *testing.T) {
	jumps := make(chan time.Duration, 10)
	stop, err := Watch(func(by time.Duration) { jumps <- by })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		change := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Usec: 1}}
		if _, err := unix.Adjtimex(&change); err != nil {
			t.Fatal(err)
		}
		if by := <-jumps; by.Abs() > 100*time.Millisecond {
			t.Errorf("the clock jumped by %v", by)
		}
	}
	stop()
}
