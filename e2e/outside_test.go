package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// The machine's place in the world: one link to a namespace that plays
// everything else, with a name server of its own.
const (
	nodeName      = "node-one"
	nodeIP        = "198.51.100.2"
	outsideIP     = "198.51.100.1"
	outsideNS     = "outside"
	outsideDomain = "example.test"
)

// ip runs the ip command.
func ip(args string) error { return command("ip", strings.Fields(args)...) }

// command runs a program of which only failure matters.
func command(name string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// connectMachine makes the outside and the link to it.
func connectMachine() error {
	for _, args := range []string{
		"netns add " + outsideNS,
		"link add eth0 type veth peer name eth0 netns " + outsideNS,
		"link set lo up",
		"link set eth0 addrgenmode none", // no address appears by itself
		"link set eth0 up",
		"addr add " + nodeIP + "/24 dev eth0",
		"-n " + outsideNS + " link set lo up",
		"-n " + outsideNS + " link set eth0 up",
		"-n " + outsideNS + " addr add " + outsideIP + "/24 dev eth0",
		"route add default via " + outsideIP,
	} {
		if err := ip(args); err != nil {
			return err
		}
	}
	return errors.Join(settled(), settled("-n", outsideNS))
}

// settled waits until the kernel has noticed that the link carries: it looks at
// links a moment, under load a second, after they were changed, and only then
// are routes by them as they stay.
func settled(where ...string) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(patience); ; <-again.C {
		link, err := exec.Command("ip", append(where, "-o", "link", "show", "eth0")...).Output()
		routes, err2 := exec.Command("ip", append(where, "-o", "route")...).Output()
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("look at the machine's link: %w", err)
		}
		if bytes.Contains(link, []byte(" state UP ")) && !bytes.Contains(routes, []byte("linkdown")) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the machine's link does not come up: %s%s", link, routes)
		}
	}
}

// threads are the ones that live in other network namespaces: each carries out
// what it is sent.
var threads = struct {
	sync.Mutex
	of map[string]chan<- func()
}{of: map[string]chan<- func(){}}

// within runs f on a thread in a network namespace. What f opens stays there.
func within(namespace string, f func() error) error {
	thread, err := threadIn(namespace)
	if err == nil {
		done := make(chan error)
		thread <- func() { done <- f() }
		err = <-done
	}
	if err != nil {
		return fmt.Errorf("in network namespace %s: %w", namespace, err)
	}
	return nil
}

func threadIn(namespace string) (chan<- func(), error) {
	threads.Lock()
	defer threads.Unlock()
	if thread, ok := threads.of[namespace]; ok {
		return thread, nil
	}
	work, entered := make(chan func()), make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		fd, err := unix.Open("/run/netns/"+namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if entered <- err; err != nil {
			return
		}
		for f := range work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		return nil, err
	}
	threads.of[namespace] = work
	return work, nil
}

// reach is an HTTP client of the outside.
var reach = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true,
	DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialWithin(ctx, outsideNS, network, address)
	},
}}

// dialWithin connects from a network namespace.
func dialWithin(ctx context.Context, namespace, network, address string) (conn net.Conn, err error) {
	err = within(namespace, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// fetchFromOutside returns what a URL answers there.
func fetchFromOutside(url string) (string, error) { return answerOf(reach.Get(url)) }

// upstream counts what the outside's name server was asked.
var upstream = counter{n: map[string]int{}}

// counter counts questions by name.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[name]++
}

func (c *counter) asked(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[name]
}

// serveOutside answers DNS in the outside: every name directly below
// its domain but "missing" has its address. Over HTTP it tells callers their address.
func serveOutside() error {
	return within(outsideNS, func() error {
		packets, err := net.ListenPacket("udp", outsideIP+":53")
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", outsideIP+":53")
		if err != nil {
			return err
		}
		web, err := net.Listen("tcp", outsideIP+":80")
		if err != nil {
			return err
		}
		go http.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) }))
		handler := dns.HandlerFunc(answerOutside)
		go (&dns.Server{PacketConn: packets, Handler: handler}).ActivateAndServe()
		go (&dns.Server{Listener: listener, Handler: handler}).ActivateAndServe()
		return nil
	})
}

func answerOutside(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	name := strings.ToLower(q.Question[0].Name)
	upstream.add(name)
	switch {
	case !dns.IsSubDomain(outsideDomain+".", name) || dns.CountLabel(name) != 3 || strings.HasPrefix(name, "missing."):
		m.Rcode = dns.RcodeNameError
		// How long that holds (RFC 2308).
		m.Ns = append(m.Ns, &dns.SOA{
			Hdr: dns.RR_Header{Name: outsideDomain + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30},
			Ns:  "ns." + outsideDomain + ".", Mbox: "root." + outsideDomain + ".", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 30,
		})
	case q.Question[0].Qtype == dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 30},
			A:   net.ParseIP(outsideIP),
		})
	}
	_ = w.WriteMsg(m) // who asked asks again
}
