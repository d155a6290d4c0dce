package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"
)

// Of the node by flags.
const (
	flaggedResolver = "/tmp/pods-resolv.conf"
	lateManifests   = "/tmp/late/manifests"
	idleTime        = 4 * time.Second // less than between two pings of clients, which are something, too
)

// A node with the settings that TestConfiguredNode has as they are by default, given by
// the kubelet's flags where there is one.
func TestNodeByFlags(t *testing.T) {
	if !alone(t) {
		return
	}
	m := serveManifests(t)
	system, kube := reservedGroup(t, "system"), reservedGroup(t, "kube")
	file := writeFile(t, "/tmp/kubelet.yaml", kubeletHead+`
nodeLeaseDurationSeconds: 20
evictionHard: {memory.available: 50Mi}
systemReserved: {cpu: 200m, memory: 300Mi, pid: "500"}
kubeReserved: {cpu: 100m, memory: 64Mi}
`)
	writeFile(t, flaggedResolver, "nameserver 192.0.2.53\nsearch first.example\noptions rotate\n")
	c := started(t, newCluster("flagged", "--kubelet-config", file,
		"--manifest-url", m.server.URL, "--manifest-url-header=X-Node:"+nodeName+",X-Node:again", "--http-check-frequency=1s",
		"--pod-manifest-path="+lateManifests, "--file-check-frequency=1s", "--cpu-cfs-quota=false",
		"--cluster-dns=192.0.2.10,192.0.2.11", "--resolv-conf="+flaggedResolver, "--node-status-update-frequency=2s",
		"--streaming-connection-idle-timeout="+idleTime.String(), "--local-storage-capacity-isolation=false",
		"--system-reserved-cgroup=/"+system, "--kube-reserved-cgroup=/"+kube, "--enforce-node-allocatable=system-reserved,kube-reserved-compressible"))
	for _, r := range []row{
		{"static pods of a URL, with its headers", m.pods}, {"static pods of a directory that comes later", lateStaticPods},
		{"limits of cpu without a quota", noQuota}, {"resolvers of pods", resolvers}, {"lease of another duration", otherLease},
		{"reserved groups are limited, pods are not", func(s *space) { reservedGroups(s, system, kube) }},
		{"streams that carry nothing are closed", idleStreams}, {"no local storage", noLocalStorage},
	} {
		t.Run(r.noun, func(t *testing.T) { r.check(newSpace(t, c)) })
	}
}

// manifests is a server of static pods, for who says who it is.
type manifests struct {
	server *httptest.Server
	list   atomic.Pointer[string]
}

func serveManifests(t testing.TB) *manifests {
	m := &manifests{}
	m.say("")
	m.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Equal(r.Header.Values("X-Node"), []string{nodeName, "again"}) {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		fmt.Fprint(w, *m.list.Load())
	}))
	t.Cleanup(m.server.Close)
	return m
}

// say serves a list of pods.
func (m *manifests) say(pods ...string) {
	text := "apiVersion: v1\nkind: PodList\nitems:\n"
	for _, p := range pods {
		if p != "" {
			text += "- " + strings.ReplaceAll(strings.TrimSpace(p), "\n", "\n  ") + "\n"
		}
	}
	m.list.Store(&text)
}

// "Create static Pods", "Web-hosted static pod manifest".
func (m *manifests) pods(s *space) {
	first := strings.Replace(staticPod, "NAMESPACE", s.name, 1)
	second := strings.NewReplacer("early", "second", `"1000"`, `"2000"`).Replace(first)
	m.say(first, second)
	await(s.t, "the mirrors", func() error {
		list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{})
		if err == nil && len(list.Items) != 2 {
			err = fmt.Errorf("there are %d", len(list.Items))
		}
		return err
	})
	p := s.ready("early-" + nodeName)
	s.ready("second-" + nodeName)
	if p.Annotations["kubernetes.io/config.source"] != "http" {
		s.t.Errorf("annotations %v", p.Annotations)
	}
	m.say(second)
	s.gone("early-" + nodeName)
	s.undisturbed("second-" + nodeName)
	m.say()
	s.gone("second-" + nodeName)
}

