package http_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/fairness"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// sink is a response that nobody reads.
type sink struct {
	header http.Header
	code   int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(code int)        { s.code = code }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

// benchServer is a server without network, over a store in memory that does
// not watch for writes to shared objects.
func benchServer(b *testing.B) *apihttp.Server { return limitedServer(b, nil) }

// limitedServer is benchServer behind a limiter, if one is made.
func limitedServer(b *testing.B, limiter func(*request.Handler) fairness.Limiter) *apihttp.Server {
	b.Helper()
	st, err := store.Open(b.Context(), memory.New(memory.Options{}), kinds.Registry(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() })
	h := requesttest.Handler(b, func(c *request.Config) {
		c.Store = st
		c.Authorizer = authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionAllow, "", nil
		})
	})
	c := apihttp.Config{Requests: h, Authenticator: byToken, Version: version.Info{}}
	if limiter != nil {
		c.Limiter = limiter(h)
	}
	s, err := apihttp.New(c)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func serve(b *testing.B, s *apihttp.Server, method, path, body string, want int) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer admin")
	r.Header.Set("Content-Type", "application/json")
	w := &sink{header: http.Header{}}
	s.ServeHTTP(w, r)
	if w.code != want {
		b.Fatalf("%s %s: %d", method, path, w.code)
	}
}

func BenchmarkCreateConfigMap(b *testing.B) {
	s := benchServer(b)
	pad := strings.Repeat("x", 400)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c%d","namespace":"default"},"data":{"k":"%s"}}`, i, pad)
		serve(b, s, "POST", configMaps, body, http.StatusCreated)
	}
}

func BenchmarkGetConfigMap(b *testing.B) {
	s := benchServer(b)
	serve(b, s, "POST", configMaps, `{"metadata":{"name":"a"},"data":{"k":"`+strings.Repeat("x", 400)+`"}}`, http.StatusCreated)
	b.ReportAllocs()
	for b.Loop() {
		serve(b, s, "GET", configMaps+"/a", "", http.StatusOK)
	}
}

// Priority and fairness must cost the exempt next to nothing.
func BenchmarkGetConfigMapFairly(b *testing.B) {
	for _, who := range []string{"admin", "u"} {
		b.Run(who, func(b *testing.B) {
			s := limitedServer(b, func(h *request.Handler) fairness.Limiter { return newFilter(b, h, 600) })
			serve(b, s, "POST", configMaps, `{"metadata":{"name":"a"},"data":{"k":"`+strings.Repeat("x", 400)+`"}}`, http.StatusCreated)
			r := httptest.NewRequest("GET", configMaps+"/a", nil)
			b.ReportAllocs()
			for b.Loop() {
				r.Header.Set("Authorization", "Bearer "+who)
				w := &sink{header: http.Header{}}
				s.ServeHTTP(w, r)
				if w.code != http.StatusOK {
					b.Fatal(w.code)
				}
			}
		})
	}
}

const benchPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s","labels":{"app":"web","pod-template-hash":"5d4f8c7b9"}},
"spec":{"containers":[{"name":"c","image":"example.com/web:1","ports":[{"containerPort":8080}],"env":[{"name":"A","value":"b"}],
"resources":{"requests":{"cpu":"100m","memory":"64Mi"}},"readinessProbe":{"httpGet":{"path":"/","port":8080}},
"volumeMounts":[{"name":"v","mountPath":"/v"}]}],"volumes":[{"name":"v","emptyDir":{}}]}}`

func BenchmarkCreatePod(b *testing.B) {
	s := benchServer(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		serve(b, s, "POST", "/api/v1/namespaces/default/pods", fmt.Sprintf(benchPod, fmt.Sprint("p", i)), http.StatusCreated)
	}
}

func BenchmarkPatchPodStatus(b *testing.B) {
	s := benchServer(b)
	serve(b, s, "POST", "/api/v1/namespaces/default/pods", fmt.Sprintf(benchPod, "p"), http.StatusCreated)
	benchPatch(b, s, "/api/v1/namespaces/default/pods/p/status", "strategic-merge-patch",
		`{"status":{"phase":"Running","message":"%d","conditions":[{"type":"Ready","status":"True"}]}}`)
}

func BenchmarkPatchConfigMap(b *testing.B) {
	s := benchServer(b)
	serve(b, s, "POST", configMaps, `{"metadata":{"name":"a"},"data":{"k":"`+strings.Repeat("x", 400)+`"}}`, http.StatusCreated)
	benchPatch(b, s, configMaps+"/a", "merge-patch", `{"data":{"patched":"%d"}}`)
}

func BenchmarkRenewLease(b *testing.B) {
	s := benchServer(b)
	const leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	serve(b, s, "POST", leases, `{"metadata":{"name":"n"},"spec":{"holderIdentity":"n","leaseDurationSeconds":40,"renewTime":"2026-01-01T00:00:00.000000Z"}}`, http.StatusCreated)
	benchPatch(b, s, leases+"/n", "merge-patch", `{"spec":{"renewTime":"2026-01-01T00:00:01.%06dZ"}}`)
}

// benchPatch makes patches of a text that has their number in it.
func benchPatch(b *testing.B, s *apihttp.Server, path, kind, text string) {
	b.Helper()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r := httptest.NewRequest("PATCH", path, strings.NewReader(fmt.Sprintf(text, i)))
		r.Header.Set("Authorization", "Bearer admin")
		r.Header.Set("Content-Type", "application/"+kind+"+json")
		w := &sink{header: http.Header{}}
		s.ServeHTTP(w, r)
		if w.code != http.StatusOK {
			b.Fatal(w.code)
		}
	}
}
