package agent_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// logind is one that does nothing by itself, on a bus of its own.
type logind struct {
	t       *testing.T
	conn    *dbus.Conn
	address string
	locks   chan *os.File // the other ends of inhibitors
}

// Inhibit is org.freedesktop.login1.Manager.Inhibit.
func (l *logind) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	if what != "shutdown" || mode != "delay" {
		l.t.Errorf("Inhibit(%s, %s, %s, %s)", what, who, why, mode)
	}
	l.locks <- r
	return dbus.UnixFD(w.Fd()), nil
}

// Get is org.freedesktop.DBus.Properties.Get.
func (l *logind) Get(_, property string) (dbus.Variant, *dbus.Error) {
	if property != "InhibitDelayMaxUSec" {
		return dbus.Variant{}, dbus.MakeFailedError(os.ErrNotExist)
	}
	return dbus.MakeVariant(uint64(5_000_000)), nil
}

func (l *logind) prepare(down bool) {
	l.t.Helper()
	if err := l.conn.Emit("/org/freedesktop/login1", "org.freedesktop.login1.Manager.PrepareForShutdown", down); err != nil {
		l.t.Fatal(err)
	}
}

func newLogind(t *testing.T) *logind {
	t.Helper()
	config := filepath.Join(t.TempDir(), "bus.conf")
	text := `<busconfig><type>session</type><listen>unix:path=` + filepath.Join(t.TempDir(), "bus") + `</listen><auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--print-address", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) //nolint:errcheck // it is killed
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	l := &logind{t: t, address: strings.TrimSpace(line), locks: make(chan *os.File, 10)}
	if l.conn, err = dbus.Connect(l.address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close() })
	for _, iface := range []string{"org.freedesktop.login1.Manager", "org.freedesktop.DBus.Properties"} {
		if err := l.conn.Export(l, "/org/freedesktop/login1", iface); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.conn.RequestName("org.freedesktop.login1", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	return l
}

// "Graceful node shutdown": logind is delayed until the pods have ended in order,
// critical ones last; the node is not ready and takes no pods until the shutdown
// is cancelled.
func TestGracefulNodeShutdown(t *testing.T) {
	l := newLogind(t)
	r := configured(t, map[string]any{"shutdownGracePeriod": "20s", "shutdownGracePeriodCriticalPods": "10s"})
	r.bus = l.address
	r.start()
	lock := <-l.locks
	tolerant := func(priority int32) func(*v1.Pod) {
		return func(p *v1.Pod) {
			p.Spec.Priority = ptr.To(priority)
			p.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}}
		}
	}
	r.pod("plain", tolerant(0))
	r.pod("critical", tolerant(2000000000))
	r.wait("plain", "Ready", isReady)
	r.wait("critical", "Ready", isReady)
	l.prepare(true)
	if _, err := lock.Read(make([]byte, 1)); err == nil {
		t.Error("the inhibitor has content")
	} // it was closed, so the pods have ended
	for _, name := range []string{"plain", "critical"} {
		p := r.wait(name, "its end", inPhase(v1.PodFailed))
		if p.Status.Reason != "Terminated" || p.Status.Message != "Pod was terminated in response to imminent node shutdown." ||
			!hasCondition(p, v1.DisruptionTarget, v1.ConditionTrue, v1.PodReasonTerminationByKubelet) {
			t.Errorf("%s", describe(p))
		}
	}
	if plain, critical := ended(r.get("plain")), ended(r.get("critical")); critical.Before(plain) {
		t.Errorf("the critical pod ended at %s, the plain one at %s", critical, plain)
	}
	ready := func(want v1.ConditionStatus, message string) {
		t.Helper()
		r.eventually("node "+message, func() bool {
			n, _ := r.client.View().Get(kinds.Registry().Must("", "nodes"), api.Key{Name: "n1"}).(*v1.Node)
			for _, c := range n.Status.Conditions {
				if c.Type == v1.NodeReady && c.Status == want && c.Message == message {
					return true
				}
			}
			return false
		})
	}
	ready(v1.ConditionFalse, "node is shutting down")
	r.pod("late", tolerant(0))
	if p := r.wait("late", "refusal", inPhase(v1.PodFailed)); p.Status.Reason != "NodeShutdown" || p.Status.Message != "Pod was rejected: Pod was rejected as the node is shutting down." {
		t.Errorf("%s", describe(p))
	}
	l.prepare(false)
	<-l.locks // taken again
	ready(v1.ConditionTrue, "kubelet is posting ready status")
	r.pod("next", tolerant(0))
	r.wait("next", "Ready", isReady)
	r.nodeEvent("NodeShutdown", "Shutdown manager detected shutdown event")
	r.nodeEvent("GracefulNodeShutdownShortened", "logind waits for 5s only, not 20s: set InhibitDelayMaxSec=20 in logind.conf")
}

// Without a system bus the node says that there is no graceful shutdown.
func TestNoLogind(t *testing.T) {
	r := configured(t, map[string]any{"shutdownGracePeriod": "20s"})
	r.bus = "unix:path=" + filepath.Join(t.TempDir(), "none")
	r.start()
	r.nodeEvent("GracefulNodeShutdownUnavailable", "connect to the system bus: ")
	r.pod("web", nil)
	r.wait("web", "Ready", isReady)
}

func (r *rig) nodeEvent(reason, text string) {
	r.t.Helper()
	r.eventually("event "+reason, func() bool {
		for obj := range r.client.View().List(kinds.Registry().Must("", "events"), "") {
			if e, ok := obj.(*v1.Event); ok && e.InvolvedObject.Kind == "Node" && e.Reason == reason && strings.HasPrefix(e.Message, text) {
				return true
			}
		}
		return false
	})
}

func hasCondition(p *v1.Pod, kind v1.PodConditionType, status v1.ConditionStatus, reason string) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status == status && c.Reason == reason
		}
	}
	return false
}

// ended is when a pod's container did.
func ended(p *v1.Pod) time.Time {
	return p.Status.ContainerStatuses[0].State.Terminated.FinishedAt.Time
}
