package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"
)

// ofLevel is the sum of a metric of fairness for a priority level.
func ofLevel(t *testing.T, p *peer, metric, level string) int {
	t.Helper()
	sum := 0
	for line := range strings.Lines(string(p.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if strings.HasPrefix(series, "apiserver_flowcontrol_"+metric+"{") && strings.Contains(series, `priority_level="`+level+`"`) {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum += int(n)
		}
	}
	return sum
}

// besiege has many clients of one identity write at once, each on a connection of
// its own: those that are let in keep their seats until they are released, the
// others wait in queues, and when that takes too long ask again.
func besiege(t *testing.T, clients int, config *rest.Config, path string) (served *atomic.Int64, release func()) {
	t.Helper()
	served = &atomic.Int64{}
	ctx, cancel := context.WithCancel(t.Context())
	open := make(chan struct{})
	var all sync.WaitGroup
	for i := range clients {
		config := rest.CopyConfig(config)
		config.Dial = (&net.Dialer{}).DialContext // they share connections unless they dial themselves
		p, err := newPeer(config)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer p.http.CloseIdleConnections()
			for ctx.Err() == nil {
				body := held(open, fmt.Sprintf(`{"metadata":{"name":"besieger-%d"}}`, i))
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.config.Host+path, body)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/json")
				resp, err := p.http.Do(req)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				switch resp.StatusCode {
				case http.StatusCreated:
					served.Add(1)
					return
				case http.StatusTooManyRequests, http.StatusGatewayTimeout: // it waited, or was waited for, too long
				default:
					t.Errorf("one of many is answered %s", resp.Status)
					return
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
	return served, sync.OnceFunc(func() { close(open); all.Wait() })
}

// "API Priority and Fairness", defaults: many clients of one service account, or of
// one user, wait in the queues of their level, and never have the seats that other
// levels keep. A node and the administrator are neither refused nor queued meanwhile:
// all that they ask for is done before any of the many is. In the end all are served.
func TestFloodIsQueued(t *testing.T) {
	t.Parallel()
	const clients, rounds = 200, 50
	// As many seats as on two processors, wherever this runs.
	p := startPlane(t, "--max-requests-inflight=40", "--max-mutating-requests-inflight=20", "--authorization-mode=Node")
	root, node := p.as(t, "admin", "system:masters"), p.as(t, "system:node:one", "system:nodes")
	in := "/api/v1/namespaces/default/"
	add := func(path, body string) {
		t.Helper()
		root.want(t, http.StatusCreated, call{method: "POST", path: path, body: body}, nil)
	}
	add("/api/v1/nodes", "metadata: {name: one}")
	add(in+"serviceaccounts", "metadata: {name: robot}")
	add("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", `
metadata: {name: editors}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: robot}, {kind: User, apiGroup: rbac.authorization.k8s.io, name: somebody}]`)
	var token authenticationv1.TokenRequest
	root.want(t, http.StatusCreated, call{method: "POST", path: in + "serviceaccounts/robot/token", body: "{}"}, &token)
	const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	node.want(t, http.StatusCreated, call{method: "POST", path: leases, body: "metadata: {name: one}\nspec: {holderIdentity: one, leaseDurationSeconds: 40}"}, nil)

	for _, many := range []struct {
		schema, level string
		most          int // seats, with all that may be borrowed
		who           *peer
	}{
		{"service-accounts", "workload-low", 39, p.bearing(t, token.Status.Token)},
		{"global-default", "global-default", 39, p.as(t, "somebody")},
	} {
		t.Run(many.level, func(t *testing.T) {
			uid := func(resource, name string) string {
				return string(root.want(t, http.StatusOK, call{path: "/apis/flowcontrol.apiserver.k8s.io/v1/" + resource + "/" + name}, nil).object(t).GetUID())
			}
			class := func(schema, level string) [2]string {
				return [2]string{uid("flowschemas", schema), uid("prioritylevelconfigurations", level)}
			}
			path := in + "configmaps?dryRun=All"
			if a := many.who.want(t, http.StatusOK, call{path: in + "configmaps"}, nil); classOf(a.header) != class(many.schema, many.level) {
				t.Fatalf("one of the many is classified as %v", classOf(a.header))
			}
			served, release := besiege(t, clients, many.who.config, path)
			eventually(t, "the seats are taken and the others wait", func() bool {
				executing, waiting := ofLevel(t, root, "current_executing_requests", many.level), ofLevel(t, root, "current_inqueue_requests", many.level)
				return executing > 0 && executing+waiting == clients
			})
			high, exempt := class("system-node-high", "node-high"), class("exempt", "exempt")
			for i := range rounds {
				renewed := fmt.Sprintf("2026-01-01T00:00:00.%06dZ", i)
				a := node.want(t, http.StatusOK, call{method: "PATCH", path: leases + "/one", contentType: mergePatch, body: `{"spec":{"renewTime":"` + renewed + `"}}`}, nil)
				if classOf(a.header) != high || field(a.object(t), "spec", "renewTime") != renewed {
					t.Fatalf("heartbeat %d is classified as %v, want %v: %s", i, classOf(a.header), high, a.body)
				}
				for _, c := range []call{
					{path: in + "serviceaccounts/robot"}, {path: in + "configmaps"}, {path: in + "configmaps?watch=1&timeoutSeconds=0&resourceVersion=0"},
					{method: "POST", path: path, body: "metadata: {name: mine}"},
				} {
					if strings.Contains(c.path, "watch") {
						resp, err := root.open(t.Context(), c)
						if err != nil {
							t.Fatal(err)
						}
						resp.Body.Close()
						if resp.StatusCode != http.StatusOK {
							t.Fatalf("the administrator's watch: %s", resp.Status)
						}
						continue
					}
					if a := root.do(t, c); a.code/100 != 2 || classOf(a.header) != exempt {
						t.Fatalf("the administrator's %s %s: %d, classified as %v", c.method, c.path, a.code, classOf(a.header))
					}
				}
				if n := ofLevel(t, root, "current_executing_requests", many.level); n > many.most {
					t.Fatalf("%d of the many are served at once, at most %d may be", n, many.most)
				}
			}
			if n := ofLevel(t, root, "current_inqueue_requests", many.level); n == 0 {
				t.Error("nobody waits any more: there was no flood")
			}
			if n := served.Load(); n > 0 {
				t.Errorf("%d of the many were served meanwhile", n)
			}
			for _, level := range []string{"node-high", "system", "exempt"} {
				if n, waiting := ofLevel(t, root, "rejected_requests_total", level), ofLevel(t, root, "current_inqueue_requests", level); n+waiting > 0 {
					t.Errorf("of %s %d were refused and %d wait", level, n, waiting)
				}
			}
			release()
			if n := served.Load(); n != clients {
				t.Errorf("%d of %d were served in the end", n, clients)
			}
		})
	}
}
