package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What Docker puts into the packet filter of its host (28, nftables by way of
// iptables-nft), shortened to what decides: forwarded packets are dropped unless
// they are Docker's, and bridges are filtered too.
const (
	dockerRules = `
table ip nat {
	chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump DOCKER; }
	chain OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER; }
	chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept; ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
	chain DOCKER { }
}
table ip filter {
	chain INPUT { type filter hook input priority filter; policy accept; }
	chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; jump DOCKER-FORWARD; }
	chain OUTPUT { type filter hook output priority filter; policy accept; }
	chain DOCKER { iifname != "docker0" oifname "docker0" drop; }
	chain DOCKER-FORWARD { oifname "docker0" ct state related,established accept; oifname "docker0" jump DOCKER; iifname "docker0" accept; }
	chain DOCKER-USER { }
}
`
	// A firewall that drops what it does not know, without a chain for others.
	plainRules = `
table ip filter {
	chain FORWARD { type filter hook forward priority filter; policy drop; }
}
`
	bridgeFilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"
)

func TestBesideDocker(t *testing.T) {
	if alone(t) {
		besideRules(t, dockerRules)
	}
}

func TestBesideFirewall(t *testing.T) {
	if alone(t) {
		besideRules(t, plainRules)
	}
}

// besideRules runs pods and services on a host with these rules, which are as
// before afterwards.
func besideRules(t *testing.T, rules string) {
	var errOut bytes.Buffer
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin, nft.Stderr = strings.NewReader(rules), &errOut
	if err := nft.Run(); err != nil {
		t.Fatalf("nft: %v: %s", err, errOut.Bytes())
	}
	for _, args := range []string{"link add docker0 type bridge", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up"} {
		if err := ip(args); err != nil {
			t.Fatal(err)
		}
	}
	// Kernels without this do not filter bridges at all.
	if _, err := os.Stat(bridgeFilter); err == nil {
		if err := os.WriteFile(bridgeFilter, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	before := printed(t, "nft", "list", "ruleset")

	c := started(t, newCluster("guest"))
	s := newSpace(t, c)
	a, b := s.server("a", "greeter", ""), s.server("b", "other", "")
	v := s.service("greeter", "type: NodePort, selector: {app: greeter}, ports: [{port: 80, targetPort: web}]")
	works := func() {
		t.Helper()
		s.answers(s.from(b), "http://"+a.Status.PodIP+":8080/", "a\n")
		s.answers(s.from(b), "http://greeter/", "a\n")
		s.answers(s.from(a), "http://greeter/", "a\n")
		s.answers(fetchFromOutside, fmt.Sprintf("http://%s:%d/", nodeIP, v.Spec.Ports[0].NodePort), "a\n")
		await(t, "the outside answers", func() error {
			_, err := s.from(a)("http://" + outsideIP + "/")
			return err
		})
	}
	works()
	if now := strings.Join(printed(t, "nft", "list", "ruleset"), "\n"); !strings.Contains(now, `comment "hansa`) {
		t.Errorf("no rule is marked as ours:\n%s", now)
	}
	// The others load their rules again, and ours with them are gone.
	chain := "FORWARD"
	if strings.Contains(rules, "DOCKER-USER") {
		chain = "DOCKER-USER"
	}
	if err := command("nft", "flush", "chain", "ip", "filter", chain); err != nil {
		t.Fatal(err)
	}
	works()
	if err := c.purge(); err != nil {
		t.Fatal(err)
	}
	after := printed(t, "nft", "list", "ruleset")
	if strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("rules after:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

// Two Hansas on one machine, each in a network namespace of its own.
func TestBesideAnotherHansa(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, args := range []string{
		"netns add second",
		"link add second0 type veth peer name eth0 netns second",
		"link set second0 up",
		"addr add 203.0.113.1/24 dev second0",
		"-n second link set lo up",
		"-n second link set eth0 up",
		"-n second addr add 203.0.113.2/24 dev eth0",
		"-n second route add default via 203.0.113.1",
	} {
		if err := ip(args); err != nil {
			t.Fatal(err)
		}
	}
	first := started(t, newCluster("first"))
	second := newCluster("second", "--node-name=node-two")
	second.namespace = "second"
	started(t, second)

	spaces := map[string]*space{}
	for name, c := range map[string]*cluster{"first": first, "second": second} {
		s := newSpace(t, c)
		spaces[name] = s
		s.server("server", "server", "")
		s.service("server", "selector: {app: server}, ports: [{port: 80, targetPort: web}]")
		s.kubectl("label", "pod", "server", "of="+name)
		s.create("client", strings.TrimPrefix(sleeper, "\n"))
	}
	works := func(name string) {
		t.Helper()
		s := spaces[name]
		s.ready("client")
		await(t, "the service of "+name+" answers by name", func() error {
			out, err := s.cluster.kubectl("-n", s.name, "exec", "client", "--", "wget", "-qO-", "http://server/")
			if err == nil && out != "server\n" {
				err = errors.New(out)
			}
			return err
		})
	}
	works("first")
	works("second")
	for name, node := range map[string]string{"first": nodeName, "second": "node-two"} {
		if got := spaces[name].kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"); got != node {
			t.Errorf("nodes of %s: %s", name, got)
		}
	}
	// One is taken down, the other does not notice.
	before := spaces["second"].histories([]string{"server"})
	if err := first.purge(); err != nil {
		t.Fatal(err)
	}
	works("second")
	if after := spaces["second"].histories([]string{"server"}); after["server"] != before["server"] {
		t.Errorf("the other one's pod: %+v, was %+v", after, before)
	}
}
