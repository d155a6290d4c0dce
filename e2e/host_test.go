package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A snapshot is the whole host as far as a program could have changed it: for
// each kind of thing, every one of them by its name.
type snapshot map[string][]string

// takeSnapshot looks at the machine, which is the host to what runs in it.
// Control groups and kernel settings outside of the network are the real
// host's: of the former, other instances' are left out.
func takeSnapshot(t *testing.T) snapshot {
	t.Helper()
	s := snapshot{
		"links":      printed(t, "ip", "-o", "-d", "link"),
		"addresses":  printed(t, "ip", "-o", "addr"),
		"neighbours": printed(t, "ip", "neigh", "show", "nud", "permanent"),
		"routes":     printed(t, "ip", "route", "show", "table", "all"),
		"routes v6":  printed(t, "ip", "-6", "route", "show", "table", "all"),
		"rules":      append(printed(t, "ip", "rule"), printed(t, "ip", "-6", "rule")...),
		"ruleset":    printed(t, "nft", "list", "ruleset"),
		"namespaces": printed(t, "ip", "netns"),
		"mounts":     mounts(t),
		"processes":  processes(t),
		"groups":     controlGroups(t),
		"settings":   settings(t),
	}
	for _, dir := range []string{"/run", "/etc", "/tmp", "/var/lib", "/opt", "/dev/shm"} {
		s[dir] = tree(t, dir)
	}
	return s
}

// moving are parts of lines that change by themselves.
var moving = regexp.MustCompile(`expires \d+sec|packets \d+ bytes \d+|(valid|preferred)_lft \d+sec|qlen \d+|state (UP|UNKNOWN|DOWN|LOWERLAYERDOWN) `)

// printed runs a program and returns what it prints, line by line.
func printed(t *testing.T, name string, args ...string) []string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return strings.Split(moving.ReplaceAllString(string(out), ""), "\n")
}

func mounts(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, f[4])
		}
	}
	slices.Sort(out)
	return out
}

// processes are those of the machine, by their programs; a machine has no
// others. This test's own are left out, and threads of the kernel are not seen.
func processes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if target, err := os.Readlink(f); err == nil && !strings.HasSuffix(target, ".test") {
			out = append(out, target)
		}
	}
	slices.Sort(out)
	return out
}

var instanceGroup = regexp.MustCompile(`/hansa(/[0-9a-f]{8}(/|$)|$)`)

// controlGroups are those of the host. Others' instances, those of tests and
// what is below the groups of other programs come and go there while we look;
// the group of all instances stays as long as one is there.
func controlGroups(t *testing.T) []string {
	t.Helper()
	ours := regexp.MustCompile(`/hansa/(` + strings.Join(ourInstances(t), "|") + `)(/|$)`)
	var out []string
	for _, dir := range tree(t, "/sys/fs/cgroup") {
		others := instanceGroup.MatchString(dir) || strings.Contains(dir, "/hansa-test-") || belowAnother(dir)
		if !others || ours.MatchString(dir) {
			out = append(out, dir)
		}
	}
	return out
}

// belowAnother says whether a group is not one right below the root of a
// hierarchy, nor Hansa's. With version 2 alone there is one hierarchy, without a
// folder of its own.
func belowAnother(dir string) bool {
	top := 2
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		top = 1
	}
	return strings.Count(strings.TrimPrefix(dir, "/sys/fs/cgroup"), "/") > top && !strings.Contains(dir, "/hansa/")
}

// ourInstances are the instances of all data directories of this machine.
func ourInstances(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/tmp/" + machinePrefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	out := []string{"none"}
	for _, d := range dirs {
		out = append(out, instanceID(d))
	}
	return append(out, forgotten...)
}

// forgotten are instances whose data directories are gone.
var forgotten []string

// settings are the kernel's, by name and value; those that only count are left
// out, and random ones.
func settings(t *testing.T) []string {
	t.Helper()
	counts := regexp.MustCompile(`/(random/|.*-nr$|.*-state$|nf_conntrack_count|ns_last_pid|pty/nr|pid_max|stat_refresh|.*_stats|sched_domain|quota/syncs)`)
	var out []string
	err := filepath.WalkDir("/proc/sys", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || counts.MatchString(path) {
			return nil //nolint:nilerr // what goes while we look was a link's
		}
		if b, err := os.ReadFile(path); err == nil {
			out = append(out, path+"="+strings.TrimSpace(string(b)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tree is every path below a folder.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what goes while we look is not there
		}
		if dir == "/sys/fs/cgroup" && !d.IsDir() {
			return nil
		}
		if path != "/tmp" && filepath.Dir(path) == "/tmp" && strings.HasSuffix(path, ".log") {
			return nil // what the tests keep of a cluster's messages
		}
		out = append(out, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// differences are what one snapshot has more often than another.
func (s snapshot) differences(other snapshot) []string {
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(s)) {
		count := map[string]int{}
		for _, x := range other[kind] {
			count[x]++
		}
		for _, x := range s[kind] {
			if count[x]--; count[x] < 0 {
				out = append(out, fmt.Sprintf("%s: %s", kind, x))
			}
		}
	}
	return out
}

// same fails the test unless the host is as it was, except for what lies in a
// folder.
func (s snapshot) same(t *testing.T, before snapshot, except string) {
	t.Helper()
	within := func(d string) bool {
		_, path, _ := strings.Cut(d, ": ")
		return except != "" && (path == except || strings.HasPrefix(path, except+"/"))
	}
	if more := slices.DeleteFunc(s.differences(before), within); len(more) > 0 {
		t.Errorf("left on the host:\n  %s", strings.Join(more, "\n  "))
	}
	if less := before.differences(s); len(less) > 0 {
		t.Errorf("gone from the host:\n  %s", strings.Join(less, "\n  "))
	}
}
