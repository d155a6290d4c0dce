package cgroup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// recorded makes a directory tree as a kernel would show it: the files that are
// written to exist, with the content that they have on a fresh group.
func recorded(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func v1Files(group string) map[string]string {
	return map[string]string{
		"cpu" + group + "/cpu.shares":                   "1024",
		"cpu" + group + "/cpu.cfs_quota_us":             "-1",
		"cpu" + group + "/cpu.cfs_period_us":            "100000",
		"cpuacct" + group + "/cpuacct.usage":            "1500000000",
		"cpuset/cpuset.cpus":                            "0-1",
		"cpuset/cpuset.mems":                            "0",
		"cpuset" + group + "/cpuset.cpus":               "",
		"cpuset" + group + "/cpuset.mems":               "",
		"memory" + group + "/memory.limit_in_bytes":     "9223372036854771712",
		"memory" + group + "/memory.usage_in_bytes":     "5000",
		"memory" + group + "/memory.stat":               "cache 1\ntotal_inactive_file 2000\n",
		"pids" + group + "/pids.max":                    "max",
		"pids" + group + "/pids.current":                "3",
		"devices" + group + "/devices.list":             "a *:* rwm",
		"freezer" + group + "/freezer.state":            "THAWED",
		"systemd" + group + "/cgroup.procs":             "",
		"unified" + group + "/cgroup.procs":             "",
		"blkio" + group + "/blkio.throttle.io_serviced": "",
	}
}

// A host with version 1 hierarchies and the unified one beside them.
func TestLegacy(t *testing.T) {
	root := recorded(t, v1Files("/g"))
	l, err := newLegacy(root)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.Roots()); n != 10 {
		t.Errorf("%d hierarchies: %v", n, l.Roots())
	}
	if err := l.Set("/g", Limits{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 1 << 20, Pids: -1}); err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{read(t, root, "cpu/g/cpu.shares"), read(t, root, "cpu/g/cpu.cfs_quota_us"), read(t, root, "memory/g/memory.limit_in_bytes"), read(t, root, "pids/g/pids.max")}, " ")
	if got != "512 50000 1048576 max" {
		t.Errorf("limits: %s", got)
	}
	u, err := l.Usage("/g")
	if err != nil || u != (Usage{CPUNanos: 1500000000, Memory: 5000, WorkingSet: 3000, Pids: 3}) {
		t.Errorf("usage: %+v %v", u, err)
	}
	// cpu and cpuacct in one hierarchy, as most distributions had it.
	files := v1Files("/g")
	for name, content := range files {
		if rest, ok := strings.CutPrefix(name, "cpu/"); ok {
			files["cpu,cpuacct/"+rest] = content
		} else if rest, ok := strings.CutPrefix(name, "cpuacct/"); ok {
			files["cpu,cpuacct/"+rest] = content
		} else {
			continue
		}
		delete(files, name)
	}
	l, err = newLegacy(recorded(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if u, err := l.Usage("/g"); err != nil || u.CPUNanos != 1500000000 {
		t.Errorf("usage: %+v %v", u, err)
	}
	delete(files, "pids/g/pids.max")
	delete(files, "pids/g/pids.current")
	if _, err := newLegacy(recorded(t, files)); err == nil || !strings.Contains(err.Error(), `the control group controller "pids" is not available`) {
		t.Errorf("without pids: %v", err)
	}
}

func v2Files() map[string]string {
	return map[string]string{
		"cgroup.controllers":         "cpuset cpu io memory hugetlb pids rdma",
		"cgroup.subtree_control":     "cpu memory",
		"a/cgroup.controllers":       "cpu memory pids",
		"a/cgroup.subtree_control":   "",
		"a/g/cpu.weight":             "100",
		"a/g/cpu.max":                "max 100000",
		"a/g/memory.max":             "max",
		"a/g/pids.max":               "max",
		"a/g/cpu.stat":               "usage_usec 7\nuser_usec 3\n",
		"a/g/memory.current":         "5000",
		"a/g/memory.stat":            "anon 1\ninactive_file 2000\n",
		"a/g/pids.current":           "3",
		"a/g/cgroup.controllers":     "cpu memory pids",
		"a/g/cgroup.subtree_control": "",
	}
}

// A host with the unified hierarchy alone.
func TestUnified(t *testing.T) {
	root := recorded(t, v2Files())
	u, err := newUnified(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"/a", "/a/g"} {
		if err := u.Make(group); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, root, "cgroup.subtree_control"); got != "+cpuset +io +pids +hugetlb" {
		t.Errorf("switched on in the root: %q", got)
	}
	if got := read(t, root, "a/cgroup.subtree_control"); got != "+cpu +memory +pids" {
		t.Errorf("switched on in /a: %q", got)
	}
	if err := u.Set("/a/g", Limits{CPUShares: 1024, CPUQuota: 50000, CPUPeriod: 100000, Memory: 1 << 20, Pids: 100}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"cpu.weight": "100", "cpu.max": "50000 100000", "memory.max": "1048576", "pids.max": "100"} {
		if got := read(t, root, "a/g", file); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	if got := u.Inside("/a/g"); len(got) != 1 || got["memory.oom.group"] != "1" {
		t.Errorf("without accounting for swap, containers have %v", got)
	}
	if err := os.WriteFile(filepath.Join(root, "a/g/memory.swap.max"), []byte("max"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := u.Inside("/a/g"); len(got) != 2 || got["memory.oom.group"] != "1" || got["memory.swap.max"] != "0" {
		t.Errorf("containers have %v", got)
	}
	use, err := u.Usage("/a/g")
	if err != nil || use != (Usage{CPUNanos: 7000, Memory: 5000, WorkingSet: 3000, Pids: 3}) {
		t.Errorf("usage: %+v %v", use, err)
	}
	files := v2Files()
	files["cgroup.controllers"] = "cpu cpuset pids"
	if _, err := newUnified(recorded(t, files)); err == nil || !strings.Contains(err.Error(), `"memory" is not available`) {
		t.Errorf("without memory: %v", err)
	}
}

// On the kernel that runs the test: groups are made, recorded first, limit what
// is in them, and are removed with their processes.
func TestKernel(t *testing.T) {
	layout, err := Detect("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	base := "/hansa-test-" + strings.ToLower(rand.Text()[:8])
	var recorded []string
	tree := New(layout, base, func(kind, name string) error { recorded = append(recorded, kind+" "+name); return nil })
	t.Cleanup(func() {
		if err := RemoveBase(layout, base); err != nil {
			t.Error(err)
		}
	})
	group := PodGroup(v1.PodQOSBurstable, "uid")
	for range 2 {
		if err := tree.Ensure(group, Limits{CPUShares: 256, CPUQuota: 20000, CPUPeriod: Period, Memory: 64 << 20, Pids: 50}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(recorded, "cgroup "+base) {
		t.Errorf("recorded %v", recorded)
	}
	if err := tree.Ensure(group, Limits{Pids: -1}); err != nil {
		t.Fatal(err)
	}
	for _, root := range layout.Roots() {
		if _, err := os.Stat(filepath.Join(root, base, group)); err != nil {
			t.Error(err)
		}
	}
	// A process that was left in the group.
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, root := range layout.Roots() {
		if err := write(filepath.Join(root, base, group), "cgroup.procs", fmt.Sprint(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := tree.Usage(group); err != nil || u.Pids != 1 {
		t.Errorf("usage %+v: %v", u, err)
	}
	if names, err := tree.Children("pods/burstable"); err != nil || !slices.Equal(names, []string{"uid"}) {
		t.Errorf("children %v: %v", names, err)
	}
	for range 2 {
		// The processes are killed by the first call; the group may be busy
		// until they are gone.
		err = tree.Remove(group)
		_ = cmd.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range layout.Roots() {
		if _, err := os.Stat(filepath.Join(root, base, group)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("left: %v", err)
		}
	}
}

// "Resource management": quantities in the kernel's units.
func TestConversions(t *testing.T) {
	for milli, want := range map[int64]uint64{0: 2, 1: 2, 100: 102, 1000: 1024, 1_000_000: 262144} {
		if got := Shares(milli); got != want {
			t.Errorf("Shares(%d) = %d, want %d", milli, got, want)
		}
	}
	for milli, want := range map[int64]int64{0: 0, 1: 1000, 100: 10000, 1500: 150000} {
		if got, _ := (CPU{}).Quota(milli); got != want {
			t.Errorf("Quota(%d) = %d, want %d", milli, got, want)
		}
	}
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 102: 17, 256: 35, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 20: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("Weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

func TestPodLimits(t *testing.T) {
	container := func(cpuLimit, memoryLimit, cpuRequest string) v1.Container {
		r := v1.ResourceRequirements{Limits: v1.ResourceList{}, Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpuRequest)}}
		if cpuLimit != "" {
			r.Limits[v1.ResourceCPU] = resource.MustParse(cpuLimit)
		}
		if memoryLimit != "" {
			r.Limits[v1.ResourceMemory] = resource.MustParse(memoryLimit)
		}
		return v1.Container{Resources: r}
	}
	for _, c := range []struct {
		containers []v1.Container
		want       Limits
	}{
		{[]v1.Container{container("1", "64Mi", "500m"), container("1", "64Mi", "500m")}, Limits{CPUShares: 1024, CPUQuota: 200000, CPUPeriod: Period, Memory: 128 << 20, Pids: 10, HugePages: map[string]int64{}}},
		{[]v1.Container{container("1", "64Mi", "500m"), container("", "64Mi", "500m")}, Limits{CPUShares: 1024, Memory: 128 << 20, Pids: 10, HugePages: map[string]int64{}}},
		{[]v1.Container{container("", "", "0")}, Limits{CPUShares: 2, Pids: 10, HugePages: map[string]int64{}}},
	} {
		if got := PodLimits(&v1.Pod{Spec: v1.PodSpec{Containers: c.containers}}, Rules{Pids: 10}); !reflect.DeepEqual(got, c.want) {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}

// All that is measured, as kernels with either layout show it.
func TestStat(t *testing.T) {
	files := v1Files("/g")
	for name, content := range map[string]string{
		"cpuacct/g/cpuacct.stat": "user 120\nsystem 30\n", "cpu/g/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5000\n",
		"cpu/g/cpu.cfs_quota_us": "50000", "memory/g/memory.max_usage_in_bytes": "6000", "memory/g/memory.failcnt": "2",
		"memory/g/memory.stat":        "cache 1\ntotal_inactive_file 2000\ntotal_rss 2500\ntotal_cache 2100\ntotal_mapped_file 11\ntotal_pgfault 12\ntotal_pgmajfault 13\ntotal_swap 14\n",
		"memory/g/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "memory/g/memory.memsw.limit_in_bytes": "9223372036854771712",
	} {
		files[name] = content
	}
	l, err := newLegacy(recorded(t, files))
	if err != nil {
		t.Fatal(err)
	}
	want := Stat{
		CPU:    CPUStat{Nanos: 1_500_000_000, UserNanos: 1_200_000_000, SystemNanos: 300_000_000, Periods: 9, Throttled: 4, ThrottledNanos: 5000, Shares: 1024, Quota: 50000, Period: 100000},
		Memory: MemoryStat{Usage: 5000, WorkingSet: 3000, MaxUsage: 6000, RSS: 2500, Cache: 2100, Mapped: 11, Swap: 14, Swaps: true, Faults: 12, MajorFaults: 13, Failures: 2, OOMKills: 3},
		Pids:   3,
	}
	if got, err := l.Stat("/g"); err != nil || got != want {
		t.Errorf("version 1: %+v %v\nwant %+v", got, err, want)
	}
	if _, err := l.Stat("/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group that is gone: %v", err)
	}

	files = v2Files()
	for name, content := range map[string]string{
		"a/g/cpu.stat": "usage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_periods 9\nnr_throttled 4\nthrottled_usec 5\n", "a/g/cpu.max": "50000 100000",
		"a/g/memory.stat": "anon 2500\nfile 2100\nfile_mapped 11\ninactive_file 2000\npgfault 12\npgmajfault 13\n", "a/g/memory.peak": "6000",
		"a/g/memory.max": "8192", "a/g/memory.swap.current": "14", "a/g/memory.swap.max": "max", "a/g/memory.events": "low 0\nhigh 0\nmax 2\noom 1\noom_kill 3\n",
		"a/g/cpu.pressure":    "some avg10=1.50 avg60=0.25 avg300=0.01 total=4711\n", // of a kernel before 5.13
		"a/g/memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=30\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=20\n",
		"a/g/io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=6\n",
		"cpu.pressure":        "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=8\n",
		"memory.pressure":     "", "io.pressure": "",
	} {
		files[name] = content
	}
	u, err := newUnified(recorded(t, files))
	if err != nil {
		t.Fatal(err)
	}
	want.CPU = CPUStat{Nanos: 7000, UserNanos: 3000, SystemNanos: 4000, Periods: 9, Throttled: 4, ThrottledNanos: 5000, Quota: 50000, Period: 100000}
	want.Memory.Limit = 8192
	want.Pressure = Pressures{
		Counted: true,
		CPU:     Pressure{Some: Stall{4711, 1.5, 0.25, 0.01}},
		Memory:  Pressure{Some: Stall{30, 0, 0, 0}, Full: Stall{20, 0.5, 0, 0}},
		IO:      Pressure{Some: Stall{Micros: 7}, Full: Stall{Micros: 6}},
	}
	got, err := u.Stat("a/g")
	if weight := Weight(got.CPU.Shares); weight != 100 {
		t.Errorf("shares of weight 100: %d", got.CPU.Shares)
	}
	if got.CPU.Shares = 0; err != nil || got != want {
		t.Errorf("version 2: %+v %v\nwant %+v", got, err, want)
	}
	if p := New(u, "/a", nil).Pressure(); !p.Counted || p.CPU != (Pressure{Some: Stall{Micros: 9}, Full: Stall{Micros: 8}}) {
		t.Errorf("the machine's pressure: %+v", p)
	}
	if err := os.Remove(filepath.Join(u.root, "a/g/io.pressure")); err != nil {
		t.Fatal(err)
	}
	if p := u.Pressure("a/g"); p != (Pressures{}) {
		t.Errorf("of a kernel that does not count it: %+v", p)
	}
	if p := New(l, "/", nil).Pressure(); p != (Pressures{}) {
		t.Errorf("of version 1: %+v", p)
	}
	if _, err := u.Stat("gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group that is gone: %v", err)
	}
}

func TestProcess(t *testing.T) {
	files := v2Files()
	files["pods/u/cgroup.procs"], files["pods/u/c/cgroup.procs"] = "", "42\n43\n"
	u, err := newUnified(recorded(t, files))
	if err != nil {
		t.Fatal(err)
	}
	tree := New(u, "/", nil)
	if pid := tree.Process("pods/u"); pid != 42 {
		t.Errorf("process %d, want 42", pid)
	}
	if pid := tree.Process("pods/gone"); pid != 0 {
		t.Errorf("process %d of a group that is gone", pid)
	}
}
