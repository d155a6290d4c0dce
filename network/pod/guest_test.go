package pod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hansa.dev/hansa/network/internal/dump"
	"hansa.dev/hansa/network/internal/nettest"
)

// A docker is the part of Docker's ruleset that is in our way: table ip
// filter, FORWARD with policy drop, and DOCKER-USER called from it.
type docker struct {
	table         *nftables.Table
	forward, user *nftables.Chain
}

func conn(t *testing.T) *nftables.Conn {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func flush(t *testing.T, c *nftables.Conn) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

func newDocker(t *testing.T, userChain bool) *docker {
	t.Helper()
	c := conn(t)
	d := &docker{table: &nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4}}
	drop := nftables.ChainPolicyDrop
	c.AddTable(d.table)
	d.forward = c.AddChain(&nftables.Chain{
		Name: "FORWARD", Table: d.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	if userChain {
		d.user = c.AddChain(&nftables.Chain{Name: dockerUser, Table: d.table})
		d.restoreUser(c)
		c.AddRule(&nftables.Rule{Table: d.table, Chain: d.forward, Exprs: []expr.Any{
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: dockerUser},
		}})
	}
	flush(t, c)
	t.Cleanup(func() { c := conn(t); c.DelTable(d.table); flush(t, c) })
	return d
}

// restoreUser adds the rule that Docker leaves at the end of DOCKER-USER.
func (d *docker) restoreUser(c *nftables.Conn) {
	c.AddRule(&nftables.Rule{Table: d.table, Chain: d.user, Exprs: []expr.Any{
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictReturn},
	}})
}

// comments lists the comments of a chain's rules, "" for none.
func comments(t *testing.T, ch *nftables.Chain) []string {
	t.Helper()
	rules, err := conn(t).GetRules(ch.Table, ch)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range rules {
		s, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		out = append(out, s)
	}
	return out
}

func setSysctl(t *testing.T, key, value string) {
	t.Helper()
	if err := writeSysctl(key, value); err != nil {
		t.Fatal(err)
	}
}

// Issue: beside Docker's rules, FORWARD policy drop and bridge filtering on.
func TestBesideDocker(t *testing.T) {
	for _, name := range []string{"DOCKER-USER", "FORWARD"} {
		t.Run(name, func(t *testing.T) {
			outside := nettest.Uplink(t, 1500)
			if _, err := readSysctl("net/bridge/bridge-nf-call-iptables"); err == nil {
				setSysctl(t, "net/bridge/bridge-nf-call-iptables", "1")
			}
			c := testConfig(t)
			m := start(t, c)
			d := newDocker(t, name == "DOCKER-USER") // Docker comes second, too
			in, others := d.forward, []string(nil)
			if d.user != nil {
				in, others = d.user, []string{""}
			}
			want := append([]string{"hansa"}, others...)
			ours := func() error {
				if got := comments(t, in); !slices.Equal(got, want) {
					return fmt.Errorf("comments in %s: %q, want %q", in.Name, got, want)
				}
				return nil
			}
			nettest.Eventually(t, "accept rule after Docker starts", ours)
			a, b := addPod(t, c, "a", tcp(8080, 80)), addPod(t, c, "b")
			a.Serve(80, "a")
			outside.Serve(80, "outside")
			reach := func() {
				t.Helper()
				expect(t, b.NS, "tcp4", a.addr(80), "a "+b.IP.String())
				expect(t, b.NS, "tcp4", "192.0.2.2:80", "outside 192.0.2.1")
				expect(t, outside, "tcp4", "192.0.2.1:8080", "a 192.0.2.2")
			}
			reach()

			n := conn(t)
			n.FlushChain(in)
			if d.user != nil {
				d.restoreUser(n)
			}
			flush(t, n)
			nettest.Eventually(t, "accept rule after a flush", ours)
			reach()

			// Once the chain drops nothing, the rule is not needed.
			accept := nftables.ChainPolicyAccept
			d.forward.Policy = &accept
			n.AddChain(d.forward)
			flush(t, n)
			nettest.Eventually(t, "accept rule under policy accept", func() error {
				if got := comments(t, in); !slices.Equal(got, others) {
					return fmt.Errorf("comments in %s: %q", in.Name, got)
				}
				return nil
			})
			drop := nftables.ChainPolicyDrop
			d.forward.Policy = &drop
			n.AddChain(d.forward)
			flush(t, n)
			nettest.Eventually(t, "accept rule under policy drop again", ours)

			if err := m.Teardown(); err != nil {
				t.Fatal(err)
			}
			if got := comments(t, in); !slices.Equal(got, others) {
				t.Errorf("comments after teardown: %q, want %q", got, others)
			}
		})
	}
}

