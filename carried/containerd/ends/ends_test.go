package ends

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var ended = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)

func keeper(t *testing.T, files map[string]string) Keeper {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Keeper{Dir: filepath.Join(root, "exits"), Bundles: filepath.Join(root, "bundles"), Cgroups: filepath.Join(root, "cgroup")}
}

// kept is what is kept of a container, the zero End if nothing is.
func kept(t *testing.T, k Keeper, id string) (e End) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(k.Dir, id))
	if os.IsNotExist(err) {
		return e
	}
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What Linux shows: memory.oom_control of "Memory Resource Controller" (version 1) and
// memory.events of "Control Group v2".
const (
	v1Quiet  = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"
	v1Killed = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
	v1Old    = "oom_kill_disable 0\nunder_oom 0\n" // before Linux 4.13
	v2Quiet  = "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"
	v2Near   = "low 0\nhigh 0\nmax 61\noom 2\noom_kill 0\noom_group_kill 0\n"
	v2Killed = "low 0\nhigh 0\nmax 61\noom 1\noom_kill 4\noom_group_kill 1\n"
)

// Whether a container was killed for memory is told by the count in its group.
func TestKilledForMemory(t *testing.T) {
	const v1, v2 = "cgroup/memory/hansa/pods/p/c/memory.oom_control", "cgroup/hansa/pods/p/c/memory.events"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  bool
	}{
		{"version 1", map[string]string{v1: v1Killed}, true},
		{"version 1, not killed", map[string]string{v1: v1Quiet}, false},
		{"version 1, not counted", map[string]string{v1: v1Old}, false},
		{"version 1 with 2 beside", map[string]string{v1: v1Killed, "cgroup/unified/hansa/pods/p/c/cgroup.events": "populated 0\n"}, true},
		{"version 2", map[string]string{v2: v2Killed}, true},
		{"version 2, not killed", map[string]string{v2: v2Quiet}, false},
		{"version 2, short of memory", map[string]string{v2: v2Near}, false},
		{"another's group", map[string]string{"cgroup/hansa/pods/p/d/memory.events": v2Killed, "cgroup/memory/hansa/pods/p/memory.oom_control": v1Killed}, false},
		{"no group", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"bundles/k8s.io/c/config.json": `{"ociVersion":"1.2.0","linux":{"cgroupsPath":"/hansa/pods/p/c"}}`}
			for name, text := range c.files {
				files[name] = text
			}
			k := keeper(t, files)
			want := End{Timestamp: ended, Pid: 7, Status: 137, OOMKilled: c.want}
			if e, err := k.Keep("k8s.io", "c", End{Timestamp: ended, Pid: 7, Status: 137}); err != nil || e != want {
				t.Errorf("%+v, %v", e, err)
			}
			if e := kept(t, k, "c"); e != want {
				t.Errorf("kept %+v", e)
			}
		})
	}
}

// How a container ended is kept also where its group cannot be asked.
func TestKeptWithoutGroup(t *testing.T) {
	k := keeper(t, map[string]string{"bundles/k8s.io/c/config.json": "{"})
	if _, err := k.Keep("k8s.io", "c", End{Timestamp: ended, Status: 5}); err == nil {
		t.Error("nothing is said of a bundle that cannot be read")
	}
	if e := kept(t, k, "c"); e.Status != 5 {
		t.Errorf("kept %+v", e)
	}
}

// What shims wrote of ends is kept, and nothing else.
func TestKeepWritten(t *testing.T) {
	const config = `{"linux":{"cgroupsPath":"/hansa/pods/p/killed"}}`
	k := keeper(t, map[string]string{
		"bundles/k8s.io/ended/exit.json":                        `{"Timestamp":"2026-01-02T03:04:05.6Z","Pid":7,"Status":5}`,
		"bundles/k8s.io/killed/exit.json":                       `{"Timestamp":"2026-01-02T03:04:05.6Z","Pid":8,"Status":137}`,
		"bundles/k8s.io/killed/config.json":                     config,
		"bundles/k8s.io/running/config.json":                    config,
		"bundles/k8s.io/odd/exit.json":                          `{`,
		"cgroup/memory/hansa/pods/p/killed/memory.oom_control":  v1Killed,
		"cgroup/memory/hansa/pods/p/running/memory.oom_control": v1Killed,
	})
	if err := k.KeepWritten(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]End{
		"ended": {Timestamp: ended, Pid: 7, Status: 5}, "killed": {Timestamp: ended, Pid: 8, Status: 137, OOMKilled: true}, "running": {}, "odd": {},
	} {
		if e := kept(t, k, id); e != want {
			t.Errorf("%s: kept %+v", id, e)
		}
	}
}