// A directory that is not there when the node starts, nor its parent, is found.
func lateStaticPods(s *space) {
	name := "early-" + nodeName
	for range 2 {
		writeFile(s.t, filepath.Join(lateManifests, "p.yaml"), strings.Replace(staticPod, "NAMESPACE", s.name, 1))
		await(s.t, "the mirror", func() error {
			_, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
			return err
		})
		s.ready(name)
		if err := os.RemoveAll(lateManifests); err != nil {
			s.t.Fatal(err)
		}
		s.gone(name)
	}
}

// cpuCFSQuota: false.
func noQuota(s *space) {
	s.create("p", using("{limits: {cpu: 500m, memory: 20Mi}}"))
	p := s.ready("p")
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	none := "-1 100000"
	if unified() {
		none = "max 100000"
	}
	for _, group := range []string{s.podGroup(p, "guaranteed"), filepath.Join(s.podGroup(p, "guaranteed"), id)} {
		if got, want := s.readGroup(group), (groupValues{shares(512), none, fmt.Sprint(20 << 20)}); got != want {
			s.t.Errorf("%s: %+v, want %+v", group, got, want)
		}
	}
}

// clusterDNS and resolvConf; the latter is read when a pod begins.
func resolvers(s *space) {
	lines := func(name, policy string) []string {
		return strings.Split(strings.TrimSpace(s.output(name, "restartPolicy: Never\ndnsPolicy: "+policy+"\ncontainers: [{name: main, image: hansa.local/busybox:1, command: [cat, /etc/resolv.conf]}]")), "\n")
	}
	domains := s.name + ".svc.cluster.local svc.cluster.local cluster.local"
	for _, c := range []struct {
		name, policy string
		want         []string
	}{
		{"cluster", "ClusterFirst", []string{"search " + domains + " first.example", "nameserver 192.0.2.10", "nameserver 192.0.2.11", "options ndots:5"}},
		{"host", "Default", []string{"search first.example", "nameserver 192.0.2.53", "options rotate"}},
	} {
		if got := lines(c.name, c.policy); !slices.Equal(got, c.want) {
			s.t.Errorf("%s: %q, want %q", c.policy, got, c.want)
		}
	}
	writeFile(s.t, flaggedResolver, "nameserver 192.0.2.54\n")
	if got := lines("later", "Default"); !slices.Equal(got, []string{"nameserver 192.0.2.54"}) {
		s.t.Errorf("after the file was changed: %q", got)
	}
}

