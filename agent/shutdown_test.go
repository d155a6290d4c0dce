package agent_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/shutdown/logindtest"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// "Graceful node shutdown": logind is delayed until the pods have ended in order,
// critical ones last; the node is not ready and takes no pods until the shutdown
// is cancelled.
func TestGracefulNodeShutdown(t *testing.T) {
	l := logindtest.New(t, 5*time.Second)
	r := configured(t, map[string]any{"shutdownGracePeriod": "20s", "shutdownGracePeriodCriticalPods": "10s"})
	r.bus = l.Address
	r.start()
	lock := l.Lock()
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
	l.Prepare(true)
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
	l.Prepare(false)
	l.Lock() // taken again
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
