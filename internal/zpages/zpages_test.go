package zpages

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	flagz "k8s.io/apiserver/pkg/server/flagz/api/v1beta1"
	statusz "k8s.io/apiserver/pkg/server/statusz/api/v1beta1"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func component() *Component {
	return &Component{
		Name: "apiserver", Clock: testingclock.NewFakePassiveClock(began.Add(26*time.Hour + 3*time.Minute + 4*time.Second)), Started: began,
		Version: "1.37", Emulates: "1.37",
		Paths: func() []string {
			return []string{"/", "/api", "/api/v1", "/apis/apps", "/readyz/ping", "/readyz", "/openapi/v2", "/openid/v1/jwks", "/.well-known/openid-configuration", "/flagz"}
		},
		Flags: map[string]string{"v": "2", "listen": "0.0.0.0:6443"},
	}
}

func ask(h http.Handler, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestText(t *testing.T) {
	for name, c := range map[string]struct {
		page http.Handler
		want string
	}{
		"statusz": {component().Status(), "\napiserver statusz\n" + warning + "\n\nStarted: Fri Jan  2 03:04:05 UTC 2026\nUp: 26 hr 03 min 04 sec\nGo version: " + runtime.Version() +
			"\nBinary version: 1.37\nEmulation version: 1.37\nPaths: /flagz /readyz\n"},
		"flagz": {component().Parameters(), "\napiserver flagz\n" + warning + "\nlisten=0.0.0.0:6443\nv=2\n"},
	} {
		w := ask(c.page, "")
		if w.Code != 200 || w.Body.String() != c.want || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %d %s\n%s", name, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
}

// "z-pages", structured responses: by the whole name of the kind; text is for who
// asks for no kind.
func TestNegotiation(t *testing.T) {
	const known = ";v=v1beta1;g=config.k8s.io;as=Statusz"
	for accept, want := range map[string]string{
		"":                             "text/plain; charset=utf-8",
		"  ":                           "text/plain; charset=utf-8",
		"*/*":                          "text/plain; charset=utf-8",
		"text/*":                       "text/plain; charset=utf-8",
		"text/html, text/plain;q=0.5":  "text/plain; charset=utf-8",
		"application/json" + known:     "application/json;g=config.k8s.io;v=v1beta1;as=Statusz",
		"application/yaml" + known:     "application/yaml;g=config.k8s.io;v=v1beta1;as=Statusz",
		"*/*" + known:                  "application/json;g=config.k8s.io;v=v1beta1;as=Statusz",
		"text/plain" + known + ", */*": "text/plain; charset=utf-8",
		"application/json, text/plain": "text/plain; charset=utf-8",
		"application/json":             "",
		"text/plain" + known:           "",
		"application/vnd.kubernetes.protobuf" + known:            "",
		"application/json" + known + ";stream=watch":             "",
		"application/json;v=v1;g=config.k8s.io;as=Statusz":       "",
		"application/json;v=v1beta1;g=config.k8s.io;as=Flagz":    "",
		"application/json;v=v1beta1;g=apps;as=Statusz":           "",
		"application/json;v=v1alpha1;g=config.k8s.io;as=Statusz": "application/json;g=config.k8s.io;v=v1alpha1;as=Statusz",
	} {
		w := ask(component().Status(), accept)
		if want == "" {
			const refusal = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"only the following media types are accepted: application/json, application/yaml, text/plain","reason":"NotAcceptable","code":406}`
			if w.Code != 406 || w.Body.String() != refusal+"\n" {
				t.Errorf("%q: %d %s", accept, w.Code, w.Body)
			}
			continue
		}
		if got := w.Header().Get("Content-Type"); w.Code != 200 || got != want {
			t.Errorf("%q: %d %s, want %s", accept, w.Code, got, want)
		}
		if old := strings.Contains(accept, "v1alpha1"); old != (w.Header().Get("Warning") == `299 - "This version of the statusz endpoint is deprecated. Please use a newer version."`) {
			t.Errorf("%q warns %q", accept, w.Header().Get("Warning"))
		}
	}
}

func TestStructured(t *testing.T) {
	var s statusz.Statusz
	if err := json.Unmarshal(ask(component().Status(), "application/json;v=v1beta1;g=config.k8s.io;as=Statusz").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.APIVersion != "config.k8s.io/v1beta1" || s.Kind != "Statusz" || s.Name != "apiserver" || !s.StartTime.Time.Equal(began) || s.UptimeSeconds != 93784 ||
		s.GoVersion != runtime.Version() || s.BinaryVersion != "1.37" || s.EmulationVersion != "1.37" || !slices.Equal(s.Paths, []string{"/flagz", "/readyz"}) {
		t.Errorf("%+v", s)
	}
	var f flagz.Flagz
	if err := yaml.Unmarshal(ask(component().Parameters(), "application/yaml;v=v1alpha1;g=config.k8s.io;as=Flagz").Body.Bytes(), &f); err != nil {
		t.Fatal(err)
	}
	if f.APIVersion != "config.k8s.io/v1alpha1" || f.Kind != "Flagz" || f.Name != "apiserver" || len(f.Flags) != 2 || f.Flags["listen"] != "0.0.0.0:6443" {
		t.Errorf("%+v", f)
	}
}
