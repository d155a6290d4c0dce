// Package clockjump tells when the machine's clock was set, by somebody or after a
// suspension, and by how much. What waits by a monotonic clock for a time of day has
// to look again then: nothing else would wake it.
package clockjump

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// interval is how often the clock is compared although nobody set it. It is adjusted
// by up to 500 millionths all the time (adjtimex(2)), which is no jump: drift is more
// than that can come to.
const (
	interval = 10 * time.Minute
	drift    = interval / 1000
)

// Watch calls jumped each time that the clock was set, from a goroutine of its own,
// until stop is called, with what the time of day moved beyond what passed: positive
// for a clock that was put on, or a machine that was suspended. jumped must not block.
func Watch(jumped func(by time.Duration)) (stop func(), err error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer that follows the clock: %w", err)
	}
	f := os.NewFile(uintptr(fd), "clock")
	ahead, _, err := arm(fd)
	if err != nil {
		f.Close()
		return nil, err
	}
	go func() {
		var count [8]byte
		for {
			_, err := f.Read(count[:])
			set := errors.Is(err, unix.ECANCELED)
			if err != nil && !set {
				return
			}
			// The file may have been closed: the number is another's then.
			raw, err := f.SyscallConn()
			if err != nil {
				return
			}
			var now time.Duration
			var again bool
			var armed error
			if err := raw.Control(func(fd uintptr) { now, again, armed = arm(int(fd)) }); err != nil || armed != nil {
				return
			}
			if by := now - ahead; isJump(by, set || again) {
				jumped(by)
			}
			ahead = now
		}
	}()
	return func() { f.Close() }, nil
}

// isJump says whether the clock was set by so much: the kernel said that it was, or
// has not said so yet, for it was set a moment ago.
func isJump(by time.Duration, told bool) bool { return told || by.Abs() > drift }

// arm sets the timer, and then answers with how far the time of day is ahead of
// what has passed since the machine was started, and whether the clock was set since
// it was armed last. What is answered may have in it what the timer tells of later.
func arm(fd int) (ahead time.Duration, set bool, err error) {
	day, _, err := clocks()
	if err != nil {
		return 0, false, err
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(day + interval))}
	err = unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &at, nil)
	// With this error the timer is armed, too.
	if set = errors.Is(err, unix.ECANCELED); err != nil && !set {
		return 0, false, fmt.Errorf("set a timer that follows the clock: %w", err)
	}
	day, passed, err := clocks()
	return day - passed, set, err
}

// clocks are the time of day since 1970, and the time that has passed since the
// machine was started, without what it was suspended: both of one moment, also when
// somebody else had the processor between two looks.
func clocks() (day, passed time.Duration, err error) {
	for {
		var real, before, after unix.Timespec
		if err := errors.Join(unix.ClockGettime(unix.CLOCK_MONOTONIC, &before), unix.ClockGettime(unix.CLOCK_REALTIME, &real), unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)); err != nil {
			return 0, 0, fmt.Errorf("read the clock: %w", err)
		}
		if time.Duration(after.Nano()-before.Nano()) < drift/10 {
			return time.Duration(real.Nano()), time.Duration(before.Nano()), nil
		}
	}
}
