package main

import (
	"errors"
	"fmt"
)

// bounds are what figures must stay below, wherever they are measured: a node whose
// lease takes that long, or a server that grows that much by being read, is broken.
// The limits of design/performance.md are for a quiet machine.
var bounds = append(floodBounds(), []bound{
	{"lists100k_slow_growth", 512, "MiB"},
	{"lists100k_chunks_growth", 512, "MiB"},
	{"lists100k_fast_growth", 512, "MiB"},
}...)

type bound struct {
	name  string
	below float64
	unit  string
}

// floodBounds are those of everybody who is measured, within a flood of each sort.
func floodBounds() (all []bound) {
	for _, sort := range floodSorts {
		for _, who := range (&load{}).others(nil) {
			all = append(all, bound{floodName(sort) + "_" + who.name + "_p99", 100, "ms"})
		}
	}
	return all
}

// exceeded says which bounds do not hold. What was not measured is in order.
func exceeded(median func(name string) (float64, bool)) error {
	var errs []error
	for _, b := range bounds {
		if value, ok := median(b.name); ok && value >= b.below {
			errs = append(errs, fmt.Errorf("%s is %.0f %s, and must stay below %.0f", b.name, value, b.unit, b.below))
		}
	}
	return errors.Join(errs...)
}
