package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	clocktesting "k8s.io/utils/clock/testing"
	utilexec "k8s.io/utils/exec"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/logs"
	agentnode "hansa.dev/hansa/agent/node"
	"hansa.dev/hansa/agent/server"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/internal/zpages"
	"hansa.dev/hansa/runtime"
	"hansa.dev/hansa/runtime/fake"
)

var now = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// node is one pod with one container.
type node struct {
	run     server.Run
	sandbox string
	err     error
}

func (n *node) Pods() []*v1.Pod {
	return []*v1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}}
}

func (n *node) Run(_ context.Context, namespace, name string, _ types.UID, container string, _ bool) (server.Run, error) {
	if namespace+"/"+name != "ns/p" {
		return server.Run{}, &server.Error{Code: 404, Message: fmt.Sprintf("pod %q not found", name)}
	}
	if container != "app" {
		return server.Run{}, &server.Error{Code: 400, Message: fmt.Sprintf("container %q in pod %q is not available", container, name)}
	}
	return n.run, nil
}

func (n *node) Sandbox(context.Context, string, string, types.UID) (string, error) {
	return n.sandbox, nil
}

func (n *node) Gone(namespace string) []logs.Gone {
	return []logs.Gone{{Namespace: "ns", Name: "gone", UID: "u", Deleted: now, Bytes: 5, Containers: []string{"app"}}}
}

func (n *node) GoneFiles(namespace, name string, uid types.UID, container string, previous bool) ([]string, error) {
	if namespace+"/"+name != "ns/gone" || uid != "" && uid != "u" {
		return nil, &server.Error{Code: 404, Message: "no log of it is kept"}
	}
	return []string{n.run.LogFile}, nil
}

func (n *node) Healthy(context.Context) error { return n.err }

func (n *node) Summary(_ context.Context, cpuAndMemory bool) (*statsv1alpha1.Summary, error) {
	at := metav1.NewTime(now)
	c := statsv1alpha1.ContainerStats{Name: "app", StartTime: at,
		CPU:    &statsv1alpha1.CPUStats{Time: at, UsageCoreNanoSeconds: ptr.To[uint64](1_500_000_000)},
		Memory: &statsv1alpha1.MemoryStats{Time: at, WorkingSetBytes: ptr.To[uint64](4096)}}
	if n.err != nil {
		return nil, n.err
	}
	sum := &statsv1alpha1.Summary{
		Node: statsv1alpha1.NodeStats{NodeName: "n1", CPU: c.CPU, Memory: c.Memory, Swap: &statsv1alpha1.SwapStats{Time: at, SwapUsageBytes: ptr.To[uint64](9)}},
		Pods: []statsv1alpha1.PodStats{{PodRef: statsv1alpha1.PodReference{Namespace: "ns", Name: "p"}, Containers: []statsv1alpha1.ContainerStats{c}, CPU: c.CPU}},
	}
	if !cpuAndMemory {
		sum.Node.Rlimit = &statsv1alpha1.RlimitStats{MaxPID: ptr.To[int64](77)}
	}
	return sum, nil
}

func (n *node) Measure(context.Context) (server.Measured, error) {
	if n.err != nil {
		return server.Measured{}, n.err
	}
	stat := cgroup.Stat{
		CPU:    cgroup.CPUStat{Nanos: 1_500_000_000, Periods: 7, Throttled: 3, ThrottledNanos: 2_000_000_000, Quota: 50000, Period: 100000, Shares: 512},
		Memory: cgroup.MemoryStat{Usage: 5000, WorkingSet: 4096, RSS: 1000, Cache: 2000, Limit: 8192, Failures: 4, OOMKills: 1, Faults: 11},
		Pressure: cgroup.Pressures{
			Counted: true, CPU: cgroup.Pressure{Some: cgroup.Stall{Micros: 1_500_000}}, IO: cgroup.Pressure{Full: cgroup.Stall{Micros: 250_000}, Some: cgroup.Stall{Micros: 500_000}},
		},
	}
	return server.Measured{
		Info: v1.NodeSystemInfo{BootID: "b", MachineID: "m", SystemUUID: "s"}, Cores: agentnode.Cores{CPUs: 2, Cores: 1, Sockets: 1}, MemoryTotal: 1 << 30,
		Groups: []server.Group{
			{ID: "/", Stat: cgroup.Stat{CPU: cgroup.CPUStat{Nanos: 9e9}}},
			{ID: "/pods/u", Namespace: "ns", Pod: "p", Stat: stat, Interfaces: []agentnode.Interface{{Name: "eth0", RxBytes: 10, TxBytes: 20, RxDropped: 1}}},
			{
				ID: "/pods/u/c", Name: "c", Image: "img", Namespace: "ns", Pod: "p", Container: `a"p\\p`, Started: now, Stat: stat,
				Fs: &statsv1alpha1.FsStats{UsedBytes: ptr.To[uint64](30), CapacityBytes: ptr.To[uint64](40)},
			},
		},
	}, nil
}

