// Package server is the node API: logs, exec, attach and port-forward of the
// node's pods, what runs, what it uses. The API server passes kubectl's
// requests on to it; monitoring reads it directly.
//
// Who may ask is decided by the middleware that the composition root gives.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/internal/health"
	"hansa.dev/hansa/internal/zpages"
	hansaruntime "hansa.dev/hansa/runtime"
)

// Run is one run of a container that is looked at.
type Run struct {
	ID      string
	LogFile string
	Running bool
	// Ended is closed once the run is over.
	Ended <-chan struct{}
}

// Node is what the server shows. Errors are of package apierrors where the
// client is to see a reason.
type Node interface {
	// Pods are all that the agent runs, with their newest statuses.
	Pods() []*v1.Pod
	// Run finds the newest run of a container, or the one before it. uid may be
	// empty.
	Run(ctx context.Context, namespace, name string, uid types.UID, container string, previous bool) (Run, error)
	// Gone lists the pods that are not there any more whose logs are, of a
	// namespace or all (""); the newest first.
	Gone(namespace string) []logs.Gone
	// GoneFiles are the files of a run of a container of such a pod, the newest of
	// that name where uid is empty.
	GoneFiles(namespace, name string, uid types.UID, container string, previous bool) ([]string, error)
	// Sandbox finds a pod's sandbox.
	Sandbox(ctx context.Context, namespace, name string, uid types.UID) (string, error)
	// Summary is what the node and its pods use: of cpu and memory alone, or of
	// everything.
	Summary(ctx context.Context, cpuAndMemory bool) (*statsv1alpha1.Summary, error)
	// Measure is what each group of processes uses, for monitoring.
	Measure(ctx context.Context) (Measured, error)
	// Healthy is nil when the agent works.
	Healthy(ctx context.Context) error
}

// Config is what a server needs.
type Config struct {
	Node    Node
	Runtime hansaruntime.Runtime
	Clock   clock.Clock
	// Metrics and Probes serve /metrics and /metrics/probes; nil for none.
	Metrics, Probes http.Handler
	// Settings are shown at /configz and say what is served; nil for the
	// defaults.
	Settings *settings.Settings
	// Pages are /statusz and /flagz, but for their paths; nil for none.
	Pages *zpages.Component
	// Authorize wraps all paths.
	Authorize func(http.Handler) http.Handler
	Log       *slog.Logger
}

// Server is the node API as an http.Handler.
type Server struct {
	Config
	codec runtime.Encoder
}

// createTimeout is how long the streams of a connection are waited for.
const createTimeout = 30 * time.Second

// idleTimeout is after how long a connection that carries nothing is closed.
func (s *Server) idleTimeout() time.Duration {
	return s.Settings.StreamingConnectionIdleTimeout.Duration
}

// New makes the handler.
func New(c Config) http.Handler {
	if c.Settings == nil {
		c.Settings = settings.Default()
	}
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		panic(err) // the types are constants of their package
	}
	s := &Server{Config: c, codec: serializer.NewCodecFactory(scheme).LegacyCodec(v1.SchemeGroupVersion)}
	seen := health.NewResults()
	mux := http.NewServeMux()
	mux.Handle("GET /metrics/slis", seen.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { health.Serve(w, r, "healthz", s.checks(), seen, s.Log) })
	for _, c := range s.checks() {
		mux.HandleFunc("GET /healthz/"+c.Name, func(w http.ResponseWriter, r *http.Request) { health.ServeOne(w, r, c) })
	}
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /configz", s.configz)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	mux.HandleFunc("GET "+LogsPath, s.goneLogs)
	mux.HandleFunc("GET "+LogsPath+"{namespace}", s.goneLogs)
	mux.HandleFunc("GET "+LogsPath+"{namespace}/{pod}", s.allLogs)
	for _, verb := range []struct {
		path  string
		serve http.HandlerFunc
	}{
		{"/exec/{namespace}/{pod}/{container}", s.exec},
		{"/exec/{namespace}/{pod}/{uid}/{container}", s.exec},
		{"/attach/{namespace}/{pod}/{container}", s.attach},
		{"/attach/{namespace}/{pod}/{uid}/{container}", s.attach},
		{"/portForward/{namespace}/{pod}", s.portForward},
		{"/portForward/{namespace}/{pod}/{uid}", s.portForward},
	} {
		mux.HandleFunc("GET "+verb.path, verb.serve)
		mux.HandleFunc("POST "+verb.path, verb.serve)
	}
	mux.HandleFunc("GET /stats/summary", s.summary)
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	if c.Probes != nil {
		mux.Handle("GET /metrics/probes", c.Probes)
	}
	mux.HandleFunc("GET /metrics/resource", s.resourceMetrics)
	mux.HandleFunc("GET /metrics/cadvisor", s.cadvisorMetrics)

	s.tell(mux)

	outer := http.NewServeMux()
	outer.Handle("/", c.Authorize(mux))
	if !*c.Settings.EnableDebuggingHandlers {
		for _, path := range []string{"/containerLogs/", "/exec/", "/attach/", "/portForward/", "/configz"} {
			outer.Handle(path, c.Authorize(http.HandlerFunc(disabled)))
		}
	}
	return outer
}

