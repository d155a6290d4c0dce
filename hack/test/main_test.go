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

// What needs the built programs runs after the build, and what a stage leaves
// out for that is tested by a later one.
func TestWhatIsBuiltIsTestedAfterTheBuild(t *testing.T) {
	build := slices.IndexFunc(stages, func(s stage) bool { return s.command != nil })
	for _, name := range afterBuild {
		if i := slices.IndexFunc(stages, func(s stage) bool { return s.name == name }); i < build {
			t.Errorf("%s is stage %d, the build is stage %d", name, i, build)
		}
	}
	for _, s := range stages {
		for _, e := range s.except {
			if !slices.ContainsFunc(stages[build:], func(later stage) bool {
				return slices.ContainsFunc(later.packages, func(p string) bool {
					return strings.HasPrefix(strings.TrimPrefix(p, "./"), e)
				})
			}) {
				t.Errorf("%s leaves out %s, and no stage after the build tests it", s.name, e)
			}
		}
	}
}
