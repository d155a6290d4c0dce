package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"
)

// figures prints what was measured as it comes, and remembers it.
type figures struct {
	out  io.Writer
	json bool
	// rounds is set while what comes will be printed as medians.
	rounds bool
	names  []string // in the order of their first values
	series map[string]*series
}

// series are the values that came by one name.
type series struct {
	unit   string
	values []float64
}

func (s *series) median() float64 {
	sorted := slices.Sorted(slices.Values(s.values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Figure prints one figure.
func (r *Rig) Figure(name string, value float64, unit string) {
	f := r.figures
	s := f.series[name]
	if s == nil {
		s = &series{unit: unit}
		f.series[name], f.names = s, append(f.names, name)
	}
	s.values = append(s.values, value)
	if f.rounds {
		fmt.Fprintf(os.Stderr, "# %s %s %s\n", name, digits(value), unit)
		return
	}
	f.print(name, value, unit)
}

// Rounds calls do n times. When that is more than once, figures go to standard
// error as they come, and afterwards the median of each is printed.
func (r *Rig) Rounds(n int, do func() error) error {
	f := r.figures
	f.rounds = n > 1
	defer func() { f.rounds = false }()
	for i := range n {
		if n > 1 {
			fmt.Fprintf(os.Stderr, "# round %d of %d\n", i+1, n)
		}
		if err := do(); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	if n > 1 {
		for _, name := range f.names {
			f.print(name, f.series[name].median(), f.series[name].unit)
		}
	}
	return nil
}

// Median is that of the figures given by a name; there may be none.
func (r *Rig) Median(name string) (_ float64, ok bool) {
	s := r.figures.series[name]
	if s == nil {
		return 0, false
	}
	return s.median(), true
}

func digits(value float64) string {
	if value >= 100 {
		return strconv.FormatFloat(value, 'f', 0, 64)
	}
	return strconv.FormatFloat(value, 'f', 2, 64)
}

func (f *figures) print(name string, value float64, unit string) {
	if f.json {
		b, _ := json.Marshal(struct { //nolint:errcheck // a string and a number
			Name  string      `json:"name"`
			Value json.Number `json:"value"`
			Unit  string      `json:"unit"`
		}{name, json.Number(digits(value)), unit})
		fmt.Fprintf(f.out, "%s\n", b)
		return
	}
	fmt.Fprintln(f.out, name, digits(value), unit)
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
