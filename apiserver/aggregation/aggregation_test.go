package aggregation

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

var gv = schema.GroupVersion{Group: "example.com", Version: "v1"}

// view has APIServices alone.
type view struct {
	mu     sync.Mutex
	all    map[string]*apiregistrationv1.APIService
	listen func(old, new api.Object)
}

func (v *view) List(*api.Resource, string) iter.Seq[api.Object] {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []api.Object
	for _, s := range v.all {
		list = append(list, s)
	}
	return slices.Values(list)
}

func (v *view) Subscribe(_ *api.Resource, f func(old, new api.Object)) func() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listen = f
	return func() {}
}

// set writes an APIService; nil removes it.
func (v *view) set(name string, s *apiregistrationv1.APIService) {
	v.mu.Lock()
	old, had := v.all[name]
	if delete(v.all, name); s != nil {
		v.all[name] = s
	}
	f := v.listen
	v.mu.Unlock()
	switch {
	case f == nil:
	case s == nil:
		f(old, nil)
	case had:
		f(old, s)
	default:
		f(nil, s)
	}
}

// backend is a remote server.
type backend struct {
	*httptest.Server
	asked  atomic.Int32
	answer atomic.Pointer[http.HandlerFunc]
}

func newBackend(t *testing.T, answer http.HandlerFunc) *backend {
	b := &backend{}
	b.answer.Store(&answer)
	b.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Add(1)
		(*b.answer.Load())(w, r)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Certificate().Raw})
}

func remoteService(available bool) *apiregistrationv1.APIService {
	s := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: kinds.APIServiceName(gv)}}
	s.Spec = apiregistrationv1.APIServiceSpec{
		Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: 2000, VersionPriority: 10, InsecureSkipTLSVerify: true,
		Service: &apiregistrationv1.ServiceReference{Namespace: "n", Name: "s", Port: ptr.To[int32](443)},
	}
	if available {
		kinds.SetAPIServiceCondition(s, apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue})
	}
	return s
}

type world struct {
	*Server
	view  *view
	clock *clocktesting.FakeClock
}

// newWorld is a server whose remotes all resolve to one backend.
func newWorld(t *testing.T, b *backend) *world {
	w := &world{view: &view{all: map[string]*apiregistrationv1.APIService{}}, clock: clocktesting.NewFakeClock(time.Unix(1, 0))}
	w.Server = New(Config{
		Registry: kinds.Registry(), View: w.view, Clock: w.clock, Log: slog.New(slog.DiscardHandler),
		TLS: func() *tls.Config { return &tls.Config{} },
		Resolve: func(namespace, name string, port int32) (string, error) {
			if b == nil {
				return "", errors.New("nobody")
			}
			return b.Listener.Addr().String(), nil
		},
	})
	return w
}

