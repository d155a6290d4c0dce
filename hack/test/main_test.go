package main

import (
	"slices"
	"strings"
	"testing"
)

// Every stage that tests something finds its packages: one that finds none
// would be green forever.
func TestEveryStageFindsItsPackages(t *testing.T) {
	t.Chdir("../..")
	for _, s := range stages {
		if s.command != nil {
			continue
		}
		packages, err := s.list(t.Context())
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		if len(packages) < len(s.packages) {
			t.Errorf("%s: %v finds only %v", s.name, s.packages, packages)
		}
		for _, e := range s.except {
			if slices.ContainsFunc(packages, func(p string) bool { return strings.HasPrefix(p, "hansa.dev/hansa/"+e) }) {
				t.Errorf("%s: %s is not left out", s.name, e)
			}
		}
	}
}
