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

// A clock that is set just before it is compared: the kernel tells of that when it was
// taken in already.
func TestJumpBeforeItIsTold(t *testing.T) {
	for _, c := range []struct {
		by   time.Duration
		told bool
		want bool
	}{
		{time.Hour, true, true}, {0, true, true},
		{time.Second, false, true}, {-time.Second, false, true},
		{interval * 500 / 1_000_000, false, false}, {-interval * 500 / 1_000_000, false, false},
	} {
		if got := isJump(c.by, c.told); got != c.want {
			t.Errorf("by %v, told %v: a jump: %v", c.by, c.told, got)
		}
	}
}

// The kernel says when it is armed anew that the clock was set before that.
func TestArmAfterJump(t *testing.T) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, _, err := arm(fd); err != nil {
		t.Fatal(err)
	}
	change := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO, Time: unix.Timeval{Usec: 1}}
	if _, err := unix.Adjtimex(&change); err != nil {
		t.Fatal(err)
	}
	if _, set, err := arm(fd); err != nil || !set {
		t.Errorf("set %v, %v", set, err)
	}
}
