package http

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"hansa.dev/hansa/apiserver/fairness"
)

// The part of its time that a request may wait for its turn, and the longest
// that any may.
const (
	waitingPart = 4
	maxWaiting  = time.Minute
)

// The headers that say what a request was taken for. They have no names, which
// could tell more than their reader may know.
var (
	schemaHeader = http.CanonicalHeaderKey(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
	levelHeader  = http.CanonicalHeaderKey(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID)
)

// turn is a request for a resource as a limiter sees it.
type turn struct{ *call }

func (t turn) User() user.Info             { return t.info.User }
func (t turn) URL() *url.URL               { return t.r.URL }
func (t turn) Mutating() bool              { return mutating(t.r) }
func (t turn) Patience() time.Duration     { return patience(t.limit) }
func (t turn) Classified(c fairness.Class) { classified(t.w, c) }
func (t turn) Serve()                      { t.answer() }

// Meaning is what a request for a resource is to FlowSchemas.
func (t turn) Meaning() *apirequest.RequestInfo {
	to := &t.target
	m := &apirequest.RequestInfo{
		IsResourceRequest: true, Path: t.info.Path, Verb: t.info.Verb, APIPrefix: "apis",
		APIGroup: to.group, APIVersion: to.version, Namespace: to.namespace,
		Resource: to.plural, Subresource: to.sub, Name: to.name,
	}
	if to.group == "" {
		m.APIPrefix = "api"
	}
	if to.name == "" {
		// Who lists one object by its name gets one object.
		m.Name = selectedName(t.q.Get("fieldSelector"))
	}
	return m
}

// pathTurn is a request for one of the server's own paths as a limiter sees it.
type pathTurn struct{ *pathCall }

func (t pathTurn) User() user.Info             { return t.user }
func (t pathTurn) URL() *url.URL               { return t.r.URL }
func (t pathTurn) Mutating() bool              { return mutating(t.r) }
func (t pathTurn) Patience() time.Duration     { return patience(requestTimeout) }
func (t pathTurn) Classified(c fairness.Class) { classified(t.w, c) }
func (t pathTurn) Serve()                      { t.answer() }

func (t pathTurn) Meaning() *apirequest.RequestInfo {
	return &apirequest.RequestInfo{Path: t.r.URL.Path, Verb: strings.ToLower(t.r.Method)}
}

func mutating(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// patience is how long a request with so much time may wait for its turn.
func patience(limit time.Duration) time.Duration { return min(limit/waitingPart, maxWaiting) }

func classified(w http.ResponseWriter, c fairness.Class) {
	ids := [...]string{string(c.SchemaUID), string(c.LevelUID)}
	h := w.Header()
	h[schemaHeader], h[levelHeader] = ids[:1:1], ids[1:]
}

// inTurn has a request answered when it is its turn.
func (s *Server) inTurn(ctx context.Context, w http.ResponseWriter, r fairness.Request) {
	if s.Limiter == nil {
		r.Serve()
	} else if v := s.Limiter.Serve(ctx, r); v.Refused {
		tooMany(w, v)
	}
}

// watchInTurn answers a watch when it is its turn.
func (c *call) watchInTurn() {
	c.limit, c.started = requestTimeout, func() {}
	if c.Limiter != nil {
		started, ended, v := c.Limiter.Begin(c.ctx, turn{c})
		if v.Refused {
			tooMany(c.w, v)
			return
		}
		defer ended()
		defer started()
		c.started = started
	}
	c.answer()
}

// tooMany refuses a request as Kubernetes does: with text and no Status.
func tooMany(w http.ResponseWriter, v fairness.Verdict) {
	w.Header().Set("Retry-After", strconv.FormatInt(v.RetryAfter, 10))
	http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
}
