package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// --hostname-override, --node-labels and --root-dir are the kubelet's names of
// --node-name, --node-label and --data-dir, wherever settings are given; what
// comes nearer to the command line wins by either name.
func TestKubeletAliases(t *testing.T) {
	dir := t.TempDir()
	check := func(how, name string, args ...string) {
		t.Helper()
		c, err := parse(args...)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if c.NodeName != name || c.NodeLabels["a"] != "b" || c.DataDir != dir {
			t.Errorf("%s: %q %v %q", how, c.NodeName, c.NodeLabels, c.DataDir)
		}
	}
	empty := write(t, "{}\n")
	check("flags", "n1", "--config", empty, "--hostname-override=n1", "--node-labels=a=b", "--root-dir", dir)
	file := write(t, "hostname-override: n2\nnode-labels: [a=b]\nroot-dir: "+dir+"\n")
	check("file", "n2", "--config", file)
	t.Setenv("HANSA_HOSTNAME_OVERRIDE", "n3")
	check("environment over file", "n3", "--config", file)
	check("flag by our name over environment", "n4", "--config", file, "--node-name=n4")
	both := write(t, "hostname-override: n2\nnode-name: n1\n")
	if _, err := parse("--config", both); err == nil || !strings.Contains(err.Error(), `"hostname-override" and "node-name" are the same setting; give one`) {
		t.Error(err)
	}
}

// The flags of container garbage collection, which no field of a file has.
func TestContainerCollectionFlags(t *testing.T) {
	empty := write(t, "{}\n")
	c, err := parse("--config", empty, "--node-name=n1")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Keep.Old != 1 || c.Node.Keep.MinAge != 0 || c.Node.MaxEnded != -1 {
		t.Errorf("defaults: %+v, %d", c.Node.Keep, c.Node.MaxEnded)
	}
	c, err = parse("--config", empty, "--node-name=n1", "--minimum-container-ttl-duration=1m", "--maximum-dead-containers-per-container=3", "--maximum-dead-containers", "240")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Keep.Old != 3 || c.Node.Keep.MinAge != time.Minute || c.Node.MaxEnded != 240 {
		t.Errorf("%+v, %d", c.Node.Keep, c.Node.MaxEnded)
	}
	for _, wrong := range []string{"--minimum-container-ttl-duration=soon", "--maximum-dead-containers=all", "--maximum-dead-containers-per-container=x"} {
		name, _, _ := strings.Cut(wrong, "=")
		if _, err := parse("--config", empty, "--node-name=n1", wrong); err == nil || !slices.Contains(strings.Fields(err.Error()), name+":") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
