// Package health answers for checks of health, together or one by one, as the
// paths /healthz, /livez and /readyz of Kubernetes' components do ("Kubernetes
// API health endpoints").
package health

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Check is one condition of health.
type Check struct {
	// Name is its path below that of all checks.
	Name string
	// Check answers nil when all is well.
	Check func(r *http.Request) error
}

// Ping is well when anything is.
var Ping = Check{Name: "ping", Check: func(*http.Request) error { return nil }}

// Serve answers for all checks of a root ("healthz"), but those that the query
// excludes; with ?verbose for each by name. Why one fails is logged, not shown.
// What they say is counted in seen, which may be nil.
func Serve(w http.ResponseWriter, r *http.Request, root string, checks []Check, seen *Results, log *slog.Logger) {
	plain(w)
	q := r.URL.Query()
	exclude := map[string]bool{}
	for _, x := range q["exclude"] {
		exclude[x] = true
	}
	var report strings.Builder
	failed := 0
	for _, c := range checks {
		if exclude[c.Name] {
			delete(exclude, c.Name)
			fmt.Fprintf(&report, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		err := c.Check(r)
		seen.note(root, c.Name, err)
		if err != nil {
			failed++
			log.Warn("health check failed", "check", c.Name, "error", err)
			fmt.Fprintf(&report, "[-]%s failed: reason withheld\n", c.Name)
			continue
		}
		fmt.Fprintf(&report, "[+]%s ok\n", c.Name)
	}
	if len(exclude) > 0 {
		var unknown []string
		for _, x := range slices.Sorted(maps.Keys(exclude)) {
			unknown = append(unknown, strconv.Quote(x))
		}
		fmt.Fprintf(&report, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(unknown, ","))
	}
	switch _, verbose := q["verbose"]; {
	case failed > 0:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s%s check failed\n", report.String(), root)
	case verbose:
		fmt.Fprintf(w, "%s%s check passed\n", report.String(), root)
	default:
		fmt.Fprint(w, "ok")
	}
}

// ServeOne answers for one check, and says why it fails.
func ServeOne(w http.ResponseWriter, r *http.Request, c Check) {
	plain(w)
	if err := c.Check(r); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "internal server error: %v\n", err)
		return
	}
	fmt.Fprint(w, "ok")
}

func plain(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
