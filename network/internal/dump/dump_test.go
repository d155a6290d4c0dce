package dump

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestWhole(t *testing.T) {
	failed := errors.New("failed")
	for _, tc := range []struct {
		name        string
		interrupted int
		err         error
		calls       int
		want        error
	}{
		{"at once", 0, nil, 1, nil},
		{"after two interruptions", 2, nil, 3, nil},
		{"another error", 1, failed, 2, failed},
		{"always interrupted", 1000, nil, attempts, netlink.ErrDumpInterrupted},
	} {
		calls := 0
		got, err := Whole(func() (int, error) {
			calls++
			if calls <= tc.interrupted {
				return 0, netlink.ErrDumpInterrupted
			}
			return 7, tc.err
		})
		if calls != tc.calls || !errors.Is(err, tc.want) || err == nil && got != 7 {
			t.Errorf("%s: %d, %v after %d calls", tc.name, got, err, calls)
		}
	}
}
