package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podsMemory is what the configured node has for pods, less than the machine.
const podsMemory = 400 << 20

// memoryTotal is what the machine has.
func memoryTotal(t testing.TB) int64 {
	t.Helper()
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); fields[0] == "MemTotal:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no MemTotal")
	return 0
}

func writeFile(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const kubeletHead = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

// A node with a KubeletConfiguration, additions to it and the kubelet's flags.
func TestConfiguredNode(t *testing.T) {
	if !alone(t) {
		return
	}
	file := writeFile(t, "/tmp/kubelet.yaml", kubeletHead+fmt.Sprintf(`
maxPods: 30
podPidsLimit: 64
seccompDefault: true
cpuCFSQuotaPeriod: 10ms
iptablesDropBit: 3
allowedUnsafeSysctls: ["kernel.msg*"]
evictionHard: {memory.available: 30Mi}
evictionPressureTransitionPeriod: 1s
systemReserved: {memory: "%d", pid: "1000", ephemeral-storage: 1Gi}
kubeReserved: {cpu: 100m}
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
containerLogMaxSize: 4Ki
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
podLogsDir: /tmp/podlogs
serializeImagePulls: false
maxParallelImagePulls: 2
registerWithTaints: [{key: example.com/new, effect: PreferNoSchedule}]
`, memoryTotal(t)-podsMemory))
	writeFile(t, "/tmp/kubelet.d/10.conf", kubeletHead+"maxPods: 31\n")
	c := newCluster("configured", "--kubelet-config", file, "--kubelet-config-dir", "/tmp/kubelet.d", "--max-pods=32", "--node-status-max-images=1",
		"--image-credential-provider-config", credentialProvider(t), "--image-credential-provider-bin-dir", "/tmp/providers", "--maximum-dead-containers-per-container=2", "--pod-manifest-path=/tmp/manifests", "--keep-logs="+keptFor.String(),
		"--disable-admission-plugins=PodResizeValidator")
	writeFile(t, filepath.Join(c.dir, "containerd.d/second.toml"), secondHandler)
	writeFile(t, "/tmp/manifests/early.yaml", strings.Replace(staticPod, "NAMESPACE", "default", 1))
	started(t, c)
	for _, r := range []row{
		{"configz", configz}, {"allocatable", allocatable}, {"CPU shares of the classes", classShares}, {"a field without effect is said", idleField},
		{"PID limit of a pod", podPids}, {"unsafe sysctls that are allowed", unsafeSysctls}, {"seccomp by default", seccompByDefault},
		{"local seccomp profile", localSeccomp},
		{"credential providers, with tokens of service accounts", providedCredentials}, {"parallel pulls, at most so many", boundedPulls},
		{"period of the CPU quota", quotaPeriod}, {"in-place resize: deferred, then granted", resizeGranted}, {"in-place resize: infeasible", resizeInfeasible},
		{"bound of the crash back-off, ended containers that are kept", crashBound}, {"pods' logs elsewhere", logsElsewhere},
		{"log rotation", logRotation}, {"logs of pods that are gone, for a time", goneLogsExpire},
		{"runtime class: handler, overhead, unknown", runtimeClass}, {"static pods with mirrors", staticPods},
		{"extended resources by node status", extendedResources}, {"huge pages that the node lacks", noHugePages},
		{"eviction for memory, condition and taint", memoryPressure},
	} {
		t.Run(r.noun, func(t *testing.T) { r.check(newSpace(t, c)) })
	}
}

// "/configz" is the configuration in use.
func configz(s *space) {
	out, err := s.cluster.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/configz")
	if err != nil {
		s.t.Fatal(err)
	}
	var got struct {
		Kubeletconfig map[string]any `json:"kubeletconfig"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		s.t.Fatal(err)
	}
	k := got.Kubeletconfig
	if k["maxPods"] != 32.0 || k["podPidsLimit"] != 64.0 || k["kind"] != "KubeletConfiguration" || k["nodeLeaseDurationSeconds"] != 40.0 {
		s.t.Errorf("configz: %s", out)
	}
}

func (s *space) node() *corev1.Node {
	s.t.Helper()
	n, err := s.client.CoreV1().Nodes().Get(s.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// "Reserve Compute Resources for System Daemons": what pods may ask for, and
// the group of all pods that holds them to it.
func allocatable(s *space) {
	n := s.node()
	st := &n.Status
	cpu := st.Capacity.Cpu().MilliValue() - st.Allocatable.Cpu().MilliValue()
	memory := st.Capacity.Memory().Value() - st.Allocatable.Memory().Value()
	if cpu != 100 || memory != memoryTotal(s.t)-podsMemory+30<<20 || st.Capacity.Pods().Value() != 32 {
		s.t.Errorf("capacity %v, allocatable %v", st.Capacity, st.Allocatable)
	}
	if len(st.Images) != 1 {
		s.t.Errorf("%d images in the status", len(st.Images))
	}
	if len(n.Spec.Taints) == 0 || n.Spec.Taints[0].Key != "example.com/new" {
		s.t.Errorf("taints %v", n.Spec.Taints)
	}
	if disk := st.Capacity.StorageEphemeral().Value() - st.Allocatable.StorageEphemeral().Value(); disk != 1<<30 {
		s.t.Errorf("%d of the disk are reserved", disk)
	}
	all := s.readGroup(filepath.Join("hansa", s.id(), "pods"))
	if want := shares(int(st.Allocatable.Cpu().MilliValue() * 1024 / 1000)); all.memory != fmt.Sprint(podsMemory) || all.shares != want {
		s.t.Errorf("all pods may use %+v, want %s", all, want)
	}
	if got, most := readWord(s.t, s.pidsMax(filepath.Join("hansa", s.id(), "pods"))), mostProcesses(s.t); got != fmt.Sprint(most-1000) {
		s.t.Errorf("all pods may have %s processes of %d", got, most)
	}
}

// readWord is what a file of the kernel's says.
func readWord(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// pidsMax is the file with the limit of processes of a control group.
func (s *space) pidsMax(group string) string {
	if unified() {
		return filepath.Join("/sys/fs/cgroup", group, "pids.max")
	}
	return filepath.Join("/sys/fs/cgroup/pids", group, "pids.max")
}

// "Control groups of quality-of-service classes": burstable pods have together
// what they request, best-effort ones the least there is.
func classShares(s *space) {
	for name, cpu := range map[string]string{"one": "300m", "two": "200m"} {
		s.create(name, using("{requests: {cpu: "+cpu+"}}"))
	}
	s.ready("one")
	s.ready("two")
	if got := s.readGroup(filepath.Join("hansa", s.id(), "pods", "besteffort")).shares; got != shares(2) {
		s.t.Errorf("best effort: %s", got)
	}
	burstable := func(want int) {
		s.t.Helper()
		await(s.t, fmt.Sprintf("%d shares of the burstable class", want), func() error {
			if got := s.readGroup(filepath.Join("hansa", s.id(), "pods", "burstable")).shares; got != shares(want) {
				return fmt.Errorf("it has %s", got)
			}
			return nil
		})
	}
	burstable(512)
	s.kubectl("delete", "pod", "two")
	burstable(307)
}

func idleField(s *space) {
	b, err := os.ReadFile(s.logFile())
	if err != nil || !strings.Contains(string(b), "iptablesDropBit: 3 has no effect: services are nftables maps") {
		s.t.Errorf("log: %s %v", b, err)
	}
}

func podPids(s *space) {
	s.create("p", sleeper)
	p := s.ready("p")
	if got := readWord(s.t, s.pidsMax(s.podGroup(p, "besteffort"))); got != "64" {
		s.t.Errorf("limit %s", got)
	}
	out, code, err := s.execIn("p", "main", "sh", "-c", "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done")
	if err != nil || code == 0 || !strings.Contains(out, "can't fork") {
		s.t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}

func unsafeSysctls(s *space) {
	if got := s.shellOutput("sysctls: [{name: kernel.msgmax, value: '65000'}]", "", "cat /proc/sys/kernel/msgmax"); got != "65000\n" {
		s.t.Errorf("kernel.msgmax: %s", got)
	}
	s.create("forbidden", strings.Replace(sleeper, "containers:", `securityContext: {sysctls: [{name: net.core.somaxconn, value: "100"}]}
containers:`, 1))
	if p := s.finished("forbidden"); p.Status.Reason != "SysctlForbidden" || !strings.Contains(p.Status.Message, `forbidden sysctl: "net.core.somaxconn" not allowlisted`) {
		s.t.Errorf("%s: %s", p.Status.Reason, p.Status.Message)
	}
}

func seccompByDefault(s *space) {
	if got := s.shellOutput("", "", "grep Seccomp: /proc/self/status"); strings.Fields(got)[1] != "2" {
		s.t.Errorf("seccomp: %s", got)
	}
}

func localSeccomp(s *space) {
	writeFile(s.t, filepath.Join(s.dir, "seccomp/profiles/no-mkdir.json"),
		`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`)
	got := s.shellOutput("seccompProfile: {type: Localhost, localhostProfile: profiles/no-mkdir.json}", "", "mkdir /tmp/x 2>&1; touch /tmp/y && echo touched")
	if !strings.Contains(got, "Operation not permitted") || !strings.Contains(got, "touched") {
		s.t.Errorf("under the profile: %s", got)
	}
}

func quotaPeriod(s *space) {
	s.create("p", using("{limits: {cpu: 500m, memory: 20Mi}}"))
	p := s.ready("p")
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	for _, group := range []string{s.podGroup(p, "guaranteed"), filepath.Join(s.podGroup(p, "guaranteed"), id)} {
		if got := s.readGroup(group).quota; got != "5000 10000" {
			s.t.Errorf("quota of %s: %s", group, got)
		}
	}
}

func crashBound(s *space) {
	s.create("p", strings.Replace(sleeper, `[sleep, "1000"]`, `[sh, -c, exit 3]`, 1))
	p := s.until("p", "it was restarted four times", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount >= 4
	})
	if d := p.Status.ContainerStatuses[0].LastTerminationState.Terminated.FinishedAt.Sub(p.Status.StartTime.Time); d.Seconds() > 60 {
		s.t.Errorf("four restarts took %s", d) // by the usual delays they take 70 s
	}
	await(s.t, "the newest run, and two beside it as --maximum-dead-containers-per-container says", func() error {
		p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), "p", metav1.GetOptions{})
		if err != nil {
			return err
		}
		found, err := filepath.Glob("/tmp/podlogs/" + s.name + "_p_*/main/*.log")
		slices.Sort(found)
		n := int(p.Status.ContainerStatuses[0].RestartCount)
		if want := []int{n - 2, n - 1, n}; err != nil || len(found) != len(want) || filepath.Base(found[0]) != fmt.Sprintf("%d.log", want[0]) {
			return fmt.Errorf("logs %v of runs %v: %v", found, want, err)
		}
		return nil
	})
}

func logsElsewhere(s *space) {
	s.output("p", "restartPolicy: Never\ncontainers:\n- {name: main, image: hansa.local/busybox:1, command: [echo, there]}\n")
	found, err := filepath.Glob("/tmp/podlogs/" + s.name + "_p_*/main/0.log")
	if err != nil || len(found) != 1 {
		s.t.Errorf("logs: %v %v", found, err)
	}
}

// "Node-pressure Eviction": of pods that use more than they requested the one of the
// lowest priority goes, though another uses more; what keeps to its request stays,
// however low. The node says so while it is short.
func memoryPressure(s *space) {
	s.apply(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: valued}
value: 1000
`)
	s.create("modest", using("{requests: {memory: 20Mi}}"))
	s.ready("modest")
	hog := func(name, more string, megabytes int) {
		s.create(name, fmt.Sprintf(`
volumes: [{name: m, emptyDir: {medium: Memory}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "dd if=/dev/zero of=/m/f bs=1M count=%d; echo full; exec sleep 1000"], volumeMounts: [{name: m, mountPath: /m}]}
%s`, megabytes, more))
	}
	hog("valued", "priorityClassName: valued", 210)
	s.ready("valued")
	s.logged("valued", "full")
	hog("hog", "", 170)
	s.pressed("hog", corev1.NodeMemoryPressure)
	if p := s.evicted("hog", "The node was low on resource: memory. Threshold quantity: 30Mi, available: "); !strings.Contains(p.Status.Message, "Container main was using ") {
		s.t.Error(p.Status.Message)
	}
	s.relieved(corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure)
	s.undisturbed("modest")
	s.undisturbed("valued")
	if out, err := s.cluster.kubectl("get", "events", "-A", "--field-selector=reason=EvictionThresholdMet"); err != nil || !strings.Contains(out, "Attempting to reclaim memory") {
		s.t.Errorf("events: %s %v", out, err)
	}
}

// using is a sleeper with resources.
func using(resources string) string {
	return strings.Replace(sleeper, `"1000"]`, `"1000"], resources: `+resources, 1)
}

// secondHandler is a second way to run containers, by the same runc.
const secondHandler = `version = 4
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.second]
  runtime_type = "io.containerd.runc.v2"
`

// "Runtime Class": the handler of the class runs the pod, its overhead counts
// for the scheduler and in the pod's group, and an unknown class is refused.
func runtimeClass(s *space) {
	if !slices.ContainsFunc(s.node().Status.RuntimeHandlers, func(h corev1.NodeRuntimeHandler) bool { return h.Name == "second" }) {
		s.t.Errorf("handlers of the node: %+v", s.node().Status.RuntimeHandlers)
	}
	s.apply(`
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: second}
handler: second
overhead: {podFixed: {cpu: 250m, memory: 10Mi}}
scheduling: {nodeSelector: {kubernetes.io/os: linux}, tolerations: [{key: example.com/second, operator: Exists}]}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: missing}
handler: missing
`)
	s.create("p", strings.Replace(using("{limits: {cpu: 250m, memory: 20Mi}}"), "containers:", "runtimeClassName: second\ncontainers:", 1))
	p := s.ready("p")
	if p.Spec.Overhead.Memory().String() != "10Mi" || p.Spec.NodeSelector["kubernetes.io/os"] != "linux" {
		s.t.Errorf("pod of the class: %+v", p.Spec)
	}
	if got, want := s.readGroup(s.podGroup(p, "guaranteed")), (groupValues{shares(512), "5000 10000", fmt.Sprint(30 << 20)}); got != want {
		s.t.Errorf("group with overhead: %+v, want %+v", got, want)
	}
	if out := s.kubectl("describe", "node", nodeName); !strings.Contains(out, "500m") {
		s.t.Errorf("the node's requests lack the overhead:\n%s", out)
	}
	// It fits only without its overhead.
	room := fmt.Sprintf("{requests: {cpu: %dm}}", s.node().Status.Allocatable.Cpu().MilliValue()-200)
	s.create("large", strings.Replace(using(room), "containers:", "runtimeClassName: second\ncontainers:", 1))
	s.until("large", "it is unschedulable", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) == corev1.ConditionFalse })
	s.create("nowhere", strings.Replace(sleeper, "containers:", "runtimeClassName: missing\ncontainers:", 1))
	s.event("nowhere", `Failed to create pod sandbox: `)
	bad := podOf(s.t, "bad", "spec: {runtimeClassName: none, containers: [{name: main, image: x}]}")
	if _, err := s.client.CoreV1().Pods(s.name).Create(s.t.Context(), bad, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), `RuntimeClass "none" not found`) {
		s.t.Errorf("unknown class: %v", err)
	}
}

