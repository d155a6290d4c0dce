package pod

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/nftables"

	"hansa.dev/hansa/network/internal/nft"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares text with a file.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nrun with -update and review", path, got)
	}
}

func TestRules(t *testing.T) {
	s := rules(testConfig(t))
	empty := nft.Program(s).String()
	r := &Record{
		ContainerID: "a", IPs: []netip.Addr{netip.MustParseAddr("10.42.0.7")},
		HostPorts: []HostPort{
			{HostPort: 8080, ContainerPort: 80, Protocol: nft.TCP},
			{HostPort: 53, ContainerPort: 5353, Protocol: nft.UDP, HostIP: netip.MustParseAddr("192.0.2.1")},
			{HostPort: 90, ContainerPort: 90, Protocol: nft.SCTP, HostIP: netip.MustParseAddr("0.0.0.0")},
		},
	}
	add := nft.Diff(nft.NewState(), elementsOf(r)).String()
	del := nft.Diff(elementsOf(r), nft.NewState()).String()
	golden(t, "testdata/rules.golden", empty+"\n# ADD\n"+add+"\n# DEL\n"+del)
}

// Addresses are given out once, in turn, and never the network's, the node's
// or the broadcast address.
func TestPool(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.42.3.0/29"))
	var got []string
	for range 5 {
		a, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
	}
	if want := "10.42.3.2 10.42.3.3 10.42.3.4 10.42.3.5 10.42.3.6"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := p.next(); err == nil || err.Error() != "no free address in 10.42.3.0/29: all 5 are in use" {
		t.Errorf("exhausted: %v", err)
	}
	p.release(netip.MustParseAddr("10.42.3.4"))
	p.release(netip.MustParseAddr("10.42.3.2"))
	for _, want := range []string{"10.42.3.2", "10.42.3.4"} {
		if a, err := p.next(); err != nil || a.String() != want {
			t.Errorf("got %s, %v, want %s", a, err, want)
		}
	}
	for _, a := range []string{"10.42.3.0", "10.42.3.1", "10.42.3.7", "10.42.4.2", "10.42.3.3"} {
		if err := p.take(netip.MustParseAddr(a)); err == nil {
			t.Errorf("took %s", a)
		}
	}
	// A freed address is used again after all others.
	q := newPool(netip.MustParsePrefix("10.42.3.0/29"))
	first, err := q.next()
	if err != nil {
		t.Fatal(err)
	}
	q.release(first)
	if a, err := q.next(); err != nil || a == first {
		t.Errorf("got %s again at once, %v", a, err)
	}
	six := newPool(netip.MustParsePrefix("fd00::/126"))
	for _, want := range []string{"fd00::2", "fd00::3"} {
		if a, err := six.next(); err != nil || a.String() != want {
			t.Errorf("got %s, %v, want %s", a, err, want)
		}
	}
}

// One rule where packets would be dropped, none where not.
func TestPlanAccept(t *testing.T) {
	ip, inet := nftables.TableFamilyIPv4, nftables.TableFamilyINet
	chain := func(f nftables.TableFamily, table, name, what string, ours int) foreignChain {
		return foreignChain{f, table, name, strings.Contains(what, "forward"), strings.Contains(what, "drop"), ours}
	}
	for _, tc := range []struct {
		name   string
		chains []foreignChain
		want   string
	}{
		{"nothing", nil, ""},
		{"accepting chain", []foreignChain{chain(ip, "filter", "FORWARD", "forward", 0)}, ""},
		{"dropping chain", []foreignChain{chain(ip, "filter", "FORWARD", "forward drop", 0)}, "insert into ip filter FORWARD"},
		{"done", []foreignChain{chain(ip, "filter", "FORWARD", "forward drop", 1)}, ""},
		{"docker", []foreignChain{chain(ip, "filter", "FORWARD", "forward drop", 0), chain(ip, "filter", "DOCKER-USER", "", 0)}, "insert into ip filter DOCKER-USER"},
		{"docker came later", []foreignChain{chain(ip, "filter", "FORWARD", "forward drop", 1), chain(ip, "filter", "DOCKER-USER", "", 0)},
			"insert into ip filter DOCKER-USER; remove from ip filter FORWARD"},
		{"docker accepts", []foreignChain{chain(ip, "filter", "FORWARD", "forward", 0), chain(ip, "filter", "DOCKER-USER", "", 0)}, ""},
		{"docker accepts now", []foreignChain{chain(ip, "filter", "FORWARD", "forward", 0), chain(ip, "filter", "DOCKER-USER", "", 1)}, "remove from ip filter DOCKER-USER"},
		{"rule twice", []foreignChain{chain(ip, "filter", "FORWARD", "forward drop", 2)}, "remove from ip filter FORWARD; insert into ip filter FORWARD"},
		{"two tables", []foreignChain{chain(ip, "filter", "FORWARD", "forward drop", 0), chain(inet, "firewalld", "filter_FORWARD", "forward drop", 0), chain(ip, "filter", "DOCKER-USER", "", 1)},
			"insert into inet firewalld filter_FORWARD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, a := range planAccept(tc.chains) {
				got = append(got, a.String())
			}
			if s := strings.Join(got, "; "); s != tc.want {
				t.Errorf("got %q, want %q", s, tc.want)
			}
		})
	}
}

func TestConfigCheck(t *testing.T) {
	for _, tc := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Instance = "x" }, "8 hexadecimal digits"},
		{func(c *Config) { c.NodeCIDR = netip.Prefix{} }, "not an IPv4 prefix"},
		{func(c *Config) { c.NodeCIDR = netipPrefix("10.42.0.0/30") }, "too small"},
		{func(c *Config) { c.NodeCIDR = netipPrefix("10.44.0.0/24") }, "not inside"},
		{func(c *Config) { c.ServiceCIDR = netipPrefix("10.42.9.0/24") }, "overlap"},
	} {
		c := testConfig(t)
		tc.change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

// Names fit the kernel's 15 characters and differ for each container.
func TestLinkName(t *testing.T) {
	seen := map[string]bool{}
	for i := range 1000 {
		n := linkName(instance, fmt.Sprint(i), "eth0")
		if len(n) != 15 || seen[n] {
			t.Fatalf("name %q", n)
		}
		seen[n] = true
		if mac := podMAC(n); mac[0]&3 != 2 {
			t.Fatalf("hardware address %s is not local and individual", mac)
		}
	}
}
