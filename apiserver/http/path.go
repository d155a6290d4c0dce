package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api/openapi"
	"hansa.dev/hansa/internal/health"
)

// Check is one condition of health.
type Check struct {
	health.Check
	// ReadyOnly keeps a failure from ending the process: it is about being
	// ready, not about being alive.
	ReadyOnly bool
}

// servePath answers for the server's own paths.
func (s *Server) servePath(w *response, r *http.Request) {
	path, verb := r.URL.Path, strings.ToLower(r.Method)
	u, err := s.authenticate(r)
	attributes := func() *authorizer.AttributesRecord { return &authorizer.AttributesRecord{Verb: verb, Path: path} }
	if s.Audit != nil {
		r = s.note(w, r, attributes(), err != nil, s.Config.Clock.Now(), u)
	}
	if err == nil {
		u, err = s.actAs(r, u, attributes, w.audit)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	c := &pathCall{Server: s, w: w, r: r, user: u}
	if strings.HasPrefix(r.URL.Path, profiles) {
		c.answer() // it may last
		return
	}
	s.inTurn(r.Context(), w, pathTurn{c})
}

// pathCall is one request for a path of the server's own on its way.
type pathCall struct {
	*Server
	w    *response
	r    *http.Request
	user user.Info
}

// answer answers a request whose turn it is.
func (s *pathCall) answer() {
	w, r, path := s.w, s.r, s.r.URL.Path
	if err := s.AuthorizePath(r.Context(), s.user, strings.ToLower(r.Method), path, w.audit); err != nil {
		s.fail(w, r, err)
		return
	}
	if remote, limit := s.remotePath(path); remote != nil {
		s.passOn(remote, limit)
		return
	}
	handler := s.pathHandler(path)
	switch err := s.refusedPath(path, r.Method, r.Header.Get("Accept"), handler != nil); {
	case errors.Is(err, errNoPath):
		notFound(w)
	case err != nil:
		s.fail(w, r, err)
	default:
		handler(w, r)
	}
}

func (s *Server) pathHandler(path string) http.HandlerFunc {
	if h := s.Paths[path]; h != nil {
		return h.ServeHTTP
	}
	for root, h := range s.Paths {
		if strings.HasSuffix(root, "/") && strings.HasPrefix(path, root) {
			return h.ServeHTTP
		}
	}
	path = strings.TrimSuffix(path, "/")
	switch path {
	case "":
		return s.index
	case "/version":
		return s.version
	case "/metrics":
		return s.metrics.handler().ServeHTTP
	case "/metrics/slis":
		return s.seen.Handler().ServeHTTP
	case "/openapi/v2":
		if s.OpenAPI != nil {
			return s.openAPIv2
		}
		return nil
	}
	root, name, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch root {
	case "healthz", "livez", "readyz":
		return func(w http.ResponseWriter, r *http.Request) { s.health(w, r, root, name) }
	case "api", "apis":
		if s.discovered().has(path) {
			return func(w http.ResponseWriter, r *http.Request) { s.serveDiscovery(w, r, path) }
		}
	case "openapi":
		if rest, ok := strings.CutPrefix(path, "/openapi/v3"); ok && s.OpenAPI != nil {
			return func(w http.ResponseWriter, r *http.Request) { s.openAPIv3(w, r, strings.TrimPrefix(rest, "/")) }
		}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Config.Version) }

// index lists the paths that there are.
func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string][]string{"paths": s.Listed()})
}

// Listed are the paths of the index, sorted.
func (s *Server) Listed() []string {
	paths := s.discovered().paths()
	for _, root := range []string{"/healthz", "/livez", "/readyz"} {
		paths = append(paths, root)
		for _, c := range s.checks(root[1:]) {
			paths = append(paths, root+"/"+c.Name)
		}
	}
	paths = append(paths, "/metrics", "/metrics/slis", "/version")
	if s.OpenAPI != nil {
		paths = append(paths, "/openapi/v2", "/openapi/v3")
	}
	for path := range s.Paths {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	return paths
}

func (s *Server) checks(root string) []health.Check {
	list := []health.Check{health.Ping, {Name: "etcd", Check: func(r *http.Request) error { return s.Store.Ready(r.Context()) }}}
	for _, c := range s.Checks {
		if root == "readyz" || !c.ReadyOnly {
			list = append(list, c.Check)
		}
	}
	if root == "readyz" {
		list = append(list, health.Check{Name: "shutdown", Check: func(*http.Request) error {
			if s.Stopping() {
				return fmt.Errorf("process is shutting down")
			}
			return nil
		}})
	}
	return list
}

// health answers for all checks, or for the one named.
func (s *Server) health(w http.ResponseWriter, r *http.Request, root, name string) {
	checks := s.checks(root)
	if name == "" {
		health.Serve(w, r, root, checks, s.seen, s.Logger)
		return
	}
	for _, c := range checks {
		if c.Name == name {
			health.ServeOne(w, r, c)
			return
		}
	}
	notFound(w)
}

// openAPIv2 answers in JSON or in protobuf, compressed for all who take that.
func (s *Server) openAPIv2(w http.ResponseWriter, r *http.Request) {
	const proto = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	for _, a := range s.accepts.parse(r.Header.Get("Accept")) {
		switch {
		case a.media == "application/json" || a.anyMedia:
			s.document(w, r, s.OpenAPI.V2JSON(), "application/json")
			return
		case a.media == proto, a.media == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf":
			s.document(w, r, s.OpenAPI.V2Proto(), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
			return
		}
	}
	w.WriteHeader(http.StatusNotAcceptable)
}

func (s *Server) openAPIv3(w http.ResponseWriter, r *http.Request, name string) {
	docs, others := s.OpenAPI.V3(), s.Aggregation.State()
	if name == "" {
		type item struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		}
		paths := map[string]item{}
		for path, doc := range docs {
			paths[path] = item{"/openapi/v3/" + path + "?hash=" + doc.Hash}
		}
		for path, url := range others.V3() {
			paths[path] = item{url}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"paths": paths})
		return
	}
	doc, ok := docs[name]
	if _, converted := others.Described(name); converted != nil {
		doc, ok = *converted, true
	}
	if !ok {
		notFound(w)
		return
	}
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != doc.Hash {
			http.Redirect(w, r, r.URL.Path+"?hash="+doc.Hash, http.StatusMovedPermanently)
			return
		}
		// What is asked for by its hash never changes.
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", s.Config.Clock.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	s.document(w, r, doc, "application/json")
}

func (s *Server) document(w http.ResponseWriter, r *http.Request, doc openapi.Document, contentType string) {
	h := w.Header()
	etag := `"` + doc.Hash + `"`
	h.Set("Etag", etag)
	h.Set("Vary", "Accept-Encoding, Accept")
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", contentType)
	if takesGzip(r) {
		data, err := doc.Gzip()
		if err != nil {
			s.fail(w, r, apierrors.NewInternalError(err))
			return
		}
		h.Set("Content-Encoding", "gzip")
		_, _ = w.Write(data)
		return
	}
	plain, err := doc.Open()
	if err != nil {
		s.fail(w, r, apierrors.NewInternalError(err))
		return
	}
	defer plain.Close()
	copyAll(w, plain)
}