const staticPod = `apiVersion: v1
kind: Pod
metadata: {name: early, namespace: NAMESPACE}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "hansa.local/busybox:1", imagePullPolicy: IfNotPresent, command: [sleep, "1000"]}]
`

// "Create static Pods": from a file, shown by a mirror that comes back, gone with
// the file.
func staticPods(s *space) {
	early := &space{cluster: s.cluster, t: s.t, name: "default"}
	early.ready("early-" + nodeName)
	file := writeFile(s.t, "/tmp/manifests/own.yaml", strings.NewReplacer("NAMESPACE", s.name, "early", "own").Replace(staticPod))
	name := "own-" + nodeName
	await(s.t, "the mirror", func() error {
		_, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		return err
	})
	p := s.ready(name)
	if o := metav1.GetControllerOf(p); o == nil || o.Kind != "Node" || p.Annotations[corev1.MirrorPodAnnotationKey] == "" || s.exec(name, "hostname") != name+"\n" {
		s.t.Errorf("mirror: %+v", p.ObjectMeta)
	}
	s.kubectl("delete", "pod", name, "--wait=false")
	await(s.t, "another mirror", func() error {
		now, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil && (now.UID == p.UID || condition(now, corev1.PodReady) != corev1.ConditionTrue) {
			err = errors.New("it is the old one, or not ready")
		}
		return err
	})
	if now := s.ready(name); now.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID {
		s.t.Error("the container was made anew")
	}
	// What the file says anew is another pod.
	writeFile(s.t, file, strings.NewReplacer("NAMESPACE", s.name, "early", "own", `"1000"`, `"2000"`).Replace(staticPod))
	await(s.t, "the mirror of the changed file", func() error {
		now, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil && (now.Spec.Containers[0].Command[1] != "2000" || condition(now, corev1.PodReady) != corev1.ConditionTrue) {
			err = errors.New("it is the old one, or not ready")
		}
		return err
	})
	if got := s.exec(name, "ps"); !strings.Contains(got, "sleep 2000") || strings.Contains(got, "sleep 1000") {
		s.t.Errorf("of the changed file there runs:\n%s", got)
	}
	if err := os.Remove(file); err != nil {
		s.t.Fatal(err)
	}
	s.gone(name)
	writeFile(s.t, "/tmp/manifests/bad.yaml", "kind: Pod\n")
	await(s.t, "an event about the bad file", func() error {
		out, err := s.cluster.kubectl("get", "events", "-A", "--field-selector=reason=InvalidStaticPod")
		if err == nil && !strings.Contains(out, "bad.yaml") {
			err = errors.New(out)
		}
		return err
	})
}