// A rule of ours that iptables has saved and restored has its comment in
// another form; it is still one of ours, so that there are not two, and none
// after teardown.
func TestRestoredByIptables(t *testing.T) {
	c := testConfig(t)
	d := newDocker(t, false)
	comment := xt.Comment("hansa")
	n := conn(t)
	n.AddRule(&nftables.Rule{Table: d.table, Chain: d.forward, Exprs: []expr.Any{
		&expr.Match{Name: "comment", Info: &comment}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept},
	}})
	flush(t, n)
	m := start(t, c)
	if got := comments(t, d.forward); len(got) != 1 {
		t.Errorf("rules: %q, want the restored one alone", got)
	}
	if err := m.Teardown(); err != nil {
		t.Fatal(err)
	}
	if got := comments(t, d.forward); len(got) != 0 {
		t.Errorf("rules after teardown: %q", got)
	}
}

// The mark is on packets in the forward hook only: Docker's own packets are
// still dropped.
func TestOthersAreStillDropped(t *testing.T) {
	outside := nettest.Uplink(t, 1500)
	c := testConfig(t)
	start(t, c)
	newDocker(t, false)
	stranger := nettest.New(t)
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "br-veth"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(stranger.Handle()),
	})
	if err != nil {
		t.Fatal(err)
	}
	configure := func(name, cidr string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
	}
	if err := configure("br-veth", "198.51.100.1/24"); err != nil {
		t.Fatal(err)
	}
	stranger.Must(func() error {
		if err := configure("eth0", "198.51.100.2/24"); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: []byte{198, 51, 100, 1}})
	})
	outside.Must(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: ipNet(single(netipAddr("198.51.100.2"))), Gw: []byte{192, 0, 2, 1}})
	})
	outside.Serve(80, "outside")
	if err := stranger.Silent("192.0.2.2:80"); err != nil {
		t.Errorf("a foreign packet was accepted: %v", err)
	}
}

// Somebody may flush the whole ruleset (nftables.service does when it is
// restarted); our table is there again soon.
func TestRulesetFlushed(t *testing.T) {
	c := testConfig(t)
	m := start(t, c)
	addPod(t, c, "a", tcp(8080, 80)).Serve(80, "a")
	n := conn(t)
	n.FlushRuleset()
	flush(t, n)
	host := nettest.Host(t)
	nettest.Eventually(t, "host port after the ruleset was flushed", func() error {
		_, err := host.Ask("tcp4", NodeAddress(c.NodeCIDR).String()+":8080")
		return err
	})
	if ok, err := m.table.Exists(); !ok || err != nil {
		t.Errorf("table: %v, %v", ok, err)
	}
}

