// Package clockjump tells when the machine's clock was set, by somebody or after a
// suspension. What waits by a monotonic clock for a time of day has to look again
// then: nothing else would wake it.
package clockjump

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// never is a time that does not come.
const never = 1 << 40 // seconds

// Watch calls jumped each time that the clock was set, from a goroutine of its own,
// until stop is called. jumped must not block.
func Watch(jumped func()) (stop func(), err error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make a timer that follows the clock: %w", err)
	}
	f := os.NewFile(uintptr(fd), "clock")
	at := unix.ItimerSpec{Value: unix.Timespec{Sec: never}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &at, nil); err != nil {
		f.Close()
		return nil, fmt.Errorf("set a timer that follows the clock: %w", err)
	}
	go func() {
		var count [8]byte
		for {
			// A timer that is canceled stays set.
			if _, err := f.Read(count[:]); err != nil && !errors.Is(err, unix.ECANCELED) {
				return
			}
			jumped()
		}
	}()
	return func() { f.Close() }, nil
}
