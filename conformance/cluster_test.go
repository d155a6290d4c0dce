package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// startLimit bounds what a cluster may need to start, on a busy machine.
const startLimit = 60 * time.Second

// cluster is one data directory and one network namespace, and the daemon that
// runs there. The tests' namespace is linked to it.
type cluster struct {
	dir     string         // the data directory
	address netip.Addr     // of the node, reachable from the tests
	ns      netns.NsHandle // where its processes run
	flags   []string       // of hansa up

	daemon *process // nil while none runs
}

var clusters atomic.Int32

// newCluster makes the place for a cluster; its data directory is not there yet.
func newCluster(name string) (*cluster, error) {
	n := int(clusters.Add(1))
	if n > 63 {
		return nil, errors.New("no addresses left for another cluster")
	}
	c := &cluster{
		dir:     filepath.Join(root, fmt.Sprintf("%02d-%s", n, name), "data"),
		address: netip.AddrFrom4([4]byte{192, 0, 2, byte(4*n + 2)}),
		flags:   []string{"--node-name", "node-" + name},
	}
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o755); err != nil {
		return nil, err
	}
	if err := c.connect(n); err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return c, nil
}

// connect makes the network namespace, with a link to the tests' own.
func (c *cluster) connect(n int) error {
	return onOwnThread(func() error {
		ours, err := netns.Get()
		if err != nil {
			return err
		}
		defer ours.Close()
		if c.ns, err = netns.New(); err != nil {
			return err
		}
		if err := netns.Set(ours); err != nil {
			return err
		}
		link := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("cluster%d", n)},
			PeerName:  "uplink", PeerNamespace: netlink.NsFd(c.ns),
		}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		outer, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer outer.Close()
		inner, err := netlink.NewHandleAt(c.ns)
		if err != nil {
			return err
		}
		defer inner.Close()
		return errors.Join(
			linkUp(outer, link.Name, netip.PrefixFrom(c.address.Prev(), 30)),
			linkUp(inner, "uplink", netip.PrefixFrom(c.address, 30)),
			linkUp(inner, "lo", netip.Prefix{}))
	})
}

func linkUp(h *netlink.Handle, name string, address netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if address.IsValid() {
		ip := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	return h.LinkSetUp(link)
}

// onOwnThread runs f on a thread that no other goroutine gets afterwards.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// process is a running command.
type process struct {
	cmd  *exec.Cmd
	out  output
	errs output
	// ended is closed when the process is gone; err says how.
	ended chan struct{}
	err   error
}

// output collects what a process writes; the other side may look at any time.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// begin starts a command in the cluster's network namespace.
func (c *cluster) begin(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.errs
	if err := c.enter(cmd.Start); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// enter runs f on a thread in the cluster's network namespace.
func (c *cluster) enter(f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(c.ns); err != nil {
			return err
		}
		return f()
	})
}

// hansa is a command of this cluster, with environment beside the usual.
func (c *cluster) hansa(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(c.dir), "HANSA_DATA_DIR=" + c.dir,
		"HANSA_DETECT_MUTATIONS=1", // whoever writes to a shared object is to be found
	}, env...)
	cmd.Dir = filepath.Dir(c.dir)
	return cmd
}

// up starts the daemon and returns when it says that it is ready.
func (c *cluster) up(flags ...string) error {
	args := append(append([]string{"up"}, c.flags...), flags...)
	cmd := c.hansa(background, []string{"HANSA_DETECT_MUTATIONS=1"}, args...)
	var err error
	if c.daemon, err = c.begin(cmd); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	ready := poll(limit, func() bool {
		select {
		case <-c.daemon.ended:
			return true
		default:
			return strings.Contains(c.daemon.out.String(), "hansa: ready in")
		}
	})
	select {
	case <-c.daemon.ended:
		return fmt.Errorf("hansa up ended (%v): %s", c.daemon.err, c.daemon.errs.String())
	default:
	}
	if !ready {
		return fmt.Errorf("hansa up is not ready after %s: %s", startLimit, c.daemon.errs.String())
	}
	return nil
}

// signal sends the daemon a signal and waits until it is gone.
func (c *cluster) signal(s syscall.Signal) error {
	if err := c.daemon.cmd.Process.Signal(s); err != nil {
		return err
	}
	<-c.daemon.ended
	return c.daemon.err
}

// takeDown ends everything and removes the data.
func (c *cluster) takeDown() error {
	defer c.ns.Close()
	if _, err := os.Stat(c.dir); err != nil {
		return nil
	}
	p, err := c.begin(c.hansa(background, nil, "down", "--purge"))
	if err != nil {
		return err
	}
	<-p.ended
	if p.err != nil {
		return fmt.Errorf("hansa down --purge: %w: %s", p.err, p.errs.String())
	}
	if _, err := os.Stat(c.dir); err == nil {
		return fmt.Errorf("hansa down --purge left %s", c.dir)
	}
	return nil
}

// config is the administrator's, from the kubeconfig that the daemon wrote, at
// the address that the tests reach.
func (c *cluster) config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.Host = "https://" + net.JoinHostPort(c.address.String(), "6443")
	config.QPS, config.Burst = -1, -1
	config.UserAgent = "conformance"
	config.WarningHandler = rest.NoWarnings{}
	return config, nil
}

// own is a cluster for one test, which may do to it what it likes.
func own(t *testing.T, name string) *cluster {
	t.Helper()
	c, err := newCluster(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.takeDown(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

// run runs a command of hansa to its end.
func (c *cluster) run(t *testing.T, args ...string) result {
	t.Helper()
	return c.finish(t, c.hansa(t.Context(), nil, args...))
}

func (c *cluster) finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	p, err := c.begin(cmd)
	if err != nil {
		t.Fatalf("start %s: %v", strings.Join(cmd.Args, " "), err)
	}
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		_ = cmd.Process.Kill() // whatever comes of it, the test has failed
		<-p.ended
		t.Fatalf("%s does not end within %s", strings.Join(cmd.Args, " "), startLimit)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: p.out.String(), err: p.errs.String()}
}

// pollEvery is the pause between two looks at a condition.
const pollEvery = 20 * time.Millisecond

// poll looks at a condition until it holds or the context ends.
func poll(ctx context.Context, condition func() bool) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if condition() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// waitLimit bounds how long a test waits for what must come.
const waitLimit = 30 * time.Second

// eventually waits for a condition, which what describes.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if !poll(ctx, condition) {
		t.Fatalf("waited %s in vain: %s", waitLimit, what)
	}
}

// background is for what happens after a test, whose own context has ended by
// then.
var background = context.Background()
