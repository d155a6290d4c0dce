package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// figures prints what was measured as it comes.
type figures struct {
	out  io.Writer
	json bool
}

// Figure prints one figure.
func (r *Rig) Figure(name string, value float64, unit string) {
	digits := 2
	if value >= 100 {
		digits = 0
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if r.figures.json {
		b, _ := json.Marshal(struct { //nolint:errcheck // a string and a number
			Name  string      `json:"name"`
			Value json.Number `json:"value"`
			Unit  string      `json:"unit"`
		}{name, json.Number(text), unit})
		fmt.Fprintf(r.figures.out, "%s\n", b)
		return
	}
	fmt.Fprintln(r.figures.out, name, text, unit)
}

// Seconds prints a duration.
func (r *Rig) Seconds(name string, d time.Duration) { r.Figure(name, d.Seconds(), "s") }

// Spread prints the median of durations in milliseconds, and beside it the
// smallest and the largest.
func (r *Rig) Spread(name string, ds []time.Duration) {
	if len(ds) == 0 {
		return
	}
	ds = slices.Sorted(slices.Values(ds))
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	r.Figure(name, ms(Quantile(ds, 0.5)), "ms")
	r.Figure(name+"_min", ms(ds[0]), "ms")
	r.Figure(name+"_max", ms(ds[len(ds)-1]), "ms")
}

// Quantile is the value below which that share of the sorted values lies.
func Quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
