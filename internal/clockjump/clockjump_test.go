package clockjump

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A clock that is put on by a nanosecond was set.
func TestWatch(t *testing.T) {
	jumps := make(chan struct{}, 10)
	stop, err := Watch(func() { jumps <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		change := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Usec: 1}}
		if _, err := unix.Adjtimex(&change); err != nil {
			t.Fatal(err)
		}
		<-jumps
	}
	stop()
}
