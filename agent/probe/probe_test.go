package probe_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/probe"
)

func listener(t *testing.T) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port
}

func once(t *testing.T, h v1.ProbeHandler, target probe.Target) probe.Outcome {
	t.Helper()
	o, err := probe.Once(t.Context(), &v1.Probe{ProbeHandler: h, TimeoutSeconds: 5}, target)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// "HTTP probes": any code from 200 to 399 is success; the request carries the
// headers of the probe.
func TestHTTP(t *testing.T) {
	var seen *http.Request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		switch r.URL.Path {
		case "/code":
			var code int
			fmt.Sscan(r.URL.Query().Get("c"), &code)
			w.WriteHeader(code)
		case "/local":
			http.Redirect(w, r, "/code?c=500", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}
	})
	for _, s := range []*httptest.Server{httptest.NewServer(handler), httptest.NewTLSServer(handler)} {
		defer s.Close()
		scheme, hostPort, _ := strings.Cut(s.URL, "://")
		_, port, _ := net.SplitHostPort(hostPort)
		c := &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(intstr.Parse(port).IntVal)}}}
		target := probe.Target{Container: c, IP: "127.0.0.1"}
		for path, want := range map[string]probe.Outcome{
			"/code?c=200": {OK: true},
			"code?c=204":  {OK: true},
			"/code?c=304": {OK: true, Warning: true, Message: "Probe terminated redirects, Response body: "},
			"/code?c=400": {Message: "HTTP probe failed with statuscode: 400"},
			"/local":      {Message: "HTTP probe failed with statuscode: 500"},
			"/away":       {OK: true, Warning: true, Message: "Probe terminated redirects, Response body: <a href=\"http://192.0.2.1/\">Found</a>.\n\n"},
		} {
			got := once(t, v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{
				Path: path, Port: intstr.FromString("web"), Scheme: v1.URIScheme(strings.ToUpper(scheme)),
				HTTPHeaders: []v1.HTTPHeader{{Name: "Host", Value: "example.com"}, {Name: "X", Value: "1"}, {Name: "X", Value: "2"}},
			}}, target)
			if got != want {
				t.Errorf("%s %s: got %+v, want %+v", scheme, path, got, want)
			}
		}
		if seen.Host != "example.com" || len(seen.Header["X"]) != 2 || seen.UserAgent() != "kube-probe/1.37" {
			t.Errorf("request: %s %v", seen.Host, seen.Header)
		}
	}
	_, err := probe.Once(t.Context(), &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromString("none")}}}, probe.Target{Container: &v1.Container{}})
	if err == nil || err.Error() != "couldn't find port: none" {
		t.Errorf("unknown port: %v", err)
	}
}

func TestTCP(t *testing.T) {
	l, port := listener(t)
	target := probe.Target{Container: &v1.Container{}, IP: "127.0.0.1"}
	h := v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}
	if o := once(t, h, target); !o.OK {
		t.Errorf("open port: %+v", o)
	}
	l.Close()
	if o := once(t, h, target); o.OK || !strings.Contains(o.Message, "connection refused") {
		t.Errorf("closed port: %+v", o)
	}
}

func TestGRPC(t *testing.T) {
	l, port := listener(t)
	s, status := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(s, status)
	go func() { _ = s.Serve(l) }() // ends with Stop
	defer s.Stop()
	status.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	target := probe.Target{Container: &v1.Container{}, IP: "127.0.0.1"}
	for service, want := range map[string]probe.Outcome{
		"":     {OK: true, Message: "service healthy"},
		"sick": {Message: `service unhealthy (responded with "NOT_SERVING")`},
		"none": {Message: "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"},
	} {
		got := once(t, v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: int32(port), Service: ptr.To(service)}}, target)
		if got != want {
			t.Errorf("%q: got %+v, want %+v", service, got, want)
		}
	}
	plain, otherPort := listener(t)
	bare := grpc.NewServer()
	go func() { _ = bare.Serve(plain) }()
	defer bare.Stop()
	if o := once(t, v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: int32(otherPort)}}, target); o.OK || !strings.Contains(o.Message, "does not implement the grpc health protocol") {
		t.Errorf("no health service: %+v", o)
	}
}

