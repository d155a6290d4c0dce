package agent_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/fake"
)

// sandbox makes a sandbox as an agent before this one asked for it.
func (r *rig) sandbox(name, uid string) {
	r.t.Helper()
	_, err := r.runtime.RunSandbox(r.t.Context(), &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: uid},
		Labels:   map[string]string{work.LabelUID: uid},
	}, "")
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) class(c *nodev1.RuntimeClass) {
	r.t.Helper()
	if _, err := r.client.Create(r.t.Context(), kinds.Registry().Must("node.k8s.io", "runtimeclasses"), c, metav1.CreateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// The runtime died while it made a sandbox, and the pod went meanwhile: what
// shows up afterwards is removed, without a restart of the agent. It shows up by
// an event or, when that is lost, by a look.
func TestLateSandboxIsRemoved(t *testing.T) {
	for _, lost := range []bool{false, true} {
		r := newRig(t)
		r.pod("web", nil)
		r.wait("web", "Ready", isReady)
		r.runtime.Silence(lost)
		r.sandbox("late", "late-uid")
		if lost {
			r.runtime.Silence(false)
			r.runtime.Reconnect()
		}
		r.eventually("the late sandbox to go", func() bool {
			sandboxes, err := r.runtime.Sandboxes(t.Context(), nil)
			return err == nil && len(sandboxes) == 1 && isReady(r.get("web"))
		})
	}
}

// A dying runtime may make a control group of a pod that has given its own back:
// of one that is gone, and of one that is over. Those of pods that run stay.
func TestLateGroupIsRemoved(t *testing.T) {
	r := newRig(t)
	r.runtime.SetProgram(image, func(p *fake.Process) int {
		if p.Config.Metadata.Name == "over" {
			return 0
		}
		return fake.UntilStopped(p)
	})
	over := r.pod("over", func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.Containers[0].Name = "over"
	})
	web := r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	r.wait("over", "its end", inPhase(v1.PodSucceeded))
	groups := cgroup.New(r.layout, r.base, func(string, string) error { return nil })
	have := func() string {
		names, err := groups.Children(cgroup.QOSGroup(v1.PodQOSBestEffort))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(names, " ")
	}
	r.eventually("the group to be given back", func() bool { return have() == string(web.UID) })
	for _, uid := range []string{string(over.UID), "d0a1c1d3-0000-4000-8000-000000000000"} {
		if err := groups.Ensure(cgroup.PodGroup(v1.PodQOSBestEffort, uid)+"/container", cgroup.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	r.runtime.Reconnect()
	r.eventually("the late groups to go", func() bool { return have() == string(web.UID) })
}

// A sandbox of which the agent that asked for it did not hear keeps another from
// being made. It is found and used.
func TestUnheardSandboxIsFound(t *testing.T) {
	r := newRig(t)
	p := r.pod("web", func(p *v1.Pod) { p.Spec.RuntimeClassName = ptr.To("late") })
	r.event("web", `FailedCreatePodSandBox: Failed to create pod sandbox: runtimeclass.node.k8s.io "late" not found`)
	r.runtime.Silence(true)
	r.sandbox("web", string(p.UID))
	r.runtime.Silence(false)
	r.class(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Handler: "runc"})
	r.wait("web", "Ready", isReady)
	sandboxes, err := r.runtime.Sandboxes(t.Context(), nil)
	if err != nil || len(sandboxes) != 1 {
		t.Errorf("%v %v", sandboxes, err)
	}
}

// While the API is away nothing says which pods there are: a look at the runtime
// takes nothing away.
func TestLookWithoutAPI(t *testing.T) {
	dir := t.TempDir()
	manifest(t, dir, "static", "one")
	r := configured(t, map[string]any{"staticPodPath": dir})
	r.start()
	r.pod("web", nil)
	before := r.wait("web", "Ready", isReady)
	static := strings.TrimPrefix(r.wait("static-n1", "Ready", isReady).Status.ContainerStatuses[0].ContainerID, "containerd://")
	r.stop()
	come := make(chan struct{})
	r.door = func(c client.Interface) client.Interface { return away{c, come} }
	r.start()
	// What the look finds shows that there was one.
	r.runtime.Silence(true)
	r.runtime.Exit(static, 3, "")
	r.runtime.Silence(false)
	r.runtime.Reconnect()
	r.eventually("the static pod to be restarted", func() bool {
		list, err := r.runtime.Containers(t.Context(), nil)
		running := 0
		for _, c := range list {
			if c.State == cri.ContainerState_CONTAINER_RUNNING && c.Id != static {
				running++
			}
		}
		return err == nil && running == 2
	})
	close(come)
	after := r.wait("web", "Ready", isReady)
	if b, a := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != 0 {
		t.Errorf("%s\ncalls:\n%s", describe(after), strings.Join(r.runtime.Calls(), "\n"))
	}
}

// The agent ends while a container is being started: the start is not cut off, and
// the next agent finds the container running.
func TestStopWaitsForStarts(t *testing.T) {
	r := newIdleRig(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	r.starting = func(ctx context.Context) error {
		begin()
		<-finish
		return ctx.Err()
	}
	r.start()
	r.pod("web", func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever })
	<-begun
	r.cancel()
	close(finish)
	r.stop()
	r.start()
	r.wait("web", "Ready", isReady)
	if n := strings.Count(strings.Join(r.runtime.Calls(), "\n"), "CreateContainer"); n != 1 {
		t.Errorf("%d containers were made", n)
	}
}

// The runtime ends while it starts a container, and says when it is back that it
// could not: the pod has not failed, another container is made.
func TestStartIsCutOff(t *testing.T) {
	r := newIdleRig(t)
	r.runtime.Fail("StartContainer", &runtime.Error{Doing: "start container", Said: "error reading from server: EOF", Kind: runtime.ErrUnavailable})
	r.start()
	r.pod("web", func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever })
	p := r.wait("web", "Ready", isReady)
	list, err := r.runtime.Containers(t.Context(), nil)
	if err != nil || len(list) != 1 || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("containers %v, %v: %s", list, err, describe(p))
	}
}
