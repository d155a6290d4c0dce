package http_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	defaults "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/fairness"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/informers"

	apihttp "hansa.dev/hansa/apiserver/http"
)

// newFilter runs priority and fairness over a handler's own objects.
func newFilter(t testing.TB, h *request.Handler, seats int) *fairness.Filter {
	t.Helper()
	c := direct.New(h, requesttest.Admin, "test")
	factory := informers.New(h.Registry, c.View())
	f, err := fairness.New(fairness.Config{
		Registry: h.Registry, Informers: factory, Writer: c, Size: h.Store.View().Size, Seats: seats,
	})
	if err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSyncWithContext(t.Context())
	go f.Run(t.Context()) //nolint:errcheck // it ends with the test
	return f
}

// gate is a limiter that notes what it is asked, and refuses on demand.
type gate struct {
	mu      sync.Mutex
	refuses bool
	asked   []string
	started chan struct{}
	ended   chan struct{}
}

func (g *gate) note(r fairness.Request) (refused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := r.Meaning()
	text := r.User().GetName() + " " + m.Verb
	if m.IsResourceRequest {
		text += " " + strings.Join([]string{m.APIPrefix, m.APIGroup, m.APIVersion, m.Namespace, m.Resource, m.Name, m.Subresource}, ",")
	} else {
		text += " " + m.Path
	}
	g.asked = append(g.asked, text+" "+r.Patience().String())
	r.Classified(fairness.Class{SchemaUID: "schema", LevelUID: "level"})
	return g.refuses
}

func (g *gate) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	g.asked = nil
	return asked
}

func (g *gate) Serve(_ context.Context, r fairness.Request) fairness.Verdict {
	if g.note(r) {
		return fairness.Verdict{Refused: true, RetryAfter: 7}
	}
	r.Serve()
	return fairness.Verdict{}
}

func (g *gate) Begin(_ context.Context, r fairness.Request) (started, ended func(), v fairness.Verdict) {
	if g.note(r) {
		return nil, nil, fairness.Verdict{Refused: true, RetryAfter: 7}
	}
	return sync.OnceFunc(func() { close(g.started) }), func() { close(g.ended) }, fairness.Verdict{}
}

// What a limiter is asked, and about which requests it is not asked at all.
// Names and verbs are those that authorization uses.
func TestTurns(t *testing.T) {
	g := &gate{}
	c := newCluster(t, func(config *apihttp.Config) { config.Limiter = g })
	c.createConfigMap("a")
	g.take()
	for _, tt := range []struct {
		what string
		in   call
		want []string
	}{
		{"get", call{path: configMaps + "/a"}, []string{"admin get api,,v1,default,configmaps,a, 15s"}},
		{"list", call{path: "/apis/apps/v1/deployments?timeout=8s"}, []string{"admin list apis,apps,v1,,deployments,, 2s"}},
		{"list of one", call{path: configMaps + "?fieldSelector=metadata.name%3Da"}, []string{"admin list api,,v1,default,configmaps,a, 15s"}},
		{"patch of a part", call{method: "PATCH", path: "/api/v1/nodes/n/status"}, []string{"admin patch api,,v1,,nodes,n,status 15s"}},
		{"namespace", call{path: "/api/v1/namespaces/default"}, []string{"admin get api,,v1,default,namespaces,default, 15s"}},
		{"deletion of all", call{method: "DELETE", path: configMaps, token: "u"}, []string{"u deletecollection api,,v1,default,configmaps,, 15s"}},
		{"unknown kind", call{path: "/apis/example.com/v1/things"}, []string{"admin list apis,example.com,v1,,things,, 15s"}},
		{"path", call{path: "/version", token: "-"}, []string{"system:anonymous get /version 15s"}},
		{"impersonation", call{path: configMaps + "/a", header: map[string]string{"Impersonate-User": "eve"}}, []string{"eve get api,,v1,default,configmaps,a, 15s"}},
		{"log", call{path: "/api/v1/namespaces/default/pods/p/log"}, nil},
		{"exec", call{method: "POST", path: "/api/v1/namespaces/default/pods/p/exec"}, nil},
		{"proxy", call{path: "/api/v1/nodes/n/proxy/x"}, nil},
		{"profile", call{path: "/debug/pprof/heap"}, nil},
		{"nobody", call{path: configMaps + "/a", token: "wrong"}, nil},
	} {
		a := c.do(tt.in)
		if asked := g.take(); !slices.Equal(asked, tt.want) {
			t.Errorf("%s: asked %q, want %q", tt.what, asked, tt.want)
		}
		classified := a.header.Get("X-Kubernetes-PF-FlowSchema-UID") == "schema" && a.header.Get("X-Kubernetes-PF-PriorityLevel-UID") == "level"
		if classified != (tt.want != nil) {
			t.Errorf("%s: the answer has %v", tt.what, a.header)
		}
	}
}

// "Troubleshooting" of flow control: a refusal is 429 and says when to try
// again. It comes before authorization, also for a watch.
func TestTooManyRequests(t *testing.T) {
	g := &gate{refuses: true}
	c := newCluster(t, func(config *apihttp.Config) { config.Limiter = g })
	for _, path := range []string{configMaps + "/a", configMaps + "?watch=true", "/metrics"} {
		a := c.do(call{path: path, token: "u"})
		if a.code != http.StatusTooManyRequests || a.header.Get("Retry-After") != "7" || string(a.body) != "Too many requests, please try again later.\n" ||
			a.header.Get("X-Kubernetes-PF-FlowSchema-UID") != "schema" {
			t.Errorf("%s: %d %v %s", path, a.code, a.header, a.body)
		}
	}
}

