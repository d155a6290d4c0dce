// Package customtest is an API server in memory, with the loop that keeps
// definitions, for tests of custom resources.
package customtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/apiserver/custom"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/definition"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// World is a server and what is around it. Nothing in it runs by itself.
type World struct {
	T        testing.TB
	Engine   store.Engine
	Store    *store.Store
	Registry *api.Registry
	Requests *request.Handler
	HTTP     *apihttp.Server
	Defined  *custom.Server
	loop     *definition.Loop
}

// New makes a world with the namespace "default" and the given definitions, in
// YAML or JSON, served.
func New(t testing.TB, definitions ...string) *World {
	t.Helper()
	return Over(t, memory.New(memory.Options{}), store.Options{DetectMutations: true}, definitions...)
}

// Over is New over an engine, which may have something in it.
func Over(t testing.TB, e store.Engine, opts store.Options, definitions ...string) *World {
	t.Helper()
	w := &World{T: t, Engine: e, Registry: kinds.New()}
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Store, err = store.Open(t.Context(), e, w.Registry, opts)
	must()
	t.Cleanup(func() { _ = w.Store.Close() })
	log := slog.New(slog.DiscardHandler)
	w.Defined, err = custom.NewServer(w.Registry, w.Store, w.Store.View(), webhook.NewDefaultServiceResolver(), log)
	must()
	err = w.Defined.Sync(t.Context())
	must()
	allow := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	w.Requests, err = request.New(request.Config{Store: w.Store, Registry: w.Registry, Authorizer: allow, Converter: requesttest.Converter, Rules: custom.Rules(), Logger: log})
	must()
	asAdmin := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: requesttest.Admin}, true, nil
	})
	w.HTTP, err = apihttp.New(apihttp.Config{Requests: w.Requests, Authenticator: asAdmin, Version: version.Info{}, OpenAPI: documents(w.Registry), Logger: log})
	must()
	w.loop = definition.New(w.Client())
	w.Do("POST", "/api/v1/namespaces", `{"metadata":{"name":"default"}}`)
	for _, d := range definitions {
		w.Define(d)
	}
	return w
}

func documents(reg *api.Registry) *apihttp.OpenAPI {
	d := openapi.NewDefined(reg)
	return &apihttp.OpenAPI{V2JSON: d.V2JSON, V2Proto: d.V2Proto, V3: d.V3}
}

// Client is a client of the same process.
func (w *World) Client() *direct.Client { return direct.New(w.Requests, requesttest.Admin, "test") }

// Define creates a definition and has it established.
func (w *World) Define(definition string) {
	w.T.Helper()
	w.Want(http.StatusCreated, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
	w.Settle()
}

// Settle lets the loop and the server do what there is to do.
func (w *World) Settle() {
	w.T.Helper()
	row := w.Registry.Must(apiextensionsv1.GroupName, "customresourcedefinitions")
	for range 100 {
		before := w.Store.Revision()
		if err := w.Defined.Sync(w.T.Context()); err != nil {
			w.T.Fatal(err)
		}
		var names []string
		for obj := range w.Store.View().List(row, "") {
			names = append(names, obj.GetName())
		}
		for _, name := range names {
			if _, err := w.loop.Step(w.T.Context(), api.Key{Name: name}, time.Now()); err != nil {
				w.T.Fatal(err)
			}
		}
		if w.Store.Revision() == before {
			if err := w.Defined.Sync(w.T.Context()); err != nil {
				w.T.Fatal(err)
			}
			return
		}
	}
	w.T.Fatal("definitions do not come to rest")
}

// Answer is what a request gave.
type Answer struct {
	Code   int
	Header http.Header
	Body   []byte
}

// Object is the answer as a tree.
func (a Answer) Object() map[string]any {
	var out map[string]any
	_ = json.Unmarshal(a.Body, &out)
	return out
}

// Status is the answer as a refusal.
func (a Answer) Status() metav1.Status {
	var out metav1.Status
	_ = json.Unmarshal(a.Body, &out)
	return out
}

// Do asks for something. A body is YAML or JSON; kind is the content type of
// patches and of bodies in other forms.
func (w *World) Do(method, path, body string, kind ...string) Answer {
	w.T.Helper()
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	p, query, _ := strings.Cut(path, "?")
	r.URL = &url.URL{Path: p, RawQuery: query}
	switch {
	case len(kind) > 0:
		r.Header.Set("Content-Type", kind[0])
	case strings.HasPrefix(strings.TrimSpace(body), "{"):
		r.Header.Set("Content-Type", "application/json")
	default:
		r.Header.Set("Content-Type", "application/yaml")
	}
	if len(kind) > 1 {
		r.Header.Set("Accept", kind[1])
	}
	rec := httptest.NewRecorder()
	w.HTTP.ServeHTTP(rec, r.WithContext(w.T.Context()))
	data, err := io.ReadAll(rec.Body)
	if err != nil {
		w.T.Fatal(err)
	}
	return Answer{Code: rec.Code, Header: rec.Header(), Body: data}
}

// Want is Do with the code that has to come of it.
func (w *World) Want(code int, method, path, body string, kind ...string) Answer {
	w.T.Helper()
	a := w.Do(method, path, body, kind...)
	if a.Code != code {
		w.T.Fatalf("%s %s: %d, want %d: %s", method, path, a.Code, code, a.Body)
	}
	return a
}

// Definition is a definition of widgets.example.com, in one version v1 with a
// schema in YAML (or JSON) of the whole object, and more of that version.
func Definition(schema, more string) string {
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
%s
    schema:
      openAPIV3Schema:
%s
`, indent(more, 4), indent(schema, 8))
}

func indent(text string, by int) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.Repeat(" ", by) + lines[i]
	}
	return strings.Join(lines, "\n")
}

// Run lets the server and the loop run by themselves until the test ends. Settle
// is not to be called then.
func (w *World) Run() {
	w.T.Helper()
	ctx, cancel := context.WithCancel(w.T.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = w.Defined.Run(ctx) })
	client := w.Client()
	runner := &controller.Runner{
		Loop: w.loop, View: client.View(), Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler), Registry: w.Registry,
	}
	parts.Go(func() { _ = runner.Run(ctx) })
	w.T.Cleanup(func() {
		cancel()
		parts.Wait()
	})
}

// Until waits for something that follows from the definitions.
func (w *World) Until(what string, condition func() bool) {
	w.T.Helper()
	woken := make(chan struct{}, 1)
	row := w.Registry.Must(apiextensionsv1.GroupName, "customresourcedefinitions")
	defer w.Store.View().Subscribe(row, func(_, _ api.Object) {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	late := time.After(time.Minute)
	for {
		changed := w.Registry.Changed()
		if condition() {
			return
		}
		select {
		case <-woken:
		case <-changed:
		case <-late:
			w.T.Fatalf("waited too long until %s", what)
		}
	}
}
