package store

import (
	"errors"
	"runtime"
	"sync"
	"testing"
)

// Equal bytes give one value while somebody has it; then it is forgotten.
func TestInterned(t *testing.T) {
	var in interned[[]byte]
	made := 0
	get := func(text string) *[]byte {
		t.Helper()
		v, err := in.get([]byte(text), func() (*[]byte, error) {
			made++
			value := []byte(text)
			return &value, nil
		})
		if err != nil || string(*v) != text {
			t.Fatalf("%q gave %v, %v", text, v, err)
		}
		return v
	}
	a, b := get("a"), get("b")
	if get("a") != a || get("b") != b || made != 2 {
		t.Errorf("two values were made %d times", made)
	}
	if _, err := in.get([]byte("c"), func() (*[]byte, error) { return nil, errors.ErrUnsupported }); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
	runtime.KeepAlive(b)
	collected(t, func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.known) == 1
	})
	if get("a") != a {
		t.Error("what somebody has was forgotten")
	}
}

// Values are made at the same time, also equal ones: all get one of them.
func TestInternedAtOnce(t *testing.T) {
	var in interned[int]
	const makers = 3
	got := make([]*int, makers)
	var making, done sync.WaitGroup
	making.Add(makers)
	for i := range makers {
		done.Go(func() {
			var err error
			got[i], err = in.get([]byte("a"), func() (*int, error) {
				making.Done()
				making.Wait() // until all are at it
				return &i, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if got[0] == nil || got[0] != got[1] || got[0] != got[2] {
		t.Errorf("equal bytes gave %v", got)
	}
}
