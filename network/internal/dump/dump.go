// Package dump reads lists from the kernel whole. The kernel marks a list that
// changed while it was being read, and netlink then returns what there is with
// an error: something may be missing from it.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// attempts is many because each is short and, while pods come and go, any may
// be interrupted.
const attempts = 50

// Whole repeats list until it was not interrupted. After many attempts it
// returns the last result with its error.
func Whole[T any](list func() (T, error)) (T, error) {
	for range attempts - 1 {
		out, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return list()
}
