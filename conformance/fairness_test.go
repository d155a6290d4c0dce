package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func init() {
	groups["flowschemas"] = "flowcontrol.apiserver.k8s.io/v1"
	groups["prioritylevelconfigurations"] = "flowcontrol.apiserver.k8s.io/v1"
}

// classOf is what an answer says that its request was taken for.
func classOf(h http.Header) [2]string {
	return [2]string{h.Get("X-Kubernetes-PF-FlowSchema-UID"), h.Get("X-Kubernetes-PF-PriorityLevel-UID")}
}

// smallLevel makes a priority level of the least size, that queues nothing and
// neither lends nor borrows, and sends a service account there.
func smallLevel(t *testing.T, name, ns, account string) [2]string {
	t.Helper()
	level := create(t, "prioritylevelconfigurations", "", fmt.Sprintf(`
metadata: {name: %s}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 1, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}`, name))
	schema := create(t, "flowschemas", "", fmt.Sprintf(`
metadata: {name: %[1]s}
spec:
  priorityLevelConfiguration: {name: %[1]s}
  matchingPrecedence: 50
  distinguisherMethod: {type: ByUser}
  rules:
  - subjects: [{kind: ServiceAccount, serviceAccount: {namespace: %[2]s, name: %[3]s}}]
    resourceRules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: ["*"], clusterScope: true}]`, name, ns, account))
	t.Cleanup(func() {
		ctx, v1 := context.WithoutCancel(t.Context()), kube.FlowcontrolV1()
		err := v1.FlowSchemas().Delete(ctx, name, metav1.DeleteOptions{})
		if err = errors.Join(err, v1.PriorityLevelConfigurations().Delete(ctx, name, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	return [2]string{string(schema.GetUID()), string(level.GetUID())}
}

// flooding is a flood of one service account.
type flooding struct {
	first    chan http.Header // of one refusal
	turns    chan struct{}    // each lets one ask that was refused
	refusals atomic.Int64
	release  func() // ends it
}

// startFlood opens connections, each of which sends a request whose body does not
// end: those that are let in hold all seats. The others ask again in turn.
func startFlood(t *testing.T, token, path string) *flooding {
	t.Helper()
	const flooders = 200
	ctx, cancel := context.WithCancel(t.Context())
	f := &flooding{first: make(chan http.Header, 1), turns: make(chan struct{}, flooders)}
	var bodies []*io.PipeWriter
	var ended sync.WaitGroup
	for range flooders {
		// Clients share a connection unless they dial themselves.
		p := as(t, func(c *rest.Config) { c.BearerToken, c.Dial = token, (&net.Dialer{}).DialContext })
		r, w := io.Pipe()
		bodies = append(bodies, w)
		ended.Go(func() {
			defer p.http.CloseIdleConnections()
			for method, body := http.MethodPost, io.Reader(r); ctx.Err() == nil; method, body = http.MethodGet, nil {
				if err := f.ask(ctx, p, method, path, body); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				select {
				case <-f.turns:
				case <-ctx.Done():
				}
			}
		})
	}
	f.release = sync.OnceFunc(func() {
		cancel()
		for _, w := range bodies {
			w.CloseWithError(io.ErrUnexpectedEOF)
		}
		ended.Wait()
	})
	return f
}

func (f *flooding) ask(ctx context.Context, p *peer, method, path string, body io.Reader) error {
	req, err := http.NewRequestWithContext(ctx, method, p.config.Host+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusTooManyRequests {
		f.refusals.Add(1)
		select {
		case f.first <- resp.Header:
		default:
		}
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// "API Priority and Fairness": a flood of one service account is refused with
// 429 and Retry-After, while heartbeats and the administrator are served.
func TestFlood(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	create(t, "rolebindings", ns, `
metadata: {name: robot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: robot}]`)
	token := tokenOf(t, ns, "robot", "{}").Status.Token
	robot := withToken(t, token)
	class := smallLevel(t, ns, ns, "robot")
	list := call{path: at("configmaps", ns)}
	eventually(t, "the service account is sent to its level", func() bool { return classOf(robot.do(t, list).header) == class })
	n := nodeClient(t, node)
	lease := fmt.Sprintf(`{metadata: {name: %s}, spec: {holderIdentity: %[1]s, leaseDurationSeconds: 40}}`, node)

	flood := startFlood(t, token, list.path)
	defer flood.release()
	// Once one has been refused none of those that were let in ends before it may.
	select {
	case h := <-flood.first:
		if classOf(h) != class || h.Get("Retry-After") == "" {
			t.Errorf("a refusal has %v", h)
		}
	case <-t.Context().Done():
		t.Fatal("nothing was refused")
	}
	a := robot.do(t, list)
	if a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || classOf(a.header) != class ||
		string(a.body) != "Too many requests, please try again later.\n" {
		t.Errorf("within the flood: %d %v %s", a.code, a.header, a.body)
	}
	if a := robot.do(t, call{path: list.path + "?watch=true"}); a.code != http.StatusTooManyRequests {
		t.Errorf("a watch within the flood: %d %s", a.code, a.body)
	}
	n.want(t, http.StatusCreated, call{method: "POST", path: at("leases", "kube-node-lease"), body: lease}, nil)
	heartbeat, exempt := uids(t, "system-node-high", "node-high"), uids(t, "exempt", "exempt")
	before := flood.refusals.Load()
	for i := range 100 {
		for range 50 {
			select {
			case flood.turns <- struct{}{}:
			default: // as many as there are ask already
			}
		}
		renewed := fmt.Sprintf("2026-01-01T00:00:00.%06dZ", i)
		a = n.want(t, http.StatusOK, call{method: "PATCH", path: at("leases", "kube-node-lease", node), contentType: mergePatch, body: `{"spec":{"renewTime":"` + renewed + `"}}`}, nil)
		if classOf(a.header) != heartbeat || field(a.object(t), "spec", "renewTime") != renewed {
			t.Fatalf("heartbeat %d is classified as %v, want %v: %s", i, classOf(a.header), heartbeat, a.body)
		}
		if a = admin.want(t, http.StatusOK, list, nil); classOf(a.header) != exempt {
			t.Fatalf("the administrator is classified as %v, want %v", classOf(a.header), exempt)
		}
	}
	if flood.refusals.Load() == before {
		t.Error("nobody was refused meanwhile: there was no flood")
	}
	metrics := string(admin.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)
	for _, series := range []string{
		`apiserver_flowcontrol_rejected_requests_total{flow_schema="` + ns + `",priority_level="` + ns + `",reason="concurrency-limit"}`,
		`apiserver_flowcontrol_dispatched_requests_total{flow_schema="exempt",priority_level="exempt"}`,
		`apiserver_flowcontrol_nominal_limit_seats{priority_level="` + ns + `"}`,
	} {
		if !strings.Contains(metrics, series) {
			t.Errorf("there is no metric %s", series)
		}
	}

	flood.release()
	eventually(t, "the service account is served again", func() bool { return robot.do(t, list).code == http.StatusOK })
}

func uids(t *testing.T, schema, level string) [2]string {
	t.Helper()
	return [2]string{string(get(t, "flowschemas", "", schema).GetUID()), string(get(t, "prioritylevelconfigurations", "", level).GetUID())}
}

// Watches that have told of what there was are not counted any more.
func TestWatchesLeaveFairness(t *testing.T) {
	ns := namespace(t)
	create(t, "rolebindings", ns, `
metadata: {name: robot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: robot}]`)
	robot := impersonating(t, "system:serviceaccount:"+ns+":robot", "system:serviceaccounts", "system:authenticated")
	class := smallLevel(t, ns, ns, "robot")
	list := call{path: at("configmaps", ns)}
	eventually(t, "the service account is sent to its level", func() bool { return classOf(robot.do(t, list).header) == class })
	for i := range 40 {
		var resp *http.Response
		// The one before may not have told of everything yet.
		eventually(t, fmt.Sprintf("watch %d begins", i), func() bool {
			var err error
			if resp, err = robot.open(t.Context(), call{path: list.path + "?watch=true"}); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusOK {
				resp.Body.Close()
			}
			return resp.StatusCode == http.StatusOK
		})
		defer resp.Body.Close()
	}
}

// "Maintenance of the Mandatory and Suggested Configuration Objects": they come
// back when they are deleted, and a FlowSchema says when its level is missing.
func TestFairnessObjects(t *testing.T) {
	for plural, names := range map[string][]string{
		"flowschemas":                 {"catch-all", "exempt", "probes"},
		"prioritylevelconfigurations": {"catch-all", "exempt", "global-default"},
	} {
		for _, name := range names {
			before := get(t, plural, "", name)
			if before.GetAnnotations()["apf.kubernetes.io/autoupdate-spec"] != "true" {
				t.Errorf("%s %s has annotations %v", plural, name, before.GetAnnotations())
			}
			admin.want(t, http.StatusOK, call{method: "DELETE", path: at(plural, "", name)}, nil)
			eventually(t, plural+" "+name+" is back", func() bool {
				a := admin.do(t, call{path: at(plural, "", name)})
				return a.code == http.StatusOK && a.object(t).GetUID() != before.GetUID()
			})
		}
	}
	patch(t, "flowschemas", "", "catch-all", `{"metadata":{"annotations":{"apf.kubernetes.io/autoupdate-spec":"false"}}}`)
	eventually(t, "a mandatory object cannot be taken over", func() bool {
		return get(t, "flowschemas", "", "catch-all").GetAnnotations()["apf.kubernetes.io/autoupdate-spec"] == "true"
	})
	name := namespaceName(t)
	create(t, "flowschemas", "", `
metadata: {name: `+name+`}
spec: {priorityLevelConfiguration: {name: none}, matchingPrecedence: 9999}`)
	eventually(t, "the missing level is told of", func() bool {
		text := field(get(t, "flowschemas", "", name), "status", "conditions")
		return strings.Contains(text, `"type":"Dangling"`) && strings.Contains(text, `"status":"True"`) && strings.Contains(text, `"reason":"NotFound"`) &&
			strings.Contains(text, `This FlowSchema references the PriorityLevelConfiguration object named \"none\" but there is no such object`)
	})
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("flowschemas", "", name)}, nil)
}
