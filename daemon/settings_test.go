package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/agent/work"
)

// hierarchy is control groups of version 1, of one controller.
type hierarchy struct {
	cgroup.Layout
	root string
}

func (h hierarchy) Name() string    { return "v1" }
func (h hierarchy) Roots() []string { return []string{h.root} }

// protectKernelDefaults, failSwapOn, failCgroupV1 and groups that are to be limited
// refuse a machine and say what to do.
func TestCheckNode(t *testing.T) {
	proc := t.TempDir()
	file := func(name, text string) {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 100 0 -2\n")
	for name, v := range kernelDefaults {
		file("sys/"+name, v+"\n")
	}
	groups := hierarchy{root: t.TempDir()}
	checkAll := func(fields map[string]any, want string) {
		t.Helper()
		s, err := settings.Parse(fields, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = checkNode(s, proc, groups)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v: got %v, want %q", fields, err, want)
		}
	}
	check := func(field, want string) {
		t.Helper()
		checkAll(map[string]any{field: true}, want)
	}
	check("seccompDefault", "")
	check("failCgroupV1", "control groups of version 1")
	check("failSwapOn", "swaps to /dev/sda2, and failSwapOn of the node's configuration refuses that: swapoff -a")
	check("protectKernelDefaults", "")
	file("swaps", "Filename Type Size Used Priority\n")
	check("failSwapOn", "")
	file("sys/vm/overcommit_memory", "0\n")
	check("protectKernelDefaults", "sysctl -w vm.overcommit_memory=1 (is 0)")
	reserved := map[string]any{
		"systemReserved": map[string]any{"cpu": "100m"}, "systemReservedCgroup": "/system.slice",
		"enforceNodeAllocatable": []any{"pods", "system-reserved-compressible"},
	}
	checkAll(reserved, "there is no control group /system.slice, given as systemReservedCgroup, to be limited to what is reserved for it: make it before the node starts, or leave system-reserved-compressible out of enforceNodeAllocatable")
	if err := os.Mkdir(filepath.Join(groups.root, "system.slice"), 0o755); err != nil {
		t.Fatal(err)
	}
	checkAll(reserved, "")
}

// clusterDNS, clusterDomain and resolvConf say how pods resolve names; without
// them it is by the cluster's own server and domain, and the host's resolvers.
func TestNodeDNS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.53\nsearch example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	of := func(tree map[string]any) work.DNS {
		t.Helper()
		s, err := settings.Parse(tree, nil)
		if err != nil {
			t.Fatal(err)
		}
		return nodeDNS(Config{ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"), ClusterDomain: "cluster.local", Node: s})
	}
	d := of(map[string]any{"resolvConf": file})
	if h, err := d.Host(); err != nil || d.Servers[0] != "10.43.0.10" || d.Domain != "cluster.local" || h.Servers[0] != "192.0.2.53" || h.Searches[0] != "example.org" {
		t.Errorf("%+v %v %v", d, h, err)
	}
	// As the file is now, not as it was.
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.54\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if h, err := d.Host(); err != nil || h.Servers[0] != "192.0.2.54" || len(h.Searches) != 0 {
		t.Errorf("%v %v", h, err)
	}
	d = of(map[string]any{"resolvConf": "", "clusterDNS": []any{"169.254.0.1", "169.254.0.2"}, "clusterDomain": "example.net"})
	if len(d.Servers) != 2 || d.Servers[1] != "169.254.0.2" || d.Domain != "example.net" || d.Host != nil {
		t.Errorf("%+v", d)
	}
}