func otherLease(s *space) {
	leases := s.client.CoordinationV1().Leases("kube-node-lease")
	first, err := leases.Get(s.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil || *first.Spec.LeaseDurationSeconds != 20 {
		s.t.Fatalf("lease %+v %v", first, err)
	}
	await(s.t, "it is renewed", func() error {
		next, err := leases.Get(s.t.Context(), nodeName, metav1.GetOptions{})
		if err == nil && !next.Spec.RenewTime.After(first.Spec.RenewTime.Time) {
			err = fmt.Errorf("it says %s", next.Spec.RenewTime)
		}
		return err
	})
}

// reservedGroup makes a control group as that of other services of the machine.
func reservedGroup(t testing.TB, name string) string {
	t.Helper()
	group := "hansa-test-" + filepath.Base(os.Getenv(machineVariable)) + "-" + name // which others do not count
	roots := []string{"/sys/fs/cgroup"}
	if !unified() {
		dirs, err := os.ReadDir(roots[0])
		if err != nil {
			t.Fatal(err)
		}
		roots = nil
		for _, d := range dirs {
			if d.IsDir() {
				roots = append(roots, filepath.Join("/sys/fs/cgroup", d.Name()))
			}
		}
	}
	for _, root := range roots {
		dir := filepath.Join(root, group)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
	}
	return group
}

// "Reserve Compute Resources for System Daemons": the groups are held to what is
// reserved for them, of kubeReserved to its cpu alone; pods are held to nothing.
func reservedGroups(s *space, system, kube string) {
	if got, pids := s.readGroup(system), readWord(s.t, s.pidsMax(system)); got.memory != fmt.Sprint(300<<20) || got.shares != shares(204) || pids != "500" {
		s.t.Errorf("system: %+v, %s processes", got, pids)
	}
	if got, pids := s.readGroup(kube), readWord(s.t, s.pidsMax(kube)); got.memory == fmt.Sprint(64<<20) || got.shares != shares(102) || pids != "max" {
		s.t.Errorf("kube: %+v, %s processes", got, pids)
	}
	if got := s.readGroup(filepath.Join("hansa", s.id(), "pods")); got.memory != fmt.Sprint(memoryTotal(s.t)) {
		s.t.Errorf("all pods: %+v", got)
	}
	st := s.node().Status
	huge := int64(0)
	for name, q := range st.Capacity {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			huge += q.Value()
		}
	}
	if cpu, memory := st.Capacity.Cpu().MilliValue()-st.Allocatable.Cpu().MilliValue(), st.Capacity.Memory().Value()-st.Allocatable.Memory().Value(); cpu != 300 || memory != (300+64+50)<<20+huge {
		s.t.Errorf("capacity %v, allocatable %v", st.Capacity, st.Allocatable)
	}
	for _, group := range []string{system, kube} {
		await(s.t, "an event about "+group, func() error {
			out, err := s.cluster.kubectl("get", "events", "-A", "--field-selector=reason=NodeAllocatableEnforced")
			if err == nil && !strings.Contains(out, "Updated limits on reserved cgroup /"+group) {
				err = errors.New(out)
			}
			return err
		})
	}
}

// streamingConnectionIdleTimeout: what carries nothing for so long is closed, what
// carries something goes on.
func idleStreams(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	run := func(kind, script string) (string, time.Duration, error) {
		r := s.client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").Name("p").SubResource("exec").Param("stdout", "true")
		for _, w := range []string{"sh", "-c", script} {
			r.Param("command", w)
		}
		e, err := remotecommand.NewWebSocketExecutor(s.config, http.MethodGet, r.URL().String())
		if kind == "SPDY" {
			e, err = remotecommand.NewSPDYExecutor(s.config, http.MethodPost, r.URL())
		}
		if err != nil {
			s.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), patience, errors.New("nobody closed it"))
		defer cancel()
		var out bytes.Buffer
		began := time.Now()
		err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out})
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return out.String(), time.Since(began), err
	}
	for _, kind := range []string{"WebSocket", "SPDY"} {
		// It says something now and then for twice the time, and then nothing.
		talk := fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo x; sleep 0.2; i=$((i+1)); done; exec sleep 1000", int(2*idleTime.Seconds())*5)
		out, took, err := run(kind, talk)
		if err != nil && err.Error() == "nobody closed it" || took < 2*idleTime || strings.Count(out, "x") != int(2*idleTime.Seconds())*5 {
			s.t.Errorf("%s: ended after %s with %v; %q", kind, took, err, out)
		}
	}
}

// localStorageCapacityIsolation: false.
func noLocalStorage(s *space) {
	if _, ok := s.node().Status.Capacity[corev1.ResourceEphemeralStorage]; ok {
		s.t.Errorf("capacity %v", s.node().Status.Capacity)
	}
	s.create("p", using("{requests: {ephemeral-storage: 1Mi}}"))
	p := s.until("p", "it waits", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) == corev1.ConditionFalse })
	if !strings.Contains(p.Status.Conditions[0].Message, "Insufficient ephemeral-storage") {
		s.t.Errorf("%+v", p.Status.Conditions)
	}
}
