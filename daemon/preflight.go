package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is what preflight looks at, so that tests can show it other hosts.
type host struct {
	uid         int
	filesystems string   // /proc/filesystems
	controllers []string // nil: no hierarchy is mounted
	veth        func() error
	nftables    func() error
}

func thisHost() host {
	fs, _ := os.ReadFile("/proc/filesystems") //nolint:errcheck // without /proc no file system is known, which is said
	if !strings.Contains(string(fs), "\toverlay\n") {
		exec.Command("modprobe", "overlay").Run() //nolint:errcheck // whether it helped is looked at next
		fs, _ = os.ReadFile("/proc/filesystems")  //nolint:errcheck // as above
	}
	return host{
		uid:         os.Geteuid(),
		filesystems: string(fs),
		controllers: cgroupControllers(),
		veth:        tryVeth,
		nftables:    tryNftables,
	}
}

// neededControllers are the cgroup controllers without which limits of pods
// would be accepted and ignored.
var neededControllers = []string{"cpu", "memory", "pids"}

// preflight says in one sentence what this host lacks.
func preflight(h host) error {
	if h.uid != 0 {
		return errors.New("a node needs root: start it with sudo or as a system service")
	}
	if !strings.Contains(h.filesystems, "\toverlay\n") {
		return errors.New("the kernel lacks overlayfs, on which images are unpacked: load the module overlay or use a kernel with CONFIG_OVERLAY_FS")
	}
	if h.controllers == nil {
		return errors.New("no cgroup hierarchy is mounted at /sys/fs/cgroup, without which pods cannot be limited: mount it, or, since ip netns exec mounts /sys anew without it, enter the network namespace with nsenter --net=/run/netns/NAME")
	}
	for _, c := range neededControllers {
		if !slices.Contains(h.controllers, c) {
			return fmt.Errorf("the cgroup controller %s is missing, without which pods cannot be limited: enable it on the kernel command line (cgroup_enable=%s)", c, c)
		}
	}
	if err := h.veth(); err != nil {
		return fmt.Errorf("the kernel lacks veth, by which pods are connected: load the module veth or use a kernel with CONFIG_VETH (%w)", err)
	}
	if err := h.nftables(); err != nil {
		return fmt.Errorf("the kernel lacks nftables, by which services are reached: load the module nf_tables or use a kernel with CONFIG_NF_TABLES (%w)", err)
	}
	return nil
}

// cgroupControllers are those of the v2 hierarchy, or of the v1 ones that are
// mounted; nil when there is no hierarchy.
func cgroupControllers() []string {
	if b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return strings.Fields(string(b))
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		_, after, ok := strings.Cut(s.Text(), " - cgroup ")
		if !ok {
			continue
		}
		if fields := strings.Fields(after); len(fields) > 1 {
			all = append(all, strings.Split(fields[1], ",")...)
		}
	}
	return all
}

func tryVeth() error {
	name := fmt.Sprintf("hansat%07d", os.Getpid()%10_000_000)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

func tryNftables() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	_, err = c.ListTables()
	return err
}

// freeNodePort says in one sentence that the port of the node's API is taken;
// clients know it by convention, so there is no choosing another.
func freeNodePort() (net.Listener, error) {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", nodePort))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("port %d, of the node's API, is in use: two nodes on one machine need a network namespace each", nodePort)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the node's API: %w", err)
	}
	return l, nil
}

// freePort listens for the API, and says in one sentence if its port is taken; flag is
// the one that gives another.
func freePort(listen, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", listen)
	if errors.Is(err, unix.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(listen) //nolint:errcheck // checked by the command line
		return nil, fmt.Errorf("port %s is in use by another program: choose another address with --%s", port, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", listen, err)
	}
	return l, nil
}