func TestExec(t *testing.T) {
	target := func(out string, code int, err error) probe.Target {
		return probe.Target{Exec: func(context.Context, []string, time.Duration) (string, int, error) { return out, code, err }}
	}
	h := v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"test", "-e", "x"}}}
	if o := once(t, h, target("fine", 0, nil)); o != (probe.Outcome{OK: true, Message: "fine"}) {
		t.Errorf("%+v", o)
	}
	if o := once(t, h, target("bad", 1, nil)); o != (probe.Outcome{Message: "bad"}) {
		t.Errorf("%+v", o)
	}
	if o := once(t, h, target("", 0, context.DeadlineExceeded)); o.OK || o.Message != `command timed out: "test -e x" timed out after 5s` {
		t.Errorf("%+v", o)
	}
	if _, err := probe.Once(t.Context(), &v1.Probe{ProbeHandler: h}, target("", 0, errors.New("no runtime"))); err == nil {
		t.Error("a probe that could not be made gave a result")
	}
}

// loop runs a probe whose outcomes come from answer, in a bubble of synthetic
// time, and logs what happens when.
func loop(p v1.Probe, seconds int, eager bool, answer func(at time.Duration) (bool, error)) string {
	var log []string
	start := time.Now()
	at := func() string { return time.Since(start).String() }
	ready := false
	l := &probe.Loop{
		Clock: clock.RealClock{}, Probe: &p, Since: start,
		Once: func(context.Context) (probe.Outcome, error) {
			ok, err := answer(time.Since(start))
			return probe.Outcome{OK: ok}, err
		},
		Changed: func(ok bool) { ready = ok; log = append(log, fmt.Sprintf("%s %v", at(), ok)) },
		Failed:  func(probe.Outcome) { log = append(log, at()+" fail") },
	}
	if eager {
		l.Eager = func() bool { return !ready }
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second+time.Millisecond)
	defer cancel()
	l.Run(ctx)
	return strings.Join(log, ", ")
}

// "Configure probes": delay, period and thresholds.
func TestLoop(t *testing.T) {
	up := func(from, to time.Duration) func(time.Duration) (bool, error) {
		return func(at time.Duration) (bool, error) { return at >= from && at < to, nil }
	}
	for _, c := range []struct {
		name    string
		probe   v1.Probe
		seconds int
		eager   bool
		answer  func(time.Duration) (bool, error)
		want    string
	}{
		{"at once", v1.Probe{PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1}, 20, false, up(0, time.Hour), "0s true"},
		{"delay", v1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1}, 20, false, up(0, time.Hour), "5s true"},
		{"failure threshold", v1.Probe{PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1}, 60, false, up(0, 15*time.Second),
			"0s true, 20s fail, 30s fail, 40s fail, 40s false, 50s fail, 1m0s fail"},
		{"success threshold", v1.Probe{PeriodSeconds: 10, FailureThreshold: 1, SuccessThreshold: 2}, 40, false, up(5*time.Second, time.Hour),
			"0s fail, 0s false, 20s true"},
		{"eager", v1.Probe{PeriodSeconds: 10, FailureThreshold: 3, SuccessThreshold: 1}, 30, true, up(600*time.Millisecond, time.Hour), "0s fail, 700ms true"},
		{"no answer counts for nothing", v1.Probe{PeriodSeconds: 1, FailureThreshold: 2, SuccessThreshold: 1}, 6, false,
			func(at time.Duration) (bool, error) {
				if at == 2*time.Second {
					return false, errors.New("no runtime")
				}
				return false, nil
			}, "0s fail, 1s fail, 1s false, 3s fail, 4s fail, 5s fail, 6s fail"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := loop(c.probe, c.seconds, c.eager, c.answer); got != c.want {
					t.Errorf("got %s\nwant %s", got, c.want)
				}
			})
		})
	}
}
