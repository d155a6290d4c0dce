// Package cmp stands for github.com/google/go-cmp/cmp in bin/hansa, where only
// etcd's consistency check of its tests refers to it. The real one looks at methods
// by reflection, and a program that does so keeps all exported methods of all its
// types: with it the program has 15 MiB more. Tests and `go build` have the real
// one.
package cmp

import "reflect"

// Option is none: there are no options here.
type Option struct{}

// Diff says whether two values differ, not in what.
func Diff(x, y any, _ ...Option) string {
	if reflect.DeepEqual(x, y) {
		return ""
	}
	return "they differ"
}