// tell serves the pages about the agent itself, which the kubelet counts among
// those for debugging.
func (s *Server) tell(mux *http.ServeMux) {
	if s.Pages == nil || !*s.Settings.EnableDebuggingHandlers {
		return
	}
	pages := *s.Pages
	pages.Paths = func() []string { return []string{"/configz", "/flagz", "/healthz", "/metrics", "/pods", "/stats"} }
	mux.Handle("GET /flagz", pages.Parameters())
	mux.Handle("GET /statusz", pages.Status())
}

// checks are what health is made of. The second has the kubelet's name for the
// loop that brings pods and containers together, as others ask for it by that.
func (s *Server) checks() []health.Check {
	return []health.Check{health.Ping, {Name: "syncloop", Check: func(r *http.Request) error { return s.Node.Healthy(r.Context()) }}}
}

// disabled answers for what enableDebuggingHandlers switches off.
func disabled(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "Debug endpoints are disabled.", http.StatusMethodNotAllowed)
}

// configz shows the settings in use, all defaults filled in.
func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	data, err := json.Marshal(map[string]any{"kubeletconfig": &s.Settings.KubeletConfiguration})
	if err != nil {
		s.fail(w, fmt.Errorf("encode settings: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, data)
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := &v1.PodList{}
	for _, p := range s.Node.Pods() {
		list.Items = append(list.Items, *p)
	}
	data, err := runtime.Encode(s.codec, list)
	if err != nil {
		s.fail(w, fmt.Errorf("encode pods: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, data)
}

// summary is everything, or with only_cpu_and_memory just that.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("only_cpu_and_memory")
	less, err := strconv.ParseBool(text)
	if err != nil && text != "" {
		s.fail(w, &Error{http.StatusBadRequest, fmt.Sprintf("only_cpu_and_memory is %q, not true or false", text)})
		return
	}
	sum, err := s.Node.Summary(r.Context(), less)
	if err != nil {
		s.fail(w, err)
		return
	}
	data, err := json.MarshalIndent(sum, "", " ")
	if err != nil {
		s.fail(w, fmt.Errorf("encode summary: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, data)
}

func (s *Server) write(w http.ResponseWriter, data []byte) {
	if _, err := w.Write(data); err != nil {
		s.Log.Debug("node API: client went away", "err", err)
	}
}

// Error is a failure that the client caused, or may know the reason of.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return e.Message }

// fail answers with an error in plain text, which is what the API server looks
// for.
func (s *Server) fail(w http.ResponseWriter, err error) {
	var known *Error
	if errors.As(err, &known) {
		http.Error(w, known.Message, known.Code)
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	s.Log.Warn("node API: request failed", "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// target finds the run that a request is about.
func (s *Server) target(r *http.Request, previous bool) (Run, error) {
	return s.Node.Run(r.Context(), r.PathValue("namespace"), r.PathValue("pod"), types.UID(r.PathValue("uid")), r.PathValue("container"), previous)
}
