package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/fake"
)

// events of a pod, "Reason: message", in the order of their names.
func (r *rig) events(name string) []string {
	var out []string
	for obj := range r.client.View().List(kinds.Registry().Must("", "events"), "default") {
		if e := obj.(*v1.Event); e.InvolvedObject.Name == name {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out
}

func (r *rig) event(name, want string) {
	r.t.Helper()
	r.eventually("event "+want, func() bool {
		return slices.ContainsFunc(r.events(name), func(e string) bool { return strings.HasPrefix(e, want) })
	})
}

func waiting(p *v1.Pod) string {
	if p == nil || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
		return ""
	}
	return p.Status.ContainerStatuses[0].State.Waiting.Reason
}

// The log of a pod that is gone is there, also of one that went while no agent
// ran; of several of a name the newest.
func TestLogsOfGonePods(t *testing.T) {
	r := newRig(t)
	r.stop()
	r.keep = time.Hour
	r.start()
	for range 2 {
		r.pod("web", nil)
		p := r.wait("web", "Ready", isReady)
		dir := filepath.Join(r.dir, "logs", "default_web_"+string(p.UID), "app")
		line := time.Now().Format(time.RFC3339Nano) + " stdout F i am " + string(p.UID) + "\n"
		if err := os.WriteFile(filepath.Join(dir, "0.log"), []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, got := r.fetch("/hansa/logs/default/web"); got != "i am "+string(p.UID)+"\n" {
			t.Errorf("log of the running pod: %q", got)
		}
		r.delete("web")
		r.wait("web", "deletion", gone)
		r.clean(p)
		if _, got := r.fetch("/hansa/logs/default/web"); got != "i am "+string(p.UID)+"\n" {
			t.Errorf("log of the pod that is gone: %q", got)
		}
	}
	r.pod("late", nil)
	p := r.wait("late", "Ready", isReady)
	r.stop()
	opts := metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	if err := r.client.Delete(t.Context(), api.Ref{Resource: r.pods, Namespace: "default", Name: "late"}, opts); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.clean(p)
	if code, list := r.fetch("/hansa/logs/default"); code != 200 || strings.Count(list, `"name":"web"`) != 2 || !strings.Contains(list, `"name":"late"`) {
		t.Errorf("list: %d %s", code, list)
	}
}

// Events: what a pod's life says of itself.
func TestEvents(t *testing.T) {
	r := newRig(t)
	r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	for _, want := range []string{
		`Pulled: Container image "` + image + `" already present on machine and can be accessed by the pod`,
		"Created: Container created", "Started: Container started",
	} {
		r.event("web", want)
	}
	r.delete("web")
	r.event("web", "Killing: Stopping container app")
}

// Init containers, in order, before the others; then success with Never.
func TestJobLike(t *testing.T) {
	r := newRig(t)
	r.runtime.AddImage("init:1", nil)
	r.runtime.SetProgram("init:1", fake.Exits(0))
	r.runtime.SetProgram(image, fake.Exits(0))
	p := r.pod("job", func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.InitContainers = []v1.Container{{Name: "one", Image: "init:1"}, {Name: "two", Image: "init:1"}}
	})
	p = r.wait(p.Name, "success", inPhase(v1.PodSucceeded))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason != "Completed" || s.StartedAt.IsZero() {
		t.Errorf("%s", describe(p))
	}
	var created []string
	for _, call := range r.runtime.Calls() {
		if name, ok := strings.CutPrefix(call, "CreateContainer "); ok {
			created = append(created, name)
		}
	}
	if want := []string{"one/0", "two/0", "app/0"}; !slices.Equal(created, want) {
		t.Errorf("created %v", created)
	}
	// Its volumes and cgroup go with its end, its log stays until it is deleted.
	r.eventually("its cgroup to go", func() bool {
		_, err := os.Stat("/sys/fs/cgroup/memory" + r.base + "/pods/besteffort/" + string(p.UID))
		return os.IsNotExist(err)
	})
	if code, _ := r.fetch("/containerLogs/default/job/app"); code != 200 {
		t.Errorf("log of an ended pod: %d", code)
	}
	r.delete("job")
	r.wait("job", "deletion", gone)
	r.clean(p)
}

// A pod that waits for a Secret and a ConfigMap starts as soon as they are
// there, and sees them change.
func TestWaitsForObjects(t *testing.T) {
	r := newRig(t)
	p := r.pod("web", func(p *v1.Pod) {
		p.Spec.Containers[0].Env = []v1.EnvVar{{Name: "PASS", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "s"}, Key: "pass"}}}}
		p.Spec.Volumes = []v1.Volume{{Name: "c", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "c"}}}}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "c", MountPath: "/etc/c"}}
	})
	r.event("web", `FailedMount: MountVolume.SetUp failed for volume "c" : configmap "c" not found`)
	create(r, "configmaps", &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Data: map[string]string{"k": "1"}})
	got := r.wait("web", "a configuration error", func(p *v1.Pod) bool { return waiting(p) == "CreateContainerConfigError" })
	if m := got.Status.ContainerStatuses[0].State.Waiting.Message; m != `secret "s" not found` {
		t.Errorf("message %q", m)
	}
	create(r, "secrets", &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Data: map[string][]byte{"pass": []byte("pw")}})
	r.wait("web", "Ready", isReady)
	env := r.runtime.ContainerConfig("app").GetEnvs()
	if len(env) == 0 || env[0].GetKey() != "PASS" || string(env[0].GetValue()) != "pw" {
		t.Errorf("environment %v", env)
	}
	file := filepath.Join(r.dir, "pods", string(p.UID), "volumes/kubernetes.io~configmap/c/k")
	cm, _ := r.client.Get(t.Context(), api.Ref{Resource: kinds.Registry().Must("", "configmaps"), Namespace: "default", Name: "c"})
	changed := cm.DeepCopyObject().(*v1.ConfigMap)
	changed.Data["k"] = "2"
	if _, err := r.client.Update(t.Context(), kinds.Registry().Must("", "configmaps"), changed, ""); err != nil {
		t.Fatal(err)
	}
	r.eventually("the change to be seen", func() bool {
		data, err := os.ReadFile(file)
		return err == nil && string(data) == "2"
	})
}

