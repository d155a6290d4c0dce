package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSnapshot leaves a thing of each kind on a host: the comparison has to
// name every one, or it would not when Hansa left it.
func TestSnapshot(t *testing.T) {
	if !alone(t) {
		return
	}
	// These folders are the real host's, where others compare too.
	for _, dir := range []string{"/etc", "/opt", "/dev/shm"} {
		if err := mount("tmpfs", dir, "tmpfs", 0)(); err != nil {
			t.Fatal(err)
		}
	}
	forgotten = append(forgotten, "5ca1ab1e")
	group := "/sys/fs/cgroup/pids/hansa/5ca1ab1e"
	if unified() {
		group = "/sys/fs/cgroup/hansa/5ca1ab1e"
	}
	before := takeSnapshot(t)
	do := func(args string) {
		t.Helper()
		words := strings.Fields(args)
		if err := command(words[0], words[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	const forward = "/proc/sys/net/ipv4/ip_forward"
	was, err := os.ReadFile(forward)
	if err != nil {
		t.Fatal(err)
	}
	now := "1"
	if strings.TrimSpace(string(was)) == now {
		now = "0"
	}
	do("ip link add left type bridge")
	do("ip addr add 192.0.2.1/32 dev lo")
	do("ip neigh add 198.51.100.77 lladdr 02:00:00:00:00:01 nud permanent dev eth0")
	do("ip route add 192.0.2.128/25 via " + outsideIP)
	do("ip -6 route add unreachable 2001:db8::/32")
	do("ip rule add from 192.0.2.1 table 99")
	do("nft add table inet left")
	do("ip netns add left")
	sleep := exec.Command("sleep", "1000")
	files := []string{"/run/left", "/etc/left", "/tmp/left", "/var/lib/left", "/opt/left", "/dev/shm/left"}
	if err := errors.Join(sleep.Start(), os.WriteFile(forward, []byte(now), 0), os.MkdirAll(group, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := takeSnapshot(t).differences(before)
	for kind := range before {
		named := false
		for _, d := range found {
			named = named || strings.HasPrefix(d, kind+": ")
		}
		if !named {
			t.Errorf("what was left among the %s is not seen", kind)
		}
	}

	do("ip link del left")
	do("ip addr del 192.0.2.1/32 dev lo")
	do("ip neigh del 198.51.100.77 dev eth0")
	do("ip route del 192.0.2.128/25")
	do("ip -6 route del unreachable 2001:db8::/32")
	do("ip rule del from 192.0.2.1 table 99")
	do("nft delete table inet left")
	do("ip netns del left")
	err = errors.Join(sleep.Process.Kill(), os.WriteFile(forward, was, 0), os.Remove(group))
	os.Remove(filepath.Dir(group)) //nolint:errcheck // others may have theirs there
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	if err != nil {
		t.Fatal(err)
	}
	sleep.Wait() //nolint:errcheck // it was killed
	takeSnapshot(t).same(t, before, "")
}