type rig struct {
	*node
	t       *testing.T
	runtime *fake.Runtime
	server  *httptest.Server
}

// pages are what the agent tells of itself.
func pages() *zpages.Component {
	return &zpages.Component{Name: "kubelet", Clock: clocktesting.NewFakePassiveClock(now), Started: now, Version: "1.37.2", Emulates: "1.37", Flags: map[string]string{"max-pods": "7"}}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, runtime: fake.New(clocktesting.NewFakeClock(now))}
	r.runtime.AddImage("img", nil)
	sandbox := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p"}}
	sb, err := r.runtime.RunSandbox(t.Context(), sandbox, "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.runtime.CreateContainer(t.Context(), sb, &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "app"}, Image: &cri.ImageSpec{Image: "img"}}, sandbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.runtime.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.runtime.StopSandbox(context.Background(), sb) }) // ends the program's goroutine
	ended := make(chan struct{})
	r.node = &node{sandbox: sb, run: server.Run{ID: id, Running: true, Ended: ended, LogFile: filepath.Join(t.TempDir(), "0.log")}}
	r.server = httptest.NewServer(server.New(server.Config{
		Node: r.node, Runtime: r.runtime, Clock: clocktesting.NewFakeClock(now),
		Pages:  pages(),
		Probes: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "probes") }),
		Authorize: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Who") == "stranger" {
					http.Error(w, "no", http.StatusForbidden)
					return
				}
				h.ServeHTTP(w, r)
			})
		},
		Log: slog.Default(),
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *rig) get(path string, header ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest("GET", r.server.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// kubectl logs: the query has the fields of PodLogOptions.
func TestLogs(t *testing.T) {
	r := newRig(t)
	if code, body := r.get("/containerLogs/ns/p/app"); code != 200 || body != "" {
		t.Errorf("before the first line: %d %q", code, body)
	}
	var text string
	for i := range 4 {
		stream := []string{"stdout", "stderr"}[i%2]
		text += fmt.Sprintf("%s %s F line %d\n", now.Add(time.Duration(i-4)*time.Minute).Format(time.RFC3339Nano), stream, i)
	}
	if err := os.WriteFile(r.run.LogFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r.run.Running = false
	for query, want := range map[string]string{
		"":                                   "line 0\nline 1\nline 2\nline 3\n",
		"?tailLines=1":                       "line 3\n",
		"?tailLines=0":                       "",
		"?sinceSeconds=130":                  "line 2\nline 3\n",
		"?sinceTime=2026-01-02T15:03:05Z":    "line 3\n",
		"?limitBytes=9":                      "line 0\nli",
		"?timestamps=true&tailLines=1":       "2026-01-02T15:03:05Z line 3\n",
		"?stream=Stderr":                     "line 1\nline 3\n",
		"?follow=true&tailLines=1":           "line 3\n",
		"?previous=true&tailLines=1&stream=": "line 3\n",
	} {
		if code, body := r.get("/containerLogs/ns/p/app" + query); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", query, code, body, want)
		}
	}
	for query, want := range map[string]int{"?tailLines=-1": 422, "?limitBytes=0": 422, "?sinceTime=yesterday": 422, "?stream=Both": 422} {
		if code, _ := r.get("/containerLogs/ns/p/app" + query); code != want {
			t.Errorf("%s: %d, want %d", query, code, want)
		}
	}
	if code, body := r.get("/containerLogs/ns/other/app"); code != 404 || body != "pod \"other\" not found\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := r.get("/containerLogs/ns/p/none"); code != 400 || body != "container \"none\" in pod \"p\" is not available\n" {
		t.Errorf("%d %q", code, body)
	}
}

func TestPaths(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{"": "ok", "/ping": "ok", "/syncloop": "ok", "?verbose": "[+]ping ok\n[+]syncloop ok\nhealthz check passed\n"} {
		if code, body := r.get("/healthz" + path); code != 200 || body != want {
			t.Errorf("healthz%s: %d %q", path, code, body)
		}
	}
	for _, path := range []string{"/pods", "/healthz", "/healthz/ping"} {
		if code, _ := r.get(path, "X-Who", "stranger"); code != 403 {
			t.Errorf("%s for a stranger: %d", path, code)
		}
	}
	if code, body := r.get("/pods"); code != 200 || !strings.Contains(body, `"kind":"PodList"`) || !strings.Contains(body, `"name":"p"`) {
		t.Errorf("pods: %d %s", code, body)
	}
	if code, body := r.get("/stats/summary"); code != 200 || !strings.Contains(body, `"nodeName": "n1"`) {
		t.Errorf("summary: %d %s", code, body)
	}
	code, body := r.get("/metrics/resource")
	for _, line := range []string{
		"# TYPE container_cpu_usage_seconds_total counter",
		`container_cpu_usage_seconds_total{container="app",namespace="ns",pod="p"} 1.5 1767366245000`,
		`container_memory_working_set_bytes{container="app",namespace="ns",pod="p"} 4096 1767366245000`,
		`pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 1.5 1767366245000`,
		`container_start_time_seconds{container="app",namespace="ns",pod="p"} 1.767366245e+09`,
		`node_cpu_usage_seconds_total 1.5 1767366245000`,
		`node_swap_usage_bytes 9 1767366245000`,
		"resource_scrape_error 0",
	} {
		if code != 200 || !strings.Contains(body, line+"\n") {
			t.Errorf("metrics lack %s:\n%s", line, body)
		}
	}
	if code, body := r.get("/stats/summary"); code != 200 || !strings.Contains(body, `"maxpid": 77`) {
		t.Errorf("summary: %d %s", code, body)
	}
	if code, body := r.get("/stats/summary?only_cpu_and_memory=true"); code != 200 || strings.Contains(body, "maxpid") {
		t.Errorf("summary of cpu and memory: %d %s", code, body)
	}
	if code, body := r.get("/stats/summary?only_cpu_and_memory=maybe"); code != 400 {
		t.Errorf("summary of something: %d %s", code, body)
	}
	if code, body := r.get("/metrics/probes"); code != 200 || body != "probes" {
		t.Errorf("metrics of probes: %d %s", code, body)
	}
	r.cadvisor()
	r.err = errors.New("no runtime")
	if code, body := r.get("/metrics/cadvisor"); code != 200 || !strings.Contains(body, "\ncontainer_scrape_error 1\n") {
		t.Errorf("metrics of an ill node: %d %s", code, body)
	}
	for path, want := range map[string]string{
		"":                  "[+]ping ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
		"/syncloop":         "internal server error: no runtime\n",
		"/ping":             "ok",
		"?exclude=syncloop": "ok",
	} {
		if code, body := r.get("/healthz" + path); (code == 200) != (want == "ok") || body != want {
			t.Errorf("healthz%s of an ill node: %d %q", path, code, body)
		}
	}
	if code, body := r.get("/metrics/resource"); code != 200 || !strings.Contains(body, "\nresource_scrape_error 1\n") {
		t.Errorf("metrics of an ill node: %d %s", code, body)
	}
	if code, body := r.get("/exec/ns/p/app?output=1"); code != 400 || body != "you must specify a command\n" {
		t.Errorf("exec of nothing: %d %q", code, body)
	}
	if code, body := r.get("/exec/ns/p/app?command=ls"); code != 400 || body != "you must specify at least 1 of stdin, stdout, stderr\n" {
		t.Errorf("exec without streams: %d %q", code, body)
	}
	r.run.Running = false
	if code, _ := r.get("/exec/ns/p/app?command=ls&output=1"); code != 400 {
		t.Errorf("exec in an ended container: %d", code)
	}
}

// kubectl exec and attach, as its client library speaks: SPDY and WebSocket.
func TestExec(t *testing.T) {
	r := newRig(t)
	r.runtime.SetCommands(func(_ context.Context, _ string, command []string, s runtime.Streams) int {
		switch command[0] {
		case "cat":
			if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
				return 1
			}
			return 0
		case "fail":
			fmt.Fprintln(s.Stdout, "bad")
			return 3
		}
		fmt.Fprintln(s.Stdout, "good")
		return 0
	})
	executors := map[string]func(method, path string) (remotecommand.Executor, error){
		"spdy": func(method, path string) (remotecommand.Executor, error) {
			u, err := url.Parse(r.server.URL + path)
			if err != nil {
				return nil, err
			}
			return remotecommand.NewSPDYExecutor(&rest.Config{Host: r.server.URL}, method, u)
		},
		"websocket": func(_, path string) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(&rest.Config{Host: r.server.URL}, "GET", r.server.URL+path)
		},
		"websocket v4": func(_, path string) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{Host: r.server.URL}, "GET", r.server.URL+path, "v4.channel.k8s.io")
		},
	}
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			stream := func(path string, in io.Reader) (string, error) {
				t.Helper()
				e, err := executor("POST", path)
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: &out})
				return out.String(), err
			}
			if out, err := stream("/exec/ns/p/app?command=ok&output=1", nil); err != nil || out != "good\n" {
				t.Errorf("exec: %q %v", out, err)
			}
			out, err := stream("/exec/ns/p/some-uid/app?command=fail&output=1", nil)
			var exit utilexec.ExitError
			if !errors.As(err, &exit) || exit.ExitStatus() != 3 || out != "bad\n" {
				t.Errorf("failing exec: %q %v", out, err)
			}
			// The command reads to the end of its input: only protocols that
			// can tell it end.
			if name != "websocket v4" {
				if out, err := stream("/exec/ns/p/app?command=cat&output=1&input=1", strings.NewReader("to and fro")); err != nil || out != "to and fro" {
					t.Errorf("exec with input: %q %v", out, err)
				}
			}
		})
	}
	for name, executor := range executors {
		t.Run("attach, "+name, func(t *testing.T) {
			// The container ends with each.
			r = newRig(t)
			e, err := executor("POST", "/attach/ns/p/app?output=1")
			if err != nil {
				t.Fatal(err)
			}
			out, in := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: in}) }()
			line := make([]byte, len("attached to app\n"))
			if _, err := io.ReadFull(out, line); err != nil || string(line) != "attached to app\n" {
				t.Fatalf("%q %v", line, err)
			}
			r.runtime.Exit("app", 0, "")
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// kubectl port-forward, over SPDY and over SPDY in a WebSocket.
func TestPortForward(t *testing.T) {
	r := newRig(t)
	r.runtime.SetForward(func(port int32, conn net.Conn) error {
		if port != 80 {
			return fmt.Errorf("nothing listens on port %d", port)
		}
		buf := make([]byte, 4)
		if _, err := io.ReadFull(conn, buf); err != nil {
			return err
		}
		_, err := fmt.Fprintf(conn, "got %s", buf)
		return err
	})
	u, err := url.Parse(r.server.URL + "/portForward/ns/p")
	if err != nil {
		t.Fatal(err)
	}
	rt, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: r.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, &rest.Config{Host: r.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for name, dialer := range map[string]httpstream.Dialer{
		"spdy":   spdy.NewDialer(upgrader, &http.Client{Transport: rt}, "POST", u),
		"tunnel": tunnel,
	} {
		t.Run(name, func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- f.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			}
			ports, err := f.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "ping"); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || string(answer) != "got ping" {
				t.Errorf("%q %v", answer, err)
			}
			close(stop)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// "/configz" shows the configuration in use, and with enableDebuggingHandlers
// off neither it nor logs and commands are served.
func TestConfigz(t *testing.T) {
	r := newRig(t)
	code, body := r.get("/configz")
	if code != http.StatusOK || !strings.Contains(body, `"kubeletconfig":{"kind":"KubeletConfiguration","apiVersion":"kubelet.config.k8s.io/v1beta1"`) || !strings.Contains(body, `"maxPods":110`) {
		t.Errorf("%d %s", code, body)
	}
	for path, want := range map[string]string{"/flagz": "\nkubelet flagz\n", "/statusz": "\nPaths: /configz /flagz /healthz /metrics /pods /stats\n"} {
		if code, body := r.get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	set, err := settings.Parse(map[string]any{"enableDebuggingHandlers": false}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := server.New(server.Config{Node: r.node, Runtime: r.runtime, Clock: clocktesting.NewFakeClock(now), Settings: set, Pages: pages(),
		Authorize: func(h http.Handler) http.Handler { return h }, Log: slog.Default()})
	for path, want := range map[string]int{"/configz": 405, "/flagz": 404, "/statusz": 404, "/exec/ns/p/c": 405, "/containerLogs/ns/p/c": 405, "/healthz": 200, "/pods": 200} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// cadvisor checks the series that dashboards and rules are made of.
func (r *rig) cadvisor() {
	r.t.Helper()
	const pod = `container="",id="/pods/u",image="",name="",namespace="ns",pod="p"`
	const container = `container="a\"p\\\\p",id="/pods/u/c",image="img",name="c",namespace="ns",pod="p"`
	code, body := r.get("/metrics/cadvisor")
	for _, line := range []string{
		`# TYPE container_cpu_usage_seconds_total counter`,
		`container_cpu_usage_seconds_total{container="",cpu="total",id="/",image="",name="",namespace="",pod=""} 9 1767366245000`,
		`container_cpu_cfs_periods_total{` + container + `} 7 1767366245000`,
		`container_cpu_cfs_throttled_periods_total{` + container + `} 3 1767366245000`,
		`container_cpu_cfs_throttled_seconds_total{` + container + `} 2 1767366245000`,
		`container_memory_working_set_bytes{` + container + `} 4096 1767366245000`,
		`container_memory_usage_bytes{` + pod + `} 5000 1767366245000`,
		`container_memory_rss{` + pod + `} 1000 1767366245000`,
		`container_memory_cache{` + pod + `} 2000 1767366245000`,
		`container_memory_failcnt{` + container + `} 4 1767366245000`,
		`container_memory_failures_total{` + container + `,failure_type="pgfault",scope="hierarchy"} 11 1767366245000`,
		`container_oom_events_total{` + container + `} 1 1767366245000`,
		`container_pressure_cpu_waiting_seconds_total{` + container + `} 1.5 1767366245000`,
		`container_pressure_cpu_stalled_seconds_total{` + pod + `} 0 1767366245000`,
		`container_pressure_io_waiting_seconds_total{` + pod + `} 0.5 1767366245000`,
		`container_pressure_io_stalled_seconds_total{` + pod + `} 0.25 1767366245000`,
		`container_pressure_memory_waiting_seconds_total{` + pod + `} 0 1767366245000`,
		`container_network_receive_bytes_total{` + pod + `,interface="eth0"} 10 1767366245000`,
		`container_network_transmit_bytes_total{` + pod + `,interface="eth0"} 20 1767366245000`,
		`container_network_receive_packets_dropped_total{` + pod + `,interface="eth0"} 1 1767366245000`,
		`container_fs_usage_bytes{` + container + `} 30 1767366245000`,
		`container_fs_limit_bytes{` + container + `} 40 1767366245000`,
		`container_spec_cpu_quota{` + container + `} 50000 1767366245000`,
		`container_spec_cpu_shares{` + container + `} 512 1767366245000`,
		`container_spec_memory_limit_bytes{` + container + `} 8192 1767366245000`,
		`container_start_time_seconds{` + container + `} 1.767366245e+09 1767366245000`,
		`machine_cpu_cores{boot_id="b",machine_id="m",system_uuid="s"} 2`,
		`machine_memory_bytes{boot_id="b",machine_id="m",system_uuid="s"} 1.073741824e+09`,
		`container_scrape_error 0`,
	} {
		if code != 200 || !strings.Contains(body, line+"\n") {
			r.t.Errorf("metrics lack %s:\n%s", line, body)
		}
	}
	if strings.Contains(body, `container_spec_memory_limit_bytes{container="",id="/"`) {
		r.t.Error("the machine has a limit")
	}
}