// Downward volumes follow labels, and show the pod's address.
func TestDownwardVolume(t *testing.T) {
	r := newRig(t)
	p := r.pod("web", func(p *v1.Pod) {
		p.Labels = map[string]string{"a": "1"}
		p.Spec.Volumes = []v1.Volume{{Name: "d", VolumeSource: v1.VolumeSource{DownwardAPI: &v1.DownwardAPIVolumeSource{Items: []v1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}}}}
	})
	r.wait("web", "Ready", isReady)
	file := filepath.Join(r.dir, "pods", string(p.UID), "volumes/kubernetes.io~downward-api/d/labels")
	r.relabel("web", "a", "2")
	r.eventually("the label to change", func() bool {
		data, err := os.ReadFile(file)
		return err == nil && string(data) == `a="2"`
	})
}

func (r *rig) relabel(name, key, value string) {
	r.t.Helper()
	for {
		p := r.get(name).DeepCopy()
		p.Labels[key] = value
		_, err := r.client.Update(r.t.Context(), r.pods, p, "")
		if err == nil {
			return
		}
	}
}

// Images: back-off, then success; credentials come from the pod's secrets.
func TestPull(t *testing.T) {
	r := newRig(t)
	r.runtime.Fail("PullImage", errors.New("registry says no"))
	create(r, "secrets", &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "login"}, Type: v1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(`{"auths":{"example.com":{"username":"bob","password":"x"}}}`)},
	})
	r.pod("web", func(p *v1.Pod) {
		p.Spec.Containers[0].Image = "example.com/new:1"
		p.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: "login"}}
	})
	r.wait("web", "ErrImagePull", func(p *v1.Pod) bool { return waiting(p) == "ErrImagePull" })
	r.wait("web", "ImagePullBackOff", func(p *v1.Pod) bool { return waiting(p) == "ImagePullBackOff" })
	for _, want := range []string{
		`Pulling: Pulling image "example.com/new:1"`, `Failed: Failed to pull image "example.com/new:1": registry says no`,
		"Failed: Error: ErrImagePull", `BackOff: Back-off pulling image "example.com/new:1"`,
	} {
		r.event("web", want)
	}
	if !slices.Contains(r.runtime.Calls(), "PullImage example.com/new:1 as bob") {
		t.Errorf("calls %v", r.runtime.Calls())
	}
}

// Hooks: a failing postStart kills, preStop comes before the stop signal.
func TestHooks(t *testing.T) {
	r := newRig(t)
	var fail atomic.Bool
	r.runtime.SetCommands(func(_ context.Context, _ string, command []string, _ runtime.Streams) int {
		if command[0] == "start" && fail.Load() {
			return 1
		}
		return 0
	})
	hook := func(word string) *v1.LifecycleHandler {
		return &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{word}}}
	}
	with := func(p *v1.Pod) {
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: hook("start"), PreStop: hook("stop")}
	}
	p := r.pod("web", with)
	r.wait("web", "Ready", isReady)
	r.delete("web")
	r.wait("web", "deletion", gone)
	r.clean(p)
	order := func(a, b string) bool {
		calls := r.runtime.Calls()
		i := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, a) })
		j := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, b) })
		return i >= 0 && i < j
	}
	if !order(`Exec app ["start"]`, `Exec app ["stop"]`) || !order(`Exec app ["stop"]`, "StopContainer app timeout=2") {
		t.Errorf("calls %v", r.runtime.Calls())
	}
	fail.Store(true)
	r.pod("bad", with)
	r.wait("bad", "the hook's error", func(p *v1.Pod) bool {
		return waiting(p) == "PostStartHookError" || p != nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].LastTerminationState.Terminated != nil
	})
	r.event("bad", "FailedPostStartHook: PostStartHook failed")
}

