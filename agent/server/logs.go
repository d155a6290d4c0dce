package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/logs"
)

// logs answers with the log of a container.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	o, previous, err := logOptions(r.URL.Query(), s.Clock)
	if err != nil {
		s.fail(w, err)
		return
	}
	run, err := s.target(r, previous)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.sendLog(w, r, run, o)
}

// LogsPath is where the logs of pods are, also of those that are gone:
//
//	LogsPath                      a list of the pods that are gone
//	LogsPath NAMESPACE            … of one namespace
//	LogsPath NAMESPACE/POD        a log; the query has the fields of
//	                              v1.PodLogOptions, and uid
const LogsPath = "/hansa/logs/"

// goneLogs lists the pods that are gone.
func (s *Server) goneLogs(w http.ResponseWriter, r *http.Request) {
	data, err := json.Marshal(s.Node.Gone(r.PathValue("namespace")))
	if err != nil {
		s.fail(w, fmt.Errorf("encode logs: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.write(w, data)
}

// allLogs answers with the log of a pod that is there, or else of the newest of
// that name that was.
func (s *Server) allLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o, previous, err := logOptions(q, s.Clock)
	if err != nil {
		s.fail(w, err)
		return
	}
	namespace, name, uid, container := r.PathValue("namespace"), r.PathValue("pod"), types.UID(q.Get("uid")), q.Get("container")
	run, err := s.Node.Run(r.Context(), namespace, name, uid, container, previous)
	var refused *Error
	if err == nil {
		s.sendLog(w, r, run, o)
		return
	}
	if !errors.As(err, &refused) || refused.Code != http.StatusNotFound {
		s.fail(w, err)
		return
	}
	files, err := s.Node.GoneFiles(namespace, name, uid, container, previous)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &flushing{ResponseWriter: w}
	if err := logs.ReadFiles(r.Context(), files, o, out); err != nil && !out.begun {
		s.fail(w, err)
	} else if err != nil {
		s.Log.Debug("node API: log cut off", "pod", namespace+"/"+name, "err", err)
	}
}

// sendLog answers with the log of a run.
func (s *Server) sendLog(w http.ResponseWriter, r *http.Request, run Run, o logs.Options) {
	if !run.Running {
		o.Follow = false
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Transfer-Encoding", "chunked")
	out := &flushing{ResponseWriter: w, each: o.Follow}
	err := logs.Read(r.Context(), s.Clock, run.LogFile, o, run.Ended, out)
	switch {
	case err == nil || r.Context().Err() != nil:
	case errors.Is(err, fs.ErrNotExist) && !out.begun:
		// The container has not logged yet, or its log is gone.
	case !out.begun:
		s.fail(w, err)
	default:
		s.Log.Debug("node API: log cut off", "file", run.LogFile, "err", err)
	}
}

// logOptions reads the query, which has the fields of v1.PodLogOptions.
func logOptions(q url.Values, c clock.PassiveClock) (o logs.Options, previous bool, err error) {
	o = logs.All()
	number := func(name string, into *int64, least int64) error {
		text := q.Get(name)
		if text == "" {
			return nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < least {
			return &Error{http.StatusUnprocessableEntity, fmt.Sprintf("%s: must be a whole number of at least %d", name, least)}
		}
		*into = n
		return nil
	}
	flag := func(name string) bool {
		on, err := strconv.ParseBool(q.Get(name))
		return err == nil && on
	}
	o.Follow, o.Timestamps, previous = flag("follow"), flag("timestamps"), flag("previous")
	since := int64(-1)
	if err := errors.Join(number("tailLines", &o.Tail, 0), number("limitBytes", &o.Limit, 1), number("sinceSeconds", &since, 1)); err != nil {
		return o, previous, err
	}
	if since > 0 {
		o.Since = c.Now().Add(-time.Duration(since) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		if o.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return o, previous, &Error{http.StatusUnprocessableEntity, "sinceTime: must be a time as in RFC 3339"}
		}
	}
	switch q.Get("stream") {
	case "", "All":
	case "Stdout":
		o.Stream = logs.Stdout
	case "Stderr":
		o.Stream = logs.Stderr
	default:
		return o, previous, &Error{http.StatusUnprocessableEntity, "stream: must be All, Stdout or Stderr"}
	}
	return o, previous, nil
}

// flushing sends each write at once when followed.
type flushing struct {
	http.ResponseWriter
	each, begun bool
}

func (f *flushing) Write(p []byte) (int, error) {
	f.begun = true
	n, err := f.ResponseWriter.Write(p)
	if err == nil && f.each {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}
