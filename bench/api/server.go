package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hansa.dev/hansa/bench/internal/rig"
)

// kind is what a server is asked for: ConfigMaps, or what is most like them.
type kind struct{ root, version, name, plural string }

var configMaps = kind{"/api/v1", "v1", "ConfigMap", "configmaps"}

func (k kind) collection(namespace string) string {
	return k.root + "/namespaces/" + namespace + "/" + k.plural
}

// payload makes an object of 512 bytes of data.
var payload = strings.Repeat("x", 512)

// groups is how many labels there are: a list by label selects 2 % of all.
const groups = 50

// body is object number i.
func (k kind) body(i int64) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"%s","kind":"%s","metadata":{"name":"%s","labels":{"group":"g%d"}},"data":{"payload":"%s"}}`,
		k.version, k.name, nameOf(i), i%groups, payload)
}

func nameOf(i int64) string { return fmt.Sprintf("cm-%08d", i) }

// server is a process with an API.
type server struct {
	target  rig.Target
	kind    kind
	process int          // unless it is Hansa
	cluster *rig.Cluster // nil: not Hansa
	stop    func() error
}

// pid is the process; Hansa's is another one after a restart.
func (s *server) pid() int {
	if s.cluster != nil {
		return s.cluster.PID()
	}
	return s.process
}

// subject is a server that is measured, started anew for each run.
type subject struct {
	prefix  string // of its figures
	watches bool
	start   func(context.Context, *rig.Rig) (*server, error)
}

var (
	hansaSubject = subject{"", true, startHansa}
	peerSubject  = subject{"peer_", true, startPeer}
	bareSubject  = subject{"bare_", false, startBare}
)

// breath is how long the machine rests between two servers.
const breath = 2 * time.Second

// run starts the server, does something to it and stops it.
func (s subject) run(ctx context.Context, r *rig.Rig, do func(context.Context, *load) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%sserver: %w", s.prefix, err)
		}
	}()
	started, err := s.start(ctx, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, started.stop()) }()
	if err := rig.Wait(ctx, breath); err != nil {
		return err
	}
	l := newLoad(r, s, started)
	defer l.close()
	return do(ctx, l)
}

// namespaces are made in Hansa for the phases; the others know none.
var namespaces = []string{"load", "list", "watch", "memory", "pods", "idle"}

func startHansa(ctx context.Context, r *rig.Rig) (_ *server, err error) {
	c := r.NewCluster("api")
	remove := func() (err error) {
		c.Remove(ctx, &err)
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove())
		}
	}()
	if err := c.Up(ctx); err != nil {
		return nil, err
	}
	target, err := c.Target()
	if err != nil {
		return nil, err
	}
	admin := target.Connect()
	defer admin.Close()
	for _, name := range namespaces {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := admin.Call(ctx, "POST", "/api/v1/namespaces", ns, nil); err != nil {
			return nil, err
		}
	}
	return &server{target: target, kind: configMaps, cluster: c, stop: remove}, nil
}

// startProgram runs a program that prints a line when it serves what the
// kubeconfig in dir says. dir goes with it.
func startProgram(ctx context.Context, dir string, k kind, cmd *exec.Cmd) (_ *server, err error) {
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Nobody needs its data: it need not stop in order.
	stop := func() error {
		killErr := cmd.Process.Kill()
		cmd.Wait() //nolint:errcheck // it was killed
		return errors.Join(killErr, os.RemoveAll(dir))
	}
	defer func() {
		if err != nil {
			tail, _ := os.ReadFile(log.Name()) //nolint:errcheck // it explains if it is there
			err = errors.Join(fmt.Errorf("%w; its log ends:\n%s", err, tail[max(0, len(tail)-2000):]), stop())
		}
	}()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("did not start: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	security, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	target := rig.Target{URL: config.Host, TLS: security}
	return &server{target: target, kind: k, process: cmd.Process.Pid, stop: stop}, nil
}