// The grace period: SIGKILL ends a container that does not stop.
func TestGrace(t *testing.T) {
	r := newRig(t)
	r.runtime.SetProgram(image, fake.Stubborn)
	r.pod("web", func(p *v1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1) })
	r.wait("web", "Ready", isReady)
	r.delete("web")
	r.wait("web", "deletion", gone)
	// However short its grace period is, it may end by itself.
	if !slices.Contains(r.runtime.Calls(), "StopContainer app timeout=2") {
		t.Errorf("calls %v", r.runtime.Calls())
	}
}

// Probes of real ports: ready when it answers, restarted when it fails to.
func TestProbes(t *testing.T) {
	r := newRig(t)
	var ill atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/live" && ill.Swap(false) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	probe := &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Host: host, Port: intstr.Parse(port)}}, PeriodSeconds: 1, FailureThreshold: 1}
	r.pod("web", func(p *v1.Pod) {
		p.Spec.Containers[0].StartupProbe = probe.DeepCopy()
		p.Spec.Containers[0].ReadinessProbe = probe.DeepCopy()
		p.Spec.Containers[0].LivenessProbe = probe.DeepCopy()
		p.Spec.Containers[0].LivenessProbe.HTTPGet.Path = "/live"
	})
	r.wait("web", "Ready", isReady)
	ill.Store(true)
	r.wait("web", "a restart", func(p *v1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount >= 1 })
	r.event("web", "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 503")
	r.event("web", "Killing: Container app failed liveness probe, will be restarted")
	r.wait("web", "Ready again", isReady)
}

// A container that crashes says why; its previous log can be read.
func TestCrash(t *testing.T) {
	r := newRig(t)
	var runs atomic.Int32
	r.runtime.SetProgram(image, func(p *fake.Process) int {
		n := runs.Add(1)
		p.Log("stdout", fmt.Sprint("run ", n))
		for _, m := range p.Config.Mounts {
			if m.ContainerPath == v1.TerminationMessagePathDefault {
				if err := os.WriteFile(m.HostPath, fmt.Appendf(nil, "end of %d", n), 0o666); err != nil {
					t.Error(err)
				}
			}
		}
		if n == 1 {
			return 7
		}
		return fake.UntilStopped(p)
	})
	r.pod("web", nil)
	p := r.wait("web", "a second run", func(p *v1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 7 || last.Reason != "Error" || last.Message != "end of 1" {
		t.Errorf("%s", describe(p))
	}
	r.eventually("both logs", func() bool {
		_, now := r.fetch("/containerLogs/default/web/app")
		_, before := r.fetch("/containerLogs/default/web/app?previous=true")
		return now == "run 2\n" && before == "run 1\n"
	})
}

// The node has the last word: a pod that does not fit is refused.
func TestRefused(t *testing.T) {
	r := newRig(t)
	p := r.pod("big", func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse("1000")}
	})
	p = r.wait(p.Name, "refusal", inPhase(v1.PodFailed))
	if p.Status.Reason != "OutOfcpu" || !strings.HasPrefix(p.Status.Message, "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: 0") {
		t.Errorf("%s", describe(p))
	}
	r.event("big", "OutOfcpu: Node didn't have enough resource: cpu")
	// A former agent's refusal stands.
	r.stop()
	r.start()
	r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	if now := r.get("big"); now.Status.Phase != v1.PodFailed || now.Status.Reason != "OutOfcpu" {
		t.Errorf("%s", describe(now))
	}
	r.delete("big")
	r.wait("big", "deletion", gone)
}

