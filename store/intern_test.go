package store

import (
	"errors"
	"runtime"
	"testing"
	"time"
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
	count := func() int {
		runtime.GC()
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.known)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); count() > 1; {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("what nobody has is still known")
		}
	}
	if get("a") != a {
		t.Error("what somebody has was forgotten")
	}
}