// Issue: beside another Hansa in another network namespace. The other one is
// this test binary, started in its own namespace, with the same ranges.
func TestBesideAnotherInstance(t *testing.T) {
	const other = "HANSA_TEST_OTHER_INSTANCE"
	c := testConfig(t)
	if os.Getenv(other) != "" {
		c.Instance = "fedcba98"
	}
	start(t, c)
	a, b := addPod(t, c, "a"), addPod(t, c, "b")
	a.Serve(80, c.Instance)
	expect(t, b.NS, "tcp4", a.addr(80), c.Instance+" "+b.IP.String())
	if os.Getenv(other) != "" {
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBesideAnotherInstance$", "-test.v")
	cmd.Env = append(os.Environ(), other+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("the other instance: %v\n%s", err, out)
	}
	expect(t, b.NS, "tcp4", a.addr(80), c.Instance+" "+b.IP.String())
}

// snapshot is everything of the network namespace that Teardown must restore,
// one line each.
func snapshot(t *testing.T) []string {
	t.Helper()
	var out []string
	all, err := dump.Whole(netlink.LinkList)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("link %s %s %v", l.Attrs().Name, l.Attrs().Flags, addrs))
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump.Whole(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			out = append(out, "route "+r.String())
		}
		rules, err := dump.Whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			out = append(out, "rule "+r.String())
		}
	}
	chains, err := conn(t).ListChains()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chains {
		out = append(out, fmt.Sprintf("chain %s %s", c.Table.Name, c.Name))
	}
	tables, err := conn(t).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		out = append(out, "table "+x.Name)
	}
	err = filepath.WalkDir(filepath.Join(procSys, "net/ipv4/conf"), func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if b, err := os.ReadFile(p); err == nil {
				out = append(out, "sysctl "+p+" "+string(b))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Issue: taken down cleanly. Nothing is left, whether the daemon runs or was
// killed, and former settings are restored.
func TestTakenDownCleanly(t *testing.T) {
	for _, how := range []string{"running", "killed", "twice"} {
		t.Run(how, func(t *testing.T) {
			nettest.Uplink(t, 1500)
			newDocker(t, true)
			setSysctl(t, ipForward, "0")
			setSysctl(t, "net/ipv4/conf/up0/forwarding", "1")
			setSysctl(t, "net/ipv4/conf/all/accept_redirects", "0")
			before := snapshot(t)
			c := testConfig(t)
			m, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			addPod(t, c, "a", tcp(8080, 80))
			addPod(t, c, "b")
			if slices.Equal(snapshot(t), before) {
				t.Fatal("the snapshot sees nothing of us")
			}
			if how == "killed" {
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				// Knows only what is on disk, and not even the ranges.
				err = Teardown(Config{Instance: c.Instance, Dir: c.Dir, Socket: c.Socket})
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 1 + strings.Count(how, "twice") {
				if err := m.Teardown(); err != nil {
					t.Fatal(err)
				}
			}
			for _, line := range difference(before, snapshot(t)) {
				t.Error(line)
			}
			left, err := os.ReadDir(c.Dir)
			if err != nil || len(left) > 0 {
				t.Errorf("files left: %v, %v", left, err)
			}
		})
	}
}

func difference(before, after []string) []string {
	var out []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			out = append(out, "gone: "+l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			out = append(out, "left: "+l)
		}
	}
	return out
}

// Each object is recorded before it is made, and not made if that fails.
func TestLedger(t *testing.T) {
	var seen []string
	c := testConfig(t)
	setSysctl(t, ipForward, "0")
	newDocker(t, true)
	var mu sync.Mutex
	var full error
	c.Ledger = func(kind, name string) error {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, kind+" "+name)
		return full
	}
	m := start(t, c)
	addPod(t, c, "a")
	link := linkName(instance, "a", "eth0")
	want := []string{
		"sysctl net.ipv4.ip_forward", "link hansa-" + instance, "route 10.42.0.0/24",
		"table hansa-" + instance, "rule ip filter DOCKER-USER", "link " + link,
	}
	mu.Lock()
	if !slices.Equal(seen, want) {
		t.Errorf("ledger\n%q\nwant\n%q", seen, want)
	}
	full = errors.New("disk full")
	mu.Unlock()
	q := request("ADD", "b", nettest.New(t))
	r := m.handle(t.Context(), &q)
	if r.Error == nil || !strings.Contains(r.Error.Details, "disk full") {
		t.Errorf("ADD without ledger: %+v", r.Error)
	}
	if _, err := netlink.LinkByName(linkName(instance, "b", "eth0")); !notFound(err) {
		t.Errorf("link made without ledger: %v", err)
	}
}

// Another run may have other ranges; nothing stays of the former ones.
func TestRangesChange(t *testing.T) {
	c := testConfig(t)
	m := start(t, c)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	c.NodeCIDR, c.ClusterCIDR, c.ServiceCIDR = netipPrefix("10.52.0.0/24"), netipPrefix("10.52.0.0/16"), netipPrefix("10.53.0.0/16")
	start(t, c)
	for _, line := range snapshot(t) {
		if strings.Contains(line, "10.42.") || strings.Contains(line, "10.43.") {
			t.Error(line)
		}
	}
	a, b := addPod(t, c, "a"), addPod(t, c, "b")
	a.Serve(80, "a")
	expect(t, b.NS, "tcp4", a.addr(80), "a "+b.IP.String())
}

// A range that the host uses otherwise is refused with a way out.
func TestRangeTaken(t *testing.T) {
	nettest.Uplink(t, 1500)
	l, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netipPrefix("10.43.7.0/24")), Scope: netlink.SCOPE_LINK})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	err = m.Setup()
	want := "range 10.43.0.0/16 is taken on this host: there is a route to 10.43.7.0/24 by link up0"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Setup: %v, want %q", err, want)
	}
}
