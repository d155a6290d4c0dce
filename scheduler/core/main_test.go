package core

import (
	"flag"
	"os"
	"testing"
)

// TestMain asks for more random histories than rapid's default, and for no files
// about those that fail: the seed that is printed is enough.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "1000", "rapid.nofailfile": "true", "rapid.steps": "60"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