// A watch has started when it has told of all there was, and not before.
func TestWatchStarts(t *testing.T) {
	for _, query := range []string{"", "&resourceVersion=0", "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "&resourceVersion=now"} {
		g := &gate{}
		c := newCluster(t, func(config *apihttp.Config) { config.Limiter = g })
		c.createConfigMap("a")
		g.started, g.ended = make(chan struct{}), make(chan struct{})
		var list metav1.List
		c.do(call{path: configMaps}).decode(t, &list)
		ctx, cancel := context.WithCancel(t.Context())
		resp := c.open(ctx, call{path: configMaps + "?watch=true" + strings.ReplaceAll(query, "now", list.ResourceVersion)})
		if !strings.HasSuffix(query, "now") {
			if _, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		<-g.started
		cancel()
		<-g.ended
		resp.Body.Close()
	}
	// One that never begins gives back what it had as well.
	g := &gate{started: make(chan struct{}), ended: make(chan struct{})}
	c := newCluster(t, func(config *apihttp.Config) { config.Limiter = g })
	c.do(call{path: configMaps + "?watch=true", token: "u"})
	<-g.started
	<-g.ended
}

// A client that does not send the body it promised gives its seat back when its
// time is over, and is told so.
func TestBodyThatDoesNotEnd(t *testing.T) {
	c := newCluster(t, func(config *apihttp.Config) { config.Limiter = fairness.NewLimits(0, 1) })
	for range 3 {
		body, _ := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+configMaps+"?timeout=20ms", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer admin")
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if s := (answer{resp.StatusCode, resp.Header, text}).status(t); s.Code != http.StatusGatewayTimeout || s.Reason != metav1.StatusReasonTimeout {
			t.Errorf("a body that does not end gave %+v", s)
		}
	}
}

// Clients that go in the middle of a request take nothing with them: the
// connection is not touched once a request has been answered.
func TestClientsThatGo(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+configMaps+"/a", nil)
				if err != nil {
					t.Error(err)
				}
				req.Header.Set("Authorization", "Bearer admin")
				if i%2 == 0 {
					go cancel()
				}
				if resp, err := c.Client().Do(req); err == nil {
					resp.Body.Close()
				}
				cancel()
			}
		})
	}
	clients.Wait()
	if a := c.do(call{path: configMaps + "/a"}); a.code != http.StatusOK {
		t.Errorf("afterwards: %d", a.code)
	}
}

// The real filter finds in a request what FlowSchemas ask for.
func TestFairness(t *testing.T) {
	c := newCluster(t, func(config *apihttp.Config) {
		door := direct.New(config.Requests, requesttest.Admin, "test")
		var objects []api.Object
		for _, pl := range append(defaults.MandatoryPriorityLevelConfigurations, defaults.SuggestedPriorityLevelConfigurations...) {
			objects = append(objects, pl.DeepCopy())
		}
		for _, fs := range append(defaults.MandatoryFlowSchemas, defaults.SuggestedFlowSchemas...) {
			objects = append(objects, fs.DeepCopy())
		}
		for _, obj := range objects {
			if _, err := door.Create(t.Context(), door.Registry().Of(obj), obj, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		config.Limiter = newFilter(t, config.Requests, 600)
	})
	c.createConfigMap("a")
	uid := func(plural, name string) string {
		var obj metav1.PartialObjectMetadata
		c.do(call{path: "/apis/flowcontrol.apiserver.k8s.io/v1/" + plural + "/" + name}).decode(t, &obj)
		return string(obj.UID)
	}
	for _, tt := range []struct {
		in            call
		schema, level string
	}{
		{call{path: configMaps + "/a"}, "exempt", "exempt"},
		{call{path: configMaps + "/a", token: "u"}, "global-default", "global-default"},
		{call{path: configMaps + "?watch=true", token: "u"}, "global-default", "global-default"},
		{call{path: "/readyz", token: "u"}, "probes", "exempt"},
		{call{path: configMaps + "/a", header: map[string]string{"Impersonate-User": "system:kube-scheduler"}}, "kube-scheduler", "workload-high"},
		{call{path: "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n", header: map[string]string{
			"Impersonate-User": "system:node:n", "Impersonate-Group": "system:nodes",
		}, method: "PUT"}, "system-node-high", "node-high"},
	} {
		// The library takes the configuration over in its own time.
		want := [2]string{uid("flowschemas", tt.schema), uid("prioritylevelconfigurations", tt.level)}
		var got [2]string
		for range 10_000 {
			h := c.do(tt.in).header
			if got = [2]string{h.Get("X-Kubernetes-PF-FlowSchema-UID"), h.Get("X-Kubernetes-PF-PriorityLevel-UID")}; got == want {
				break
			}
		}
		if got != want {
			t.Errorf("%s is classified as %v, want %s and %s: %v", tt.in.path, got, tt.schema, tt.level, want)
		}
	}
}
