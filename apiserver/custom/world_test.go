package custom_test

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

// world is an API server in memory, with the loop that keeps definitions. Nothing
// in it runs by itself.
type world struct {
	t        testing.TB
	engine   store.Engine
	store    *store.Store
	registry *api.Registry
	requests *request.Handler
	http     *apihttp.Server
	defined  *custom.Server
	loop     *definition.Loop
}

// newWorld makes a world with the namespace "default" and the given definitions, in
// YAML or JSON, served.
func newWorld(t testing.TB, definitions ...string) *world {
	t.Helper()
	return worldOver(t, memory.New(memory.Options{}), store.Options{DetectMutations: true}, definitions...)
}

// worldOver is newWorld over an engine, which may have something in it.
func worldOver(t testing.TB, e store.Engine, opts store.Options, definitions ...string) *world {
	t.Helper()
	w := &world{t: t, engine: e, registry: kinds.New()}
	var err error
	must := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.store, err = store.Open(t.Context(), e, w.registry, opts)
	must()
	t.Cleanup(func() { _ = w.store.Close() })
	log := slog.New(slog.DiscardHandler)
	w.defined, err = custom.NewServer(w.registry, w.store, w.store.View(), webhook.NewDefaultServiceResolver(), clock.RealClock{}, log)
	must()
	err = w.defined.Sync(t.Context())
	must()
	allow := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	w.requests, err = request.New(request.Config{Store: w.store, Registry: w.registry, Authorizer: allow, Converter: requesttest.Converter, Rules: custom.Rules(), Logger: log})
	must()
	asAdmin := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: requesttest.Admin}, true, nil
	})
	w.http, err = apihttp.New(apihttp.Config{Requests: w.requests, Authenticator: asAdmin, Version: version.Info{}, OpenAPI: documents(w.registry), Logger: log})
	must()
	w.loop = definition.New(w.client())
	w.do("POST", "/api/v1/namespaces", `{"metadata":{"name":"default"}}`)
	for _, d := range definitions {
		w.define(d)
	}
	return w
}

func documents(reg *api.Registry) *apihttp.OpenAPI {
	d := openapi.NewDefined(reg, nil)
	return &apihttp.OpenAPI{V2JSON: d.V2JSON, V2Proto: d.V2Proto, V3: d.V3}
}

// client is a client of the same process.
func (w *world) client() *direct.Client { return direct.New(w.requests, requesttest.Admin, "test") }

// define creates a definition and has it established.
func (w *world) define(definition string) {
	w.t.Helper()
	w.want(http.StatusCreated, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
	w.settle()
}

// settle lets the loop and the server do what there is to do.
func (w *world) settle() {
	w.t.Helper()
	row := w.registry.Must(apiextensionsv1.GroupName, "customresourcedefinitions")
	for range 100 {
		before := w.store.Revision()
		if err := w.defined.Sync(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		var names []string
		for obj := range w.store.View().List(row, "") {
			names = append(names, obj.GetName())
		}
		for _, name := range names {
			if _, err := w.loop.Step(w.t.Context(), api.Key{Name: name}, time.Now()); err != nil {
				w.t.Fatal(err)
			}
		}
		if w.store.Revision() == before {
			if err := w.defined.Sync(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
			return
		}
	}
	w.t.Fatal("definitions do not come to rest")
}

// answer is what a request gave.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// object is the answer as a tree.
func (a answer) object() map[string]any {
	var out map[string]any
	_ = json.Unmarshal(a.body, &out)
	return out
}

// status is the answer as a refusal.
func (a answer) status() metav1.Status {
	var out metav1.Status
	_ = json.Unmarshal(a.body, &out)
	return out
}

// do asks for something. A body is YAML or JSON; kind is the content type of
// patches and of bodies in other forms.
func (w *world) do(method, path, body string, kind ...string) answer {
	w.t.Helper()
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
	w.http.ServeHTTP(rec, r.WithContext(w.t.Context()))
	data, err := io.ReadAll(rec.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{code: rec.Code, header: rec.Header(), body: data}
}

// want is Do with the code that has to come of it.
func (w *world) want(code int, method, path, body string, kind ...string) answer {
	w.t.Helper()
	a := w.do(method, path, body, kind...)
	if a.code != code {
		w.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.code, code, a.body)
	}
	return a
}

// definitionOf is a definition of widgets.example.com, in one version v1 with a
// schema in YAML (or JSON) of the whole object, and more of that version.
func definitionOf(schema, more string) string {
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

// run lets the server and the loop run by themselves until the test ends. Settle
// is not to be called then.
func (w *world) run() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = w.defined.Run(ctx) })
	client := w.client()
	runner := &controller.Runner{
		Loop: w.loop, View: client.View(), Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler), Registry: w.registry,
	}
	parts.Go(func() { _ = runner.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
}

// until waits for something that follows from the definitions.
func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	woken := make(chan struct{}, 1)
	row := w.registry.Must(apiextensionsv1.GroupName, "customresourcedefinitions")
	defer w.store.View().Subscribe(row, func(_, _ api.Object) {
		select {
		case woken <- struct{}{}:
		default:
		}
	})()
	late := time.After(time.Minute)
	for {
		changed := w.registry.Changed()
		if condition() {
			return
		}
		select {
		case <-woken:
		case <-changed:
		case <-late:
			w.t.Fatalf("waited too long until %s", what)
		}
	}
}
