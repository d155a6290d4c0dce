package kinds_test

import (
	"testing"

	"hansa.dev/hansa/api/kinds"
)

func TestRegistryHoldsAllRows(t *testing.T) {
	if got, want := len(kinds.Registry().Resources()), len(kinds.All()); got != want {
		t.Errorf("registry has %d rows, want %d", got, want)
	}
}
