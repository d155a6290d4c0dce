package e2e

import (
	"slices"
	"testing"
)

// row is one thing that a node agent does, named by the noun that promises it.
type row struct {
	noun  string
	check func(*space)
}

// TestAgent has a row, at least, for every noun in the promise of what an agent
// does. Each runs in a namespace of its own.
func TestAgent(t *testing.T) {
	t.Parallel()
	for _, r := range slices.Concat(
		containerRows, environmentRows, volumeRows, resourceRows, probeRows(), restartRows, endRows,
		imageRows, registryRows, lifecycleRows, storageRows, sourceRows, securityRows, statusRows, logRows, streamRows, metricRows, nodeAPIRows, certificateRows,
	) {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}