// run follows APIServices until the test ends.
func (w *world) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// until waits for a state.
func (w *world) until(t *testing.T, what string, good func(*State) bool) {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for {
		st := w.State()
		if good(st) {
			return
		}
		select {
		case <-st.Ended():
		case <-late.C:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func freshness(st *State) string {
	r := st.Remotes()[gv]
	if r == nil || r.Entry() == nil {
		return ""
	}
	return fmt.Sprint(r.Entry().Freshness, " ", len(r.Entry().Resources))
}

const legacyList = `{"groupVersion":"example.com/v1","resources":[{"name":"flunders/scale","namespaced":true,"group":"autoscaling","version":"v1","kind":"Scale","verbs":["get"]},{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder","verbs":["list","delete"]},{"name":"fischers","singularName":"fischer","kind":"Fischer","verbs":["list"]}]}`

func legacy(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/apis/example.com/v1" {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, legacyList)
}

// A nil server, and one without remotes, are of no consequence.
func TestNoRemotes(t *testing.T) {
	var none *Server
	if none.Remote(gv) != nil || none.State().Remotes() != nil || none.State().Ended() != nil || len(none.State().V3()) != 0 {
		t.Error("a nil server knows something")
	}
	if p := none.State().Priority(schema.GroupVersion{Group: "apps", Version: "v1"}); p.Group != 17800 {
		t.Errorf("%+v", p)
	}
	w := newWorld(t, nil)
	if n := testing.AllocsPerRun(100, func() { w.Remote(gv) }); n != 0 {
		t.Errorf("%v allocations to find out that a group-version is not remote", n)
	}
}

// A remote comes with its APIService, is asked when it is available and each
// minute, and goes with it.
func TestRemoteComesAndGoes(t *testing.T) {
	b := newBackend(t, legacy)
	w := newWorld(t, b)
	w.run(t)
	w.view.set("v1.example.com", remoteService(false))
	w.until(t, "it is stale", func(st *State) bool { return freshness(st) == "Stale 0" })
	if w.Remote(gv) == nil || w.Remote(gv).Available() || b.asked.Load() != 0 {
		t.Errorf("asked %d times while it is not available", b.asked.Load())
	}
	w.view.set("v1.example.com", remoteService(true))
	w.until(t, "it is current", func(st *State) bool { return freshness(st) == "Current 2" && st.Remotes()[gv].Available() })
	broken := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	b.answer.Store(&broken)
	for !w.clock.HasWaiters() { // it waits for the minute to pass
		runtime.Gosched()
	}
	w.clock.Step(refresh)
	w.until(t, "it is stale again", func(st *State) bool { return freshness(st) == "Stale 0" })
	w.view.set("v1.example.com", nil)
	w.until(t, "it is gone", func(st *State) bool { return len(st.Remotes()) == 0 })
}

// Priorities are those of APIServices, where they have other than the usual.
func TestPriority(t *testing.T) {
	w := newWorld(t, nil)
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	local := &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1.apps"}}
	local.Spec = apiregistrationv1.APIServiceSpec{Group: "apps", Version: "v1", GroupPriorityMinimum: 5, VersionPriority: 7}
	w.view.set("v1.apps", local)
	w.view.set("v1.example.com", remoteService(false))
	ctx, cancel := context.WithCancel(t.Context())
	defer w.group.Wait()
	defer cancel()
	w.Sync(ctx)
	st := w.State()
	for gv, want := range map[schema.GroupVersion]kinds.Priority{
		apps: {Group: 5, Version: 7}, gv: {Group: 2000, Version: 10},
		{Group: "batch", Version: "v1"}: {Group: 17400, Version: 15}, {Group: "x.example.com", Version: "v1"}: kinds.DefinedPriority,
	} {
		if got := st.Priority(gv); got != want {
			t.Errorf("%v: %+v, want %+v", gv, got, want)
		}
	}
	if !plain(&apiregistrationv1.APIService{Spec: apiregistrationv1.APIServiceSpec{Group: "apps", Version: "v1", GroupPriorityMinimum: 17800, VersionPriority: 15}}) || plain(local) {
		t.Error("what is usual is not")
	}
}

// The two forms in which servers say what they serve.
func TestDiscover(t *testing.T) {
	aggregated := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/apis" {
				w.Header().Set("Content-Type", aggregatedMedia)
				fmt.Fprint(w, body)
				return
			}
			http.NotFound(w, r)
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // resources, or an error
	}{
		{"legacy", legacy, "flunders:Namespaced:example.com/v1/Flunder[scale autoscaling/v1/Scale] fischers:Cluster:example.com/v1/Fischer[]"},
		{"aggregated", aggregated(`{"items":[{"metadata":{"name":"example.com"},"versions":[{"version":"v2"},{"version":"v1","resources":[{"resource":"flunders","scope":"Namespaced","subresources":[{"subresource":"status"}]}]}]}]}`), "flunders:Namespaced://[status //]"},
		{"another group alone", aggregated(`{"items":[{"metadata":{"name":"apps"},"versions":[{"version":"v1","resources":[{"resource":"deployments"}]}]}]}`), ""},
		{"garbage", aggregated(`{"items":[17]}`), "decode discovery"},
		{"garbage in the old form", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "[") }, "decode discovery"},
		{"refused", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }, "failed to download legacy discovery for /apis/example.com/v1: 403"},
		{"unavailable", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, "returned non-success response code: 503"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for _, err := w.Write(make([]byte, 1<<20)); err == nil; _, err = w.Write(make([]byte, 1<<20)) {
			}
		}, "is larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBackend(t, c.answer)
			r := newWorld(t, b).newRemote(remoteService(true), nil)
			defer r.close()
			entry, err := r.discover(t.Context())
			if err != nil {
				if c.want == "" || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			if got := shown(entry); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func shown(e *apidiscoveryv2.APIVersionDiscovery) string {
	kind := func(k *metav1.GroupVersionKind) string { return k.Group + "/" + k.Version + "/" + k.Kind }
	var out []string
	for _, r := range e.Resources {
		var subs []string
		for _, s := range r.Subresources {
			subs = append(subs, s.Subresource+" "+kind(s.ResponseKind))
		}
		out = append(out, fmt.Sprintf("%s:%s:%s%v", r.Resource, r.Scope, kind(r.ResponseKind), subs))
	}
	return strings.Join(out, " ")
}

// A probe is good when one attempt of five is; what it says otherwise is
// Kubernetes'.
func TestProbe(t *testing.T) {
	b := newBackend(t, legacy)
	w := newWorld(t, b)
	s := remoteService(false)
	if err := w.Probe(t.Context(), s); err != nil {
		t.Error(err)
	}
	var n atomic.Int32
	once := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) != 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	// Anew: late attempts of the probe before would be counted.
	b = newBackend(t, once)
	w = newWorld(t, b)
	if err := w.Probe(t.Context(), s); err != nil {
		t.Error(err)
	}
	bad := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Remote-User") != "system:kube-aggregator" || r.Header.Get("X-Remote-Group") != "system:masters" {
			t.Errorf("asked as %v", r.Header)
		}
		http.Redirect(w, r, "https://192.0.2.1/", http.StatusMultipleChoices)
	})
	b.answer.Store(&bad)
	want := fmt.Sprintf("bad status from https://%s/apis/example.com/v1: 300", b.Listener.Addr())
	if err := w.Probe(t.Context(), s); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	s.Spec.InsecureSkipTLSVerify, s.Spec.CABundle = false, b.bundle()
	if err := w.Probe(t.Context(), s); err == nil || !strings.Contains(err.Error(), "certificate is valid for") {
		t.Errorf("a server with another name: %v", err)
	}
	s.Spec.CABundle = []byte("abc")
	if err := w.Probe(t.Context(), s); err == nil || !strings.HasPrefix(err.Error(), "unable to load root certificates") {
		t.Errorf("no bundle: %v", err)
	}
}