// A pod that is deleted while no agent runs leaves nothing behind.
func TestOrphan(t *testing.T) {
	r := newRig(t)
	p := r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	r.stop()
	err := r.client.Delete(t.Context(), api.Ref{Resource: r.pods, Namespace: "default", Name: "web"}, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	r.clean(p)
}

// A sandbox that dies is replaced, and its containers with it.
func TestSandboxDies(t *testing.T) {
	r := newRig(t)
	r.pod("web", nil)
	before := r.wait("web", "Ready", isReady)
	list, err := r.runtime.Sandboxes(t.Context(), nil)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	r.runtime.KillSandbox(list[0].Id)
	after := r.wait("web", "a new address", func(p *v1.Pod) bool { return isReady(p) && p.Status.PodIP != before.Status.PodIP })
	if after.Status.ContainerStatuses[0].RestartCount != 1 {
		t.Errorf("%s", describe(after))
	}
	r.event("web", "SandboxChanged: Pod sandbox changed, it will be killed and re-created.")
}

// Events that were lost are made up for by a look after the reconnection.
func TestReconnect(t *testing.T) {
	r := newRig(t)
	r.pod("web", nil)
	p := r.wait("web", "Ready", isReady)
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	r.runtime.Silence(true)
	r.runtime.Exit(id, 3, "")
	r.eventually("the container to end", func() bool {
		st, err := r.runtime.ContainerStatus(t.Context(), id)
		return err == nil && st.FinishedAt > 0
	})
	r.runtime.Silence(false)
	r.runtime.Reconnect()
	r.wait("web", "a restart", func(p *v1.Pod) bool { return isReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
}

// Many pods at once, and their end.
func TestManyPods(t *testing.T) {
	r := newRig(t)
	const n = 40
	for i := range n {
		r.pod(fmt.Sprint("p", i), nil)
	}
	for i := range n {
		r.wait(fmt.Sprint("p", i), "Ready", isReady)
	}
	for i := range n {
		r.delete(fmt.Sprint("p", i))
	}
	for i := range n {
		r.wait(fmt.Sprint("p", i), "deletion", gone)
	}
}

// Ephemeral containers join a running pod.
func TestEphemeral(t *testing.T) {
	r := newRig(t)
	r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	p := r.get("web").DeepCopy()
	p.Spec.EphemeralContainers = []v1.EphemeralContainer{{TargetContainerName: "app", EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "debug", Image: image, ImagePullPolicy: v1.PullIfNotPresent, TerminationMessagePolicy: v1.TerminationMessageReadFile}}}
	if _, err := r.client.Update(t.Context(), r.pods, p, "ephemeralcontainers"); err != nil {
		t.Fatal(err)
	}
	r.wait("web", "the debugger", func(p *v1.Pod) bool {
		return len(p.Status.EphemeralContainerStatuses) == 1 && p.Status.EphemeralContainerStatuses[0].State.Running != nil
	})
	target := r.runtime.ContainerConfig("debug").GetLinux().GetSecurityContext().GetNamespaceOptions().GetTargetId()
	if !strings.HasPrefix(target, "app") {
		t.Errorf("target %q", target)
	}
}

// A pod that keeps more in an emptyDir than it may is evicted.
func TestEvicted(t *testing.T) {
	r := newRig(t)
	limit := resource.MustParse("1Mi")
	p := r.pod("web", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	})
	r.wait("web", "Ready", isReady)
	r.agent.KeepHouse(t.Context())
	dir := filepath.Join(r.dir, "pods", string(p.UID), "volumes/kubernetes.io~empty-dir/v")
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	r.agent.KeepHouse(t.Context())
	p = r.wait("web", "eviction", inPhase(v1.PodFailed))
	if p.Status.Reason != "Evicted" || p.Status.Message != `Usage of EmptyDir volume "v" exceeds the limit "1Mi". ` {
		t.Errorf("%s", describe(p))
	}
	if !slices.ContainsFunc(p.Status.Conditions, func(c v1.PodCondition) bool { return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue }) {
		t.Errorf("%s", describe(p))
	}
	r.event("web", `Evicted: Usage of EmptyDir volume "v" exceeds the limit "1Mi". `)
}

// Pods that may keep only so much on disk are looked at by their folders and control
// groups; the runtime, which would ask a shim, is asked now and then only.
func TestLooksWithoutRuntime(t *testing.T) {
	r := newRig(t)
	r.pod("web", func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse("1Gi")}
	})
	r.wait("web", "Ready", isReady)
	const looks = 20
	for range looks {
		r.agent.KeepHouse(t.Context())
	}
	if n := r.measured.Load(); n == 0 || n > looks/2 {
		t.Errorf("%d looks asked the runtime %d times", looks, n)
	}
}

// Logs are kept at a bounded size.
func TestLogRotation(t *testing.T) {
	r := newRig(t)
	r.runtime.SetProgram(image, func(p *fake.Process) int {
		p.Log("stdout", strings.Repeat("x", 11<<20))
		return fake.UntilStopped(p)
	})
	p := r.pod("web", nil)
	r.wait("web", "Ready", isReady)
	dir := filepath.Join(r.dir, "logs", "default_web_"+string(p.UID), "app")
	r.eventually("the log to be rotated", func() bool {
		r.agent.KeepHouse(t.Context())
		files, err := filepath.Glob(filepath.Join(dir, "0.log.2*"))
		return err == nil && len(files) == 1 && slices.ContainsFunc(r.runtime.Calls(), func(c string) bool { return strings.HasPrefix(c, "ReopenLog") })
	})
}
