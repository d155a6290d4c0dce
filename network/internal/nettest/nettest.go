// Package nettest runs tests of network code on the real kernel without
// touching the host: the whole test process moves into a network namespace of
// its own, which plays the host, and makes further ones for pods and clients.
// It needs root.
package nettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"
)

// inside is in the environment of the process that runs the tests.
const inside = "HANSA_NETTEST_INSIDE=1"

var wall = clock.RealClock{}

// The main goroutine keeps the main thread, which /proc/self shows, so that no
// test moves that one into another namespace.
func init() { runtime.LockOSThread() }

// Main runs the package's tests in a new network and mount namespace; call it
// from TestMain, with os.Args and os.Environ(). Everything the tests make there
// goes with the process.
func Main(m *testing.M, args, env []string) {
	if slices.Contains(env, inside) {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "nettest:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "nettest: these tests need root: they make network namespaces")
		os.Exit(1)
	}
	cmd := exec.Command("/proc/self/exe", args[1:]...)
	cmd.Env = append(env, inside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL, // tied to the main thread, see init
	}
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		os.Exit(code)
	}
	fmt.Fprintln(os.Stderr, "nettest:", err)
	os.Exit(1)
}

func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Links of tests get no IPv6 addresses of their own, some time after they
	// are up; kernels without IPv6 have no such setting.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/addr_gen_mode", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// An NS is a network namespace with a path.
type NS struct {
	T    testing.TB
	Path string
	h    netns.NsHandle
}

// New makes a network namespace that goes with the test. Its lo is down.
func New(t testing.TB) *NS {
	t.Helper()
	dir, err := os.MkdirTemp("", "hansa-nettest-")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	errc := make(chan error)
	go func() {
		// Never unlocked: the thread is not fit for other goroutines and ends.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			errc <- err
			return
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		errc <- unix.Mount(self, path, "", unix.MS_BIND, "")
	}()
	if err := <-errc; err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	n := &NS{T: t, Path: path, h: h}
	t.Cleanup(func() { n.Remove(); os.RemoveAll(dir) })
	return n
}

// Remove takes the namespace's path away; the namespace goes when nothing
// lives in it. It may be called more than once.
func (n *NS) Remove() {
	if n.h.IsOpen() {
		n.h.Close()
		_ = unix.Unmount(n.Path, unix.MNT_DETACH)
		_ = os.Remove(n.Path)
	}
}

// Handle returns the open namespace; it stays n's.
func (n *NS) Handle() netns.NsHandle { return n.h }

// Do runs f on a thread in the namespace and returns its error.
func (n *NS) Do(f func() error) error {
	errc := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(n.h), unix.CLONE_NEWNET); err != nil {
			errc <- err
			return
		}
		errc <- f()
	}()
	return <-errc
}

// Must runs f as Do does and ends the test on an error.
func (n *NS) Must(f func() error) {
	n.T.Helper()
	if err := n.Do(f); err != nil {
		n.T.Fatal(err)
	}
}

// Host returns the namespace of the test process.
func Host(t testing.TB) *NS {
	t.Helper()
	h, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	n := &NS{T: t, Path: "/proc/self/ns/net", h: h}
	t.Cleanup(func() { n.h.Close() })
	return n
}

// Uplink gives the host a link up0 with address 192.0.2.1/24 and a default
// route to a new namespace that has 192.0.2.2/24 and no other route. The link
// goes with the test.
func Uplink(t testing.TB, mtu int) *NS {
	t.Helper()
	outside := New(t)
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: "up0", MTU: mtu},
		PeerName:      "out0",
		PeerNamespace: netlink.NsFd(outside.h),
		PeerMTU:       uint32(mtu),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(l) })
	up(t, "up0", "192.0.2.1/24")
	outside.Must(func() error { up(t, "lo", ""); up(t, "out0", "192.0.2.2/24"); return nil })
	Eventually(t, "carrier on up0", func() error {
		l, err := netlink.LinkByName("up0")
		if err == nil && l.Attrs().OperState != netlink.OperUp {
			err = fmt.Errorf("state %s", l.Attrs().OperState)
		}
		return err
	})
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(192, 0, 2, 2)})
	if err != nil {
		t.Fatalf("default route: %v", err)
	}
	return outside
}

func up(t testing.TB, name, addr string) {
	l, err := netlink.LinkByName(name)
	if err == nil && addr != "" {
		var a *netlink.Addr
		if a, err = netlink.ParseAddr(addr); err == nil {
			err = netlink.AddrAdd(l, a)
		}
	}
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatalf("set up %s %s: %v", name, addr, err)
	}
}

// Serve answers on a TCP and a UDP port of every address in the namespace,
// with name and the peer's address: "NAME ADDR". TCP connections stay open and
// answer each line. It ends with the test, or when stop is called.
func (n *NS) Serve(port int, name string) (stop func()) {
	n.T.Helper()
	var l net.Listener
	var p net.PacketConn
	n.Must(func() (err error) {
		if l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		p, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 64)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					fmt.Fprintf(c, "%s %s\n", name, host(c.RemoteAddr()))
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo([]byte(name+" "+host(from)+"\n"), from)
		}
	}()
	stop = func() { l.Close(); p.Close() }
	n.T.Cleanup(stop)
	return stop
}

func host(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().String() }

// patience bounds what should succeed; silence is how long what should not is
// given to.
const (
	patience = 15 * time.Second
	silence  = time.Second
)

// Dial connects from the namespace.
func (n *NS) Dial(network, addr string) (net.Conn, error) { return n.dial(network, addr, patience) }

func (n *NS) dial(network, addr string, wait time.Duration) (c net.Conn, err error) {
	d := net.Dialer{Timeout: wait}
	err = n.Do(func() error {
		c, err = d.DialContext(context.Background(), network, addr)
		return err
	})
	return c, err
}

// Ask connects from the namespace, sends a line and returns the answer.
func (n *NS) Ask(network, addr string) (string, error) {
	c, err := n.Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return AskOn(c)
}

// Silent ends in an error unless packets for a TCP address are dropped: no
// connection, and no refusal either.
func (n *NS) Silent(addr string) error {
	c, err := n.dial("tcp4", addr, silence)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s answers", addr)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		return fmt.Errorf("%s is not silent: %w", addr, err)
	}
	return nil
}

// AskOn sends a line on a connection and returns the answer.
func AskOn(c net.Conn) (string, error) {
	if err := c.SetDeadline(wall.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	k, err := c.Read(b)
	return strings.TrimSpace(string(b[:k])), err
}

// Run runs a command in the process's namespace and returns its output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// Eventually polls until ok returns no error, or ends the test after fifteen
// seconds with the last one.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := wall.After(patience)
	tick := wall.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-tick.C():
		}
	}
}
