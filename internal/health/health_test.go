package health

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// "Kubernetes API health endpoints": all checks together, with ?verbose by name, but
// those that are excluded. Why one fails is said only where it is asked for alone.
func TestChecks(t *testing.T) {
	broken := Check{Name: "broken", Check: func(*http.Request) error { return errors.New("secret") }}
	checks, seen := []Check{Ping, broken}, NewResults()
	for query, want := range map[string]string{
		"":                         "500 [+]ping ok\n[-]broken failed: reason withheld\nlivez check failed\n",
		"exclude=broken":           "200 ok",
		"exclude=broken&verbose":   "200 [+]ping ok\n[+]broken excluded: ok\nlivez check passed\n",
		"exclude=z&exclude=a":      "500 [+]ping ok\n[-]broken failed: reason withheld\nwarn: some health checks cannot be excluded: no matches for \"a\",\"z\"\nlivez check failed\n",
		"exclude=broken&exclude=a": "200 ok",
	} {
		w := httptest.NewRecorder()
		Serve(w, httptest.NewRequest(http.MethodGet, "/livez?"+query, nil), "livez", checks, seen, slog.New(slog.DiscardHandler))
		if got := w.Result().Status[:4] + w.Body.String(); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	w := httptest.NewRecorder()
	seen.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	for _, line := range []string{
		`kubernetes_healthcheck{name="ping",type="livez"} 1`, `kubernetes_healthcheck{name="broken",type="livez"} 0`,
		`kubernetes_healthchecks_total{name="ping",status="success",type="livez"} 5`, `kubernetes_healthchecks_total{name="broken",status="error",type="livez"} 2`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no %s in\n%s", line, w.Body)
		}
	}
	for c, want := range map[*Check]string{&Ping: "ok", &broken: "internal server error: secret\n"} {
		w := httptest.NewRecorder()
		ServeOne(w, httptest.NewRequest(http.MethodGet, "/livez/"+c.Name, nil), *c)
		if got := w.Body.String(); got != want {
			t.Errorf("%s: %q, want %q", c.Name, got, want)
		}
	}
}