// "Advertise Extended Resources for a Node": what a patch of its status says is
// kept, given to pods and counted.
func extendedResources(s *space) {
	s.kubectl("patch", "node", nodeName, "--subresource=status", "--type=merge", "-p", `{"status":{"capacity":{"example.com/dongle":"2"},"allocatable":{"example.com/dongle":"2"}}}`)
	with := func(n int) string { return using(fmt.Sprintf("{limits: {example.com/dongle: %d}}", n)) }
	s.create("two", with(2))
	s.ready("two")
	s.create("one", with(1))
	p := s.until("one", "it waits", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) == corev1.ConditionFalse })
	if !strings.Contains(p.Status.Conditions[0].Message, "Insufficient example.com/dongle") {
		s.t.Errorf("%+v", p.Status.Conditions)
	}
	s.kubectl("delete", "pod", "two")
	s.ready("one")
	if n := s.node(); n.Status.Capacity.Name("example.com/dongle", "").String() != "2" {
		s.t.Errorf("capacity %v", n.Status.Capacity)
	}
}

// "Manage HugePages": the node counts what it has reserved, and pods wait for
// more.
func noHugePages(s *space) {
	q := s.node().Status.Capacity["hugepages-2Mi"]
	more := q.Value()/(2<<20) + 1
	s.create("p", using(fmt.Sprintf("{limits: {hugepages-2Mi: %dMi, memory: 10Mi, cpu: 10m}}", 2*more)))
	p := s.until("p", "it waits", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) == corev1.ConditionFalse })
	if !strings.Contains(p.Status.Conditions[0].Message, "Insufficient hugepages-2Mi") {
		s.t.Errorf("%+v", p.Status.Conditions)
	}
}
