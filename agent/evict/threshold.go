package evict

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
)

// Signal is what there may be too little of ("Node-pressure Eviction",
// "Eviction signals").
type Signal string

// The signals. NodeFS is the file system of the data directory, ImageFS that of
// images and containers' own files, which is looked at only where it is another
// one. Allocatable is memory below the limit of all pods together.
const (
	Memory       Signal = "memory.available"
	Allocatable  Signal = "allocatableMemory.available"
	NodeFS       Signal = "nodefs.available"
	NodeInodes   Signal = "nodefs.inodesFree"
	ImageFS      Signal = "imagefs.available"
	ImageInodes  Signal = "imagefs.inodesFree"
	PIDs         Signal = "pid.available"
	inodes              = v1.ResourceName("inodes")
	pids                = v1.ResourceName("pids")
	containerFS  Signal = "containerfs.available"
	containerIno Signal = "containerfs.inodesFree"
)

var resourceOf = map[Signal]v1.ResourceName{
	Memory: v1.ResourceMemory, Allocatable: v1.ResourceMemory,
	NodeFS: v1.ResourceEphemeralStorage, ImageFS: v1.ResourceEphemeralStorage,
	NodeInodes: inodes, ImageInodes: inodes, PIDs: pids,
}

// Resource is what a signal is about.
func (s Signal) Resource() v1.ResourceName { return resourceOf[s] }

// Disk says that removing images and ended containers may help.
func (s Signal) Disk() bool {
	return s.Resource() == v1.ResourceEphemeralStorage || s.Resource() == inodes
}

// Images says that it is about the file system of images.
func (s Signal) Images() bool { return s == ImageFS || s == ImageInodes }

// Condition is the node's condition that a signal sets.
func (s Signal) Condition() v1.NodeConditionType {
	switch s.Resource() {
	case v1.ResourceMemory:
		return v1.NodeMemoryPressure
	case pids:
		return v1.NodePIDPressure
	}
	return v1.NodeDiskPressure
}

// Amount is an absolute number (bytes, inodes, processes) or a part of what
// there is.
type Amount struct {
	Absolute int64
	Part     float64 // of the capacity; counts if Absolute is 0
}

// of is the amount where there is so much in all.
func (a Amount) of(capacity int64) int64 {
	if a.Absolute != 0 {
		return a.Absolute
	}
	return int64(a.Part * float64(capacity))
}

// Threshold is where the node begins to take back what it is short of.
type Threshold struct {
	Signal Signal
	Min    Amount
	// Grace is how long it has to be passed before pods are evicted; 0 for at
	// once, which is what makes it a hard one.
	Grace time.Duration
	// Reclaim is how much more than Min has to be free again.
	Reclaim Amount
}

// Hard says that it leaves no grace.
func (t Threshold) Hard() bool { return t.Grace == 0 }

// Thresholds parses the texts of a KubeletConfiguration: evictionHard,
// evictionSoft, evictionSoftGracePeriod and evictionMinimumReclaim. They come
// in the order of their signals, hard ones first.
func Thresholds(hard, soft, grace, reclaim map[string]string) ([]Threshold, error) {
	reclaims, err := amounts("evictionMinimumReclaim", reclaim)
	if err != nil {
		return nil, err
	}
	graces := map[Signal]time.Duration{}
	for _, signal := range slices.Sorted(maps.Keys(grace)) {
		d, err := time.ParseDuration(grace[signal])
		switch {
		case resourceOf[Signal(signal)] == "" || Signal(signal) == Allocatable:
			return nil, unknown("evictionSoftGracePeriod", signal)
		case err != nil:
			return nil, fmt.Errorf("evictionSoftGracePeriod: %s: %w", signal, err)
		case d < 0:
			return nil, fmt.Errorf("evictionSoftGracePeriod: %s: %s is negative", signal, grace[signal])
		}
		graces[Signal(signal)] = d
	}
	var out []Threshold
	for field, texts := range map[string]map[string]string{"evictionHard": hard, "evictionSoft": soft} {
		mins, err := amounts(field, texts)
		if err != nil {
			return nil, err
		}
		for signal, min := range mins {
			if min == (Amount{}) {
				continue // 0% and 100% stand for none
			}
			t := Threshold{Signal: signal, Min: min, Reclaim: reclaims[signal]}
			if field == "evictionSoft" {
				d, ok := graces[signal]
				if !ok {
					return nil, fmt.Errorf("evictionSoft: %s: evictionSoftGracePeriod has to say for how long", signal)
				}
				t.Grace = d
			}
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Threshold) int {
		if a.Hard() != b.Hard() {
			if a.Hard() {
				return -1
			}
			return 1
		}
		return strings.Compare(string(a.Signal), string(b.Signal))
	})
	return out, nil
}

func unknown(field, signal string) error {
	if s := Signal(signal); s == containerFS || s == containerIno {
		return fmt.Errorf("%s: %s is that of images here: give imagefs thresholds", field, signal)
	}
	return fmt.Errorf("%s: %q is no signal; there are %s, %s, %s, %s, %s, %s", field, signal, Memory, NodeFS, NodeInodes, ImageFS, ImageInodes, PIDs)
}

func amounts(field string, texts map[string]string) (map[Signal]Amount, error) {
	out := map[Signal]Amount{}
	for _, signal := range slices.Sorted(maps.Keys(texts)) {
		if resourceOf[Signal(signal)] == "" || Signal(signal) == Allocatable {
			return nil, unknown(field, signal)
		}
		a, err := amount(texts[signal], field == "evictionMinimumReclaim")
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", field, signal, err)
		}
		out[Signal(signal)] = a
	}
	return out, nil
}

// amount parses "100Mi" or "10%". Thresholds of nothing at all are refused,
// reclaims of nothing are not.
func amount(text string, reclaim bool) (Amount, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		part, err := strconv.ParseFloat(number, 32)
		switch {
		case err != nil:
			return Amount{}, fmt.Errorf("%q is not a percentage", text)
		case part < 0 || part > 100:
			return Amount{}, fmt.Errorf("%s is not between 0%% and 100%%", text)
		case !reclaim && (part == 0 || part == 100):
			return Amount{}, nil
		}
		return Amount{Part: part / 100}, nil
	}
	q, err := apiresource.ParseQuantity(text)
	switch {
	case err != nil:
		return Amount{}, fmt.Errorf("%q is neither a quantity such as 100Mi nor a percentage", text)
	case q.Sign() < 0, q.IsZero() && !reclaim:
		return Amount{}, fmt.Errorf("%s is not positive", text)
	}
	return Amount{Absolute: q.Value()}, nil
}

// quantity is a number of what a signal counts, as messages show it.
func (s Signal) quantity(n int64) *apiresource.Quantity {
	if s.Resource() == inodes || s.Resource() == pids {
		return apiresource.NewQuantity(n, apiresource.DecimalSI)
	}
	return apiresource.NewQuantity(n, apiresource.BinarySI)
}