// What a server describes is taken without what is not its group-version's.
func TestDescribe(t *testing.T) {
	var v3 atomic.Bool
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/openapi/v3" && v3.Load():
			fmt.Fprint(w, `{"paths":{"apis/example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/example.com/v1?hash=1"},"apis/apps/v1":{"serverRelativeURL":"/stolen"}}}`)
		case r.URL.Path == "/openapi/v2":
			if w.Header().Set("Etag", `"1"`); r.Header.Get("If-None-Match") == `"1"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, `{"swagger":"2.0","info":{"title":"x","version":"v1"},"paths":{"/apis/apps/v1/stolen":{},"/apis/example.com/v1/flunders":{"get":{"operationId":"a","responses":{"200":{"description":"OK"}}}}},"definitions":{}}`)
		default:
			http.NotFound(w, r)
		}
	})
	r := newWorld(t, b).newRemote(remoteService(true), nil)
	docs, err := r.describe(t.Context())
	if err != nil || docs.v3 != "" || docs.converted == nil || len(docs.v2.Paths.Paths) != 1 {
		t.Fatalf("%+v, %v", docs, err)
	}
	r.docs = docs
	if again, err := r.describe(t.Context()); again != nil || err != nil {
		t.Errorf("not at rest: %+v, %v", again, err)
	}
	v3.Store(true)
	docs, err = r.describe(t.Context())
	if err != nil || docs.v3 != "/openapi/v3/apis/example.com/v1?hash=1" || docs.converted != nil {
		t.Errorf("%+v, %v", docs, err)
	}
}

func FuzzFiltered(f *testing.F) {
	f.Add([]byte(`{"swagger":"2.0","info":{"title":"x","version":"v1"},"paths":{"/apis/example.com/v1/flunders":{"get":{"responses":{"200":{"description":"OK"}}}}}}`))
	f.Add([]byte(`{"paths":{"/apis/example.com/v1/x":null},"definitions":{"a":{"$ref":"#/definitions/a"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := filtered(body, "/apis/example.com/v1/")
		if err != nil || s == nil {
			return
		}
		for path := range s.Paths.Paths {
			if !strings.HasPrefix(path, "/apis/example.com/v1/") {
				t.Errorf("path %q", path)
			}
		}
		convert(s)
	})
}

func FuzzDiscovery(f *testing.F) {
	f.Add([]byte(legacyList))
	f.Add([]byte(`{"items":[{"metadata":{"name":"example.com"},"versions":[{"version":"v1","resources":[{"resource":"a"}]}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []func([]byte, schema.GroupVersion) (*apidiscoveryv2.APIVersionDiscovery, error){aggregatedEntry, legacyEntry} {
			e, err := read(body, gv)
			if err != nil {
				continue
			}
			if e.Version != gv.Version {
				t.Errorf("version %q", e.Version)
			}
			for _, r := range e.Resources {
				if r.ResponseKind == nil {
					t.Errorf("%s has no kind", r.Resource)
				}
			}
		}
	})
}

// Namespaces are emptied of what is namespaced and can be deleted, by who may.
func TestContents(t *testing.T) {
	var log bytes.Buffer
	left := `{"metadata":{"name":"a","finalizers":["example.com/f"]}}`
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/apis/example.com/v1" {
			legacy(w, r)
			return
		}
		if !strings.Contains(r.URL.Path, "flunders") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(&log, "%s %s as %s\n", r.Method, r.URL.Path, r.Header.Get("X-Remote-User"))
		fmt.Fprintf(w, `{"items":[%s]}`, left)
	})
	w := newWorld(t, b)
	w.run(t)
	w.view.set("v1.example.com", remoteService(true))
	w.until(t, "it is current", func(st *State) bool { return freshness(st) == "Current 2" })
	allowed := authorizer.DecisionAllow
	c := &Contents{Server: w.Server, As: &user.DefaultInfo{Name: "emptier"}, Authorizer: authorizer.AuthorizerFunc(
		func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return allowed, "", nil
		})}
	kindsLeft, finalizers, err := c.Empty(t.Context(), "ns")
	if err != nil || kindsLeft["flunders.example.com"] != 1 || finalizers["example.com/f"] != 1 || len(c.Unknown()) != 0 {
		t.Errorf("%v, %v, %v, %v", kindsLeft, finalizers, err, c.Unknown())
	}
	const at = "/apis/example.com/v1/namespaces/ns/flunders"
	if want := "GET " + at + " as emptier\nDELETE " + at + "/a as emptier\nGET " + at + " as emptier\n"; log.String() != want {
		t.Errorf("asked\n%s", log.String())
	}
	allowed = authorizer.DecisionNoOpinion
	if _, _, err := c.Empty(t.Context(), "ns"); err == nil || !strings.Contains(err.Error(), `User "emptier" cannot list resource "flunders"`) {
		t.Errorf("not allowed: %v", err)
	}
	w.view.set("v1.example.com", remoteService(false))
	w.until(t, "it is stale", func(st *State) bool { return freshness(st) == "Stale 0" })
	if u := c.Unknown(); len(u) != 1 || u[0] != "example.com/v1: stale GroupVersion discovery: example.com/v1" {
		t.Errorf("%v", u)
	}
}
