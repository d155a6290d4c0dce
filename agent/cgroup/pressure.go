package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Pressures are a group's stalls by what was waited for (Linux documentation,
// "PSI - Pressure Stall Information").
type Pressures struct {
	CPU, Memory, IO Pressure
	// Counted says that the kernel counts them.
	Counted bool
}

// Pressure is of the time in which some processes waited, and of that in which all
// did that could have run.
type Pressure struct{ Some, Full Stall }

// Stall is a time since the group was made, and its share of the last 10, 60 and 300
// seconds in per cent.
type Stall struct {
	Micros               uint64
	Avg10, Avg60, Avg300 float64
}

// Pressure is what the machine as a whole waits for.
func (t *Tree) Pressure() Pressures { return t.layout.Pressure("/") }

func (l *legacy) Pressure(string) Pressures { return Pressures{} }

// Pressure is empty on a kernel that does not count it: the files are not there, or
// cannot be read.
func (u *unified) Pressure(group string) Pressures {
	var p Pressures
	for file, to := range map[string]*Pressure{"cpu.pressure": &p.CPU, "memory.pressure": &p.Memory, "io.pressure": &p.IO} {
		data, err := os.ReadFile(filepath.Join(u.root, group, file))
		if err != nil {
			return Pressures{}
		}
		*to = parsePressure(string(data))
	}
	p.Counted = true
	return p
}

// parsePressure reads lines such as "some avg10=0.12 avg60=0.03 avg300=0.00 total=4711".
// Kernels before 5.13 have no full line of cpu.
func parsePressure(text string) Pressure {
	var p Pressure
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		to := map[string]*Stall{"some": &p.Some, "full": &p.Full}[fields[0]]
		if to == nil {
			continue
		}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(f, "=")
			if name == "total" {
				to.Micros = parse(value)
				continue
			}
			avg, err := strconv.ParseFloat(value, 64)
			if err != nil {
				continue // of a kernel to come
			}
			switch name {
			case "avg10":
				to.Avg10 = avg
			case "avg60":
				to.Avg60 = avg
			case "avg300":
				to.Avg300 = avg
			}
		}
	}
	return p
}
