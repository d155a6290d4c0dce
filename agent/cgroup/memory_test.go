package cgroup

import (
	"maps"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func v2Group(group string) map[string]string {
	return map[string]string{
		"cgroup.controllers":                "cpuset cpu io memory pids hugetlb",
		group[1:] + "/cpu.weight":           "100",
		group[1:] + "/cpu.max":              "max 100000",
		group[1:] + "/memory.max":           "max",
		group[1:] + "/memory.min":           "0",
		group[1:] + "/memory.low":           "0",
		group[1:] + "/memory.high":          "max",
		group[1:] + "/pids.max":             "max",
		group[1:] + "/hugetlb.2MB.max":      "max",
		group[1:] + "/hugetlb.2MB.rsvd.max": "max",
		group[1:] + "/hugetlb.1GB.max":      "max",
		group[1:] + "/hugetlb.1GB.events":   "max 0",
	}
}

// "Manage HugePages": a pod has what it requests of each size, and nothing of
// the others, on both versions.
func TestHugePages(t *testing.T) {
	list := v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi"), v1.ResourceMemory: resource.MustParse("1Gi")}
	p := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: list, Limits: list}}}}}
	limits := PodLimits(p, Rules{})
	files := v1Files("/g")
	maps.Copy(files, map[string]string{
		"hugetlb/g/hugetlb.2MB.limit_in_bytes": "9223372036854771712", "hugetlb/g/hugetlb.1GB.limit_in_bytes": "9223372036854771712",
		"hugetlb/g/hugetlb.2MB.rsvd.limit_in_bytes": "9223372036854771712",
	})
	root := recorded(t, files)
	legacy, err := newLegacy(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := legacy.Set("/g", limits); err != nil {
		t.Fatal(err)
	}
	if a, b, rsvd := read(t, root, "hugetlb/g/hugetlb.2MB.limit_in_bytes"), read(t, root, "hugetlb/g/hugetlb.1GB.limit_in_bytes"), read(t, root, "hugetlb/g/hugetlb.2MB.rsvd.limit_in_bytes"); a != "4194304" || b != "0" || rsvd != "9223372036854771712" {
		t.Errorf("version 1: %s %s %s", a, b, rsvd)
	}
	root = recorded(t, v2Group("/g"))
	unified, err := newUnified(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := unified.Set("/g", limits); err != nil {
		t.Fatal(err)
	}
	if a, b := read(t, root, "g/hugetlb.2MB.max"), read(t, root, "g/hugetlb.1GB.max"); a != "4194304" || b != "0" {
		t.Errorf("version 2: %s %s", a, b)
	}
	// Without the controller nothing is set, and nothing fails.
	if legacy, err = newLegacy(recorded(t, v1Files("/g"))); err != nil {
		t.Fatal(err)
	}
	if err := legacy.Set("/g", limits); err != nil {
		t.Error(err)
	}
}

// "Memory QoS": what guaranteed pods request is kept for certain, what burstable
// ones do as long as there is other memory, and only where the node reserves it.
func TestMemoryReservation(t *testing.T) {
	pod := func(request, limit string) *v1.Pod {
		r := v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse(request), v1.ResourceCPU: resource.MustParse("1")}, Limits: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")}}
		if limit != "" {
			r.Limits[v1.ResourceMemory] = resource.MustParse(limit)
		}
		return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: r}}}}
	}
	for _, c := range []struct {
		pod     *v1.Pod
		reserve bool
		want    string
	}{
		{pod("1Mi", "1Mi"), true, "1048576 0"}, {pod("1Mi", "2Mi"), true, "0 1048576"}, {pod("1Mi", ""), true, "0 1048576"}, {pod("1Mi", "1Mi"), false, "0 0"},
	} {
		root := recorded(t, v2Group("/g"))
		u, err := newUnified(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Set("/g", PodLimits(c.pod, Rules{Reserve: c.reserve})); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join([]string{read(t, root, "g/memory.min"), read(t, root, "g/memory.low")}, " "); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	root := recorded(t, v2Group("/g"))
	u, err := newUnified(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Set("/g", Limits{MemoryMin: -1, MemoryLow: 7, MemoryHigh: -1}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, root, "g/memory.min") + " " + read(t, root, "g/memory.low") + " " + read(t, root, "g/memory.high"); got != "0 7 max" {
		t.Errorf("taken away: %s", got)
	}
}

// cpuCFSQuota and cpuCFSQuotaPeriod.
func TestCPUQuota(t *testing.T) {
	for _, c := range []struct {
		cpu          CPU
		milli, quota int64
		period       uint64
	}{
		{CPU{}, 500, 50000, 100000}, {CPU{Period: 10000}, 500, 5000, 10000}, {CPU{Unlimited: true}, 500, 0, 0}, {CPU{Period: 1000}, 1, 1000, 1000},
	} {
		if quota, period := c.cpu.Quota(c.milli); quota != c.quota || period != c.period {
			t.Errorf("%+v of %dm: %d per %d", c.cpu, c.milli, quota, period)
		}
	}
}

// A group of somebody else is limited where it is, and never made.
func TestSetOther(t *testing.T) {
	root := recorded(t, v2Group("/g"))
	u, err := newUnified(root)
	if err != nil {
		t.Fatal(err)
	}
	tree := New(u, "/base", nil)
	if err := tree.SetOther("g", Limits{Memory: 5}); err != nil || read(t, root, "g/memory.max") != "5" {
		t.Error(err, read(t, root, "g/memory.max"))
	}
	if err := tree.SetOther("/none", Limits{Memory: 5}); err == nil || err.Error() != "limit control group /none: there is no such group" {
		t.Error(err)
	}
}
