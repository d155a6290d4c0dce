package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/runtime"
)

// nodeSays waits for a status and message of the node's condition Ready.
func (r *rig) nodeSays(status v1.ConditionStatus, message string) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("Ready=%s: %s", status, message), func() bool {
		r.agent.Poke()
		c := r.readiness()
		return c.Status == status && strings.Contains(c.Message, message)
	})
}

func (r *rig) readiness() (c v1.NodeCondition) {
	n, _ := r.client.View().Get(kinds.Registry().Must("", "nodes"), api.Key{Name: "n1"}).(*v1.Node)
	if n == nil {
		return c
	}
	if i := slices.IndexFunc(n.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady }); i >= 0 {
		c = n.Status.Conditions[i]
	}
	return c
}

// minting is a door to an API that issues tokens for an hour.
type minting struct {
	client.Interface
	rig    *rig
	issued atomic.Int32
}

func (m *minting) Post(_ context.Context, _ api.Ref, _ string, body apiruntime.Object) (apiruntime.Object, error) {
	out := body.(*authenticationv1.TokenRequest).DeepCopy()
	out.Status.Token = fmt.Sprint("token ", m.issued.Add(1))
	out.Status.ExpirationTimestamp = metav1.NewTime(m.rig.clock.Now().Add(time.Hour))
	return out, nil
}

// The clock jumps, forward and back: the node says so and by how much, its lease has
// the time of now, and pods have tokens that are good now. A step of a time server's
// is nothing to tell of.
func TestClockJump(t *testing.T) {
	r := newIdleRig(t)
	r.door = func(c client.Interface) client.Interface { return &minting{Interface: c, rig: r} }
	create(r, "namespaces", &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1.NamespaceNodeLease}})
	r.start()
	p := r.pod("web", func(p *v1.Pod) {
		p.Spec.ServiceAccountName = "default"
		p.Spec.Volumes = []v1.Volume{{Name: "token", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
			Sources: []v1.VolumeProjection{{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3600)}}},
		}}}}
	})
	r.wait("web", "Ready", isReady)
	file := filepath.Join(r.dir, "pods", string(p.UID), "volumes/kubernetes.io~projected/token/token")
	for i, c := range []struct {
		by    time.Duration
		event string
	}{{0, ""}, {2 * time.Hour, "ClockJumped: The clock jumped forward by 2h0m0s"}, {-3 * time.Hour, "ClockJumped: The clock jumped back by 3h0m0s"}} {
		r.clock.jump(c.by)
		r.clock.jump(time.Millisecond)
		if c.event != "" {
			r.event("n1", c.event)
		}
		want := fmt.Sprint("token ", i+1)
		r.eventually(want, func() bool {
			b, err := os.ReadFile(file)
			return err == nil && string(b) == want
		})
		r.eventually("a lease of now", func() bool {
			l, _ := r.client.View().Get(kinds.Registry().Must("coordination.k8s.io", "leases"), api.Key{Namespace: v1.NamespaceNodeLease, Name: "n1"}).(*coordinationv1.Lease)
			return l != nil && r.clock.Since(l.Spec.RenewTime.Time).Abs() < time.Minute
		})
	}
	if got := strings.Count(strings.Join(r.events("n1"), "\n"), "ClockJumped"); got != 2 {
		t.Errorf("%d events about the clock", got)
	}
}

// The runtime ends: the node says so at once, is ready as long as the kubelet's
// would be, and says when it is back.
func TestRuntimeDies(t *testing.T) {
	r := newRig(t)
	r.nodeSays(v1.ConditionTrue, "")
	since := r.readiness().LastTransitionTime
	r.runtime.SetReady(context.DeadlineExceeded)
	r.runtime.Disconnect()
	r.event("n1", "ContainerRuntimeDied: The container runtime ended")
	r.agent.Poke()
	r.runtime.SetReady(nil)
	r.runtime.Reconnect()
	r.event("n1", "ContainerRuntimeStarted: The container runtime serves again after ")
	if c := r.readiness(); c.Status != v1.ConditionTrue || c.LastTransitionTime != since {
		t.Errorf("the node's readiness changed: %+v", c)
	}
	r.runtime.SetReady(context.DeadlineExceeded)
	r.clock.jump(time.Minute)
	r.nodeSays(v1.ConditionFalse, "container runtime is down: ")
	r.runtime.SetReady(&runtime.NotReady{Condition: cri.NetworkReady, Reason: "NetworkPluginNotReady", Message: "no plugin"})
	r.nodeSays(v1.ConditionFalse, "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no plugin")
	r.runtime.SetReady(nil)
	r.nodeSays(v1.ConditionTrue, "")
}

// A file system that cannot be written to: the node says which folder, in its
// condition and an event, and when it is over.
func TestReadOnlyFilesystem(t *testing.T) {
	r := newRig(t)
	r.nodeSays(v1.ConditionTrue, "")
	dir := filepath.Join(r.dir, "agent")
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() (err error) {
		if mounted {
			err = unix.Unmount(dir, unix.MNT_DETACH)
		}
		mounted = false
		return err
	}
	t.Cleanup(func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	})
	text := "no pod can be started: " + dir + " cannot be written to: read-only file system"
	r.nodeSays(v1.ConditionFalse, text)
	r.event("n1", "FilesystemIsReadOnly: "+text)
	if err := unmount(); err != nil {
		t.Fatal(err)
	}
	r.nodeSays(v1.ConditionTrue, "")
	r.event("n1", "FilesystemIsNotReadOnly: ")
}

// "Container restarts": a container that is killed to be restarted is restarted, though
// the agent that did so has died meanwhile and the container has ended well.
func TestRestartOutlivesAgent(t *testing.T) {
	r := newRig(t)
	stopping := make(chan struct{}, 2)
	r.runtime.SetCommands(func(ctx context.Context, _ string, _ []string, _ runtime.Streams) int {
		stopping <- struct{}{}
		<-ctx.Done()
		return 0
	})
	r.runtime.AddImage("example.com/app:2", nil)
	r.pod("web", func(p *v1.Pod) {
		p.Spec.RestartPolicy, p.Spec.TerminationGracePeriodSeconds = v1.RestartPolicyOnFailure, ptr.To[int64](60)
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"stop"}}}}
	})
	r.wait("web", "Ready", isReady)
	for {
		p := r.get("web").DeepCopy()
		p.Spec.Containers[0].Image = "example.com/app:2"
		if _, err := r.client.Update(t.Context(), r.pods, p, ""); err == nil {
			break
		} else if !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
	<-stopping
	r.stop()
	r.runtime.Exit("app", 0, "") // unless it was told to stop
	r.start()
	r.wait("web", "another run", func(p *v1.Pod) bool {
		cs := p.Status.ContainerStatuses[0]
		return cs.RestartCount == 1 && cs.State.Running != nil && cs.LastTerminationState.Terminated.ExitCode == 0
	})
}
