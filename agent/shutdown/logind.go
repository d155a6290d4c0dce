package shutdown

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// DefaultBus is where the system's bus is.
const DefaultBus = "unix:path=/run/dbus/system_bus_socket"

const (
	logind  = "org.freedesktop.login1"
	object  = dbus.ObjectPath("/org/freedesktop/login1")
	manager = logind + ".Manager"
)

// Logind is the connection to systemd-logind.
type Logind struct{ conn *dbus.Conn }

// Connect connects to logind by the bus of an address.
func Connect(address string) (*Logind, error) {
	conn, err := dbus.Connect(address)
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	return &Logind{conn}, nil
}

// Close ends the connection; locks stay until their files are closed.
func (l *Logind) Close() { l.conn.Close() } //nolint:errcheck // nothing is sent any more

// Delay is how long logind waits for those who inhibit, at most.
func (l *Logind) Delay() (time.Duration, error) {
	v, err := l.conn.Object(logind, object).GetProperty(manager + ".InhibitDelayMaxUSec")
	if err != nil {
		return 0, fmt.Errorf("ask logind for InhibitDelayMaxUSec: %w", err)
	}
	usec, ok := v.Value().(uint64)
	if !ok {
		return 0, errors.New("InhibitDelayMaxUSec of logind is no number")
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// Inhibit has shutdowns wait until the file is closed, for as long as logind
// allows.
func (l *Logind) Inhibit() (*os.File, error) {
	var fd dbus.UnixFD
	call := l.conn.Object(logind, object).Call(manager+".Inhibit", 0, "shutdown", "hansa", "pods have to end in order", "delay")
	if err := call.Store(&fd); err != nil {
		return nil, fmt.Errorf("delay shutdowns by logind: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}

// Prepare tells when the machine is going down (true) and when that is
// cancelled. The channel is closed when the connection ends.
func (l *Logind) Prepare() (<-chan bool, error) {
	err := l.conn.AddMatchSignal(dbus.WithMatchInterface(manager), dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(object))
	if err != nil {
		return nil, fmt.Errorf("watch logind for shutdowns: %w", err)
	}
	signals := make(chan *dbus.Signal, 4)
	l.conn.Signal(signals)
	out := make(chan bool, 4)
	go func() {
		defer close(out)
		for s := range signals {
			if s == nil || len(s.Body) == 0 {
				continue
			}
			if down, ok := s.Body[0].(bool); ok {
				out <- down
			}
		}
	}()
	return out, nil
}
