package evict_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"

	"hansa.dev/hansa/agent/evict"
)

func thresholds(t *testing.T, hard, soft, grace, reclaim map[string]string) []evict.Threshold {
	t.Helper()
	list, err := evict.Thresholds(hard, soft, grace, reclaim)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

var start = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// script observes one signal again and again, ten seconds apart, and prints
// which conditions hold and what is due.
func script(list []evict.Threshold, transition time.Duration, available ...int64) string {
	var s evict.State
	var out []string
	for i, n := range available {
		f := s.Observe(list, evict.Observations{evict.Memory: {Available: n, Capacity: 1000}}, transition, start.Add(time.Duration(i)*10*time.Second))
		line := fmt.Sprint(n)
		for _, c := range f.Conditions {
			line += " " + string(c)
		}
		for _, d := range f.Due {
			line += fmt.Sprintf(" due(%s)", d.Grace)
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

// "Node-pressure Eviction": hard thresholds act at once, soft ones after their
// grace period, which begins anew when there was enough in between.
func TestSoftAndHardThresholds(t *testing.T) {
	list := thresholds(t, map[string]string{"memory.available": "100"}, map[string]string{"memory.available": "30%"}, map[string]string{"memory.available": "20s"}, nil)
	got := script(list, time.Nanosecond, 500, 299, 299, 500, 299, 299, 299, 99, 500)
	want := "500; 299 MemoryPressure; 299 MemoryPressure; 500; 299 MemoryPressure; 299 MemoryPressure; 299 MemoryPressure due(20s); " +
		"99 MemoryPressure due(0s) due(20s); 500"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// "Node condition oscillation": a condition holds for the transition period
// after it was last called for.
func TestPressureTransitionPeriod(t *testing.T) {
	list := thresholds(t, map[string]string{"memory.available": "100"}, nil, nil, nil)
	got := script(list, 25*time.Second, 50, 200, 200, 200, 200, 50)
	if want := "50 MemoryPressure due(0s); 200 MemoryPressure; 200 MemoryPressure; 200; 200; 50 MemoryPressure due(0s)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// "Minimum eviction reclaim": a threshold stays due until as much more is free.
func TestMinimumReclaim(t *testing.T) {
	list := thresholds(t, map[string]string{"memory.available": "100"}, nil, nil, map[string]string{"memory.available": "50"})
	got := script(list, time.Nanosecond, 149, 99, 120, 149, 150, 120)
	if want := "149; 99 MemoryPressure due(0s); 120 MemoryPressure due(0s); 149 MemoryPressure due(0s); 150; 120"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Each signal has its condition; memory comes first; what is not observed counts
// for nothing.
func TestSignals(t *testing.T) {
	list := thresholds(t, map[string]string{
		"memory.available": "10%", "nodefs.available": "10%", "nodefs.inodesFree": "10%", "imagefs.available": "10%", "imagefs.inodesFree": "10%", "pid.available": "10%",
	}, nil, nil, nil)
	for signal, condition := range map[evict.Signal]v1.NodeConditionType{
		evict.Memory: v1.NodeMemoryPressure, evict.NodeFS: v1.NodeDiskPressure, evict.NodeInodes: v1.NodeDiskPressure,
		evict.ImageFS: v1.NodeDiskPressure, evict.ImageInodes: v1.NodeDiskPressure, evict.PIDs: v1.NodePIDPressure,
	} {
		var s evict.State
		f := s.Observe(list, evict.Observations{signal: {Available: 9, Capacity: 100}}, time.Minute, start)
		if !slices.Equal(f.Conditions, []v1.NodeConditionType{condition}) || len(f.Due) != 1 || f.Due[0].Signal != signal {
			t.Errorf("%s: %+v", signal, f)
		}
	}
	var s evict.State
	f := s.Observe(evict.WithAllocatable(list), evict.Observations{
		evict.NodeFS: {Capacity: 100}, evict.PIDs: {Capacity: 100}, evict.Allocatable: {Capacity: 100},
	}, time.Minute, start)
	if len(f.Due) != 3 || f.Due[0].Signal != evict.Allocatable || len(f.Conditions) != 3 {
		t.Errorf("all at once: %+v", f)
	}
}

// A threshold is due only while it is passed (or its reclaim is), and never
// before its grace period; conditions follow what was passed.
func TestThresholdProperties(t *testing.T) {
	list := thresholds(t, map[string]string{"memory.available": "100"}, map[string]string{"memory.available": "300"}, map[string]string{"memory.available": "30s"}, map[string]string{"memory.available": "50"})
	rapid.Check(t, func(t *rapid.T) {
		var s evict.State
		now, below := start, map[int64]time.Time{}
		for range rapid.IntRange(1, 30).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second)
			free := rapid.Int64Range(0, 500).Draw(t, "free")
			f := s.Observe(list, evict.Observations{evict.Memory: {Available: free, Capacity: 1000}}, time.Minute, now)
			for _, min := range []int64{150, 350} {
				if free >= min {
					delete(below, min)
				} else if _, ok := below[min]; !ok {
					below[min] = now
				}
			}
			for _, d := range f.Due {
				min := d.Min.Absolute + 50
				if first, ok := below[min]; !ok || now.Sub(first) < d.Grace {
					t.Fatalf("%d free since %s of %d: due", free, below[min], min)
				}
			}
			if free < 300 && len(f.Conditions) == 0 {
				t.Fatalf("%d free, and no condition", free)
			}
		}
	})
}

func TestThresholdTexts(t *testing.T) {
	for _, c := range []struct {
		hard, soft, grace, reclaim map[string]string
		want                       string
	}{
		{hard: map[string]string{"memory.avail": "1"}, want: `evictionHard: "memory.avail" is no signal; there are memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available`},
		{hard: map[string]string{"containerfs.available": "1"}, want: "evictionHard: containerfs.available is that of images here: give imagefs thresholds"},
		{hard: map[string]string{"memory.available": "0"}, want: "evictionHard: memory.available: 0 is not positive"},
		{hard: map[string]string{"memory.available": "110%"}, want: "evictionHard: memory.available: 110% is not between 0% and 100%"},
		{hard: map[string]string{"memory.available": "x"}, want: `evictionHard: memory.available: "x" is neither a quantity such as 100Mi nor a percentage`},
		{soft: map[string]string{"memory.available": "1"}, want: "evictionSoft: memory.available: evictionSoftGracePeriod has to say for how long"},
		{grace: map[string]string{"memory.available": "-1s"}, want: "evictionSoftGracePeriod: memory.available: -1s is negative"},
		{reclaim: map[string]string{"memory.available": "-1"}, want: "evictionMinimumReclaim: memory.available: -1 is not positive"},
	} {
		if _, err := evict.Thresholds(c.hard, c.soft, c.grace, c.reclaim); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	// "0%" and "100%" switch a signal off.
	if list := thresholds(t, map[string]string{"memory.available": "0%", "pid.available": "100%"}, nil, nil, nil); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	free := evict.Reserved(thresholds(t, map[string]string{"memory.available": "10%", "nodefs.available": "1Gi", "pid.available": "5%"}, nil, nil, nil),
		v1.ResourceList{v1.ResourceMemory: resource.MustParse("1000"), v1.ResourceEphemeralStorage: resource.MustParse("10Gi")})
	if free.Memory().Value() != 100 || free.StorageEphemeral().String() != "1Gi" || len(free) != 2 {
		t.Errorf("reserved: %v", free)
	}
}
