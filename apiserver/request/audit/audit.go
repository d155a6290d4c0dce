// Package audit notes what is asked of the API, by whom and with what outcome.
// A policy says how much of which request; policy, events and their stages are
// those of Kubernetes (audit.k8s.io/v1), by its library. An event is written
// before the request goes on.
//
// Where there is no log, or the policy leaves a request out, its Record is nil,
// and every method of a nil Record does nothing.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	internal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/apis/audit/validation"
	library "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	logplugin "k8s.io/apiserver/plugin/pkg/audit/log"
)

// Policy decides how much is noted of a request.
type Policy = library.PolicyRuleEvaluator

// ParsePolicy reads an audit policy (audit.k8s.io/v1). What it has beyond the
// known fields is passed over, as Kubernetes does; doubt says so then.
func ParsePolicy(data []byte) (p Policy, doubt, err error) {
	rules := &internal.Policy{}
	strict := serializer.NewCodecFactory(library.Scheme, serializer.EnableStrict).UniversalDecoder()
	_, kind, err := strict.Decode(data, nil, rules)
	if runtime.IsStrictDecodingError(err) {
		doubt = err
		_, kind, err = library.Codecs.UniversalDecoder().Decode(data, nil, rules)
	}
	want := auditv1.SchemeGroupVersion.WithKind("Policy")
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("it is no Policy of %s: %w", want.GroupVersion(), err)
	case *kind != want:
		// Without a kind the decoder takes it for the internal form.
		return nil, nil, fmt.Errorf("it does not say that it is a Policy of %s", want.GroupVersion())
	case len(rules.Rules) == 0:
		return nil, nil, errors.New("rules: at least one rule is required")
	}
	if errs := validation.ValidatePolicy(rules); len(errs) > 0 {
		return nil, nil, errs.ToAggregate()
	}
	return policy.NewPolicyRuleEvaluator(rules), doubt, nil
}

// Options of a Log. Policy and Out must be set.
type Options struct {
	Policy Policy
	// Out gets an event by each call of Write, a line of JSON.
	Out     io.Writer
	Logger  *slog.Logger         // nil: slog.Default
	Metrics *prometheus.Registry // nil: none
}

// Log is where events go. Its methods may be called from any goroutine.
type Log struct {
	policy Policy
	sink   *sink
	levels *prometheus.CounterVec
}

// New makes a log.
func New(o Options) *Log {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		if o.Metrics != nil {
			o.Metrics.MustRegister(c)
		}
		return c
	}
	out := &writer{to: o.Out}
	return &Log{
		policy: o.Policy,
		sink: &sink{
			out:     out,
			backend: logplugin.NewBackend(out, logplugin.FormatJson, auditv1.SchemeGroupVersion),
			logger:  o.Logger,
			events:  counter("apiserver_audit_event_total", "Counter of audit events generated and sent to the audit backend.").WithLabelValues(),
			errors: counter("apiserver_audit_error_total",
				"Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.", "plugin").WithLabelValues("log"),
		},
		levels: counter("apiserver_audit_level_total", "Counter of policy levels for audit events (1 per request).", "level"),
	}
}

// writer lets one event through at a time and remembers why the last one failed.
type writer struct {
	mu     sync.Mutex
	to     io.Writer
	failed error
	torn   bool // the last line has no end: the disk may have been full
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.torn {
		if _, w.failed = w.to.Write([]byte{'\n'}); w.failed != nil {
			return 0, w.failed
		}
		w.torn = false
	}
	n, err := w.to.Write(p)
	w.failed, w.torn = err, n > 0 && n < len(p)
	return n, err
}

func (w *writer) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// sink writes events. A request goes on if its event is lost, but the log says
// so, once for each time that writing begins to fail.
type sink struct {
	out            *writer
	backend        library.Sink
	logger         *slog.Logger
	events, errors prometheus.Counter
	lost           atomic.Int64
}

// ProcessEvents implements library.Sink.
func (s *sink) ProcessEvents(events ...*internal.Event) bool {
	s.events.Add(float64(len(events)))
	if !s.backend.ProcessEvents(events...) {
		s.errors.Add(float64(len(events)))
		if s.lost.Add(int64(len(events))) == int64(len(events)) {
			s.logger.Error("the audit log cannot be written, and events are lost", "error", s.out.failure())
		}
	} else if n := s.lost.Load(); n > 0 && s.lost.CompareAndSwap(n, 0) {
		s.logger.Warn("the audit log is written again", "lost", n)
	}
	return true
}

// Request is what is known of a request once it is known who asks.
type Request struct {
	*http.Request
	ID         string
	Received   time.Time
	Attributes authorizer.Attributes
	// Long says that the answer is a stream.
	Long bool
	// Refused says that the client showed something that nobody believes. The
	// event of such a request is its answer alone.
	Refused bool
}

// Begin makes the record of a request and writes its first event. The context is
// the request's, with what the library's parts annotate events by.
func (l *Log) Begin(q *Request) (context.Context, *Record) {
	if l == nil {
		return q.Context(), nil
	}
	config := l.policy.EvaluatePolicyRule(q.Attributes)
	l.levels.WithLabelValues(string(config.Level)).Inc()
	if config.Level == internal.LevelNone {
		return q.Context(), nil
	}
	ctx := library.WithAuditContext(q.Context())
	library.WithAuditID(ctx, types.UID(q.ID))
	r := &Record{
		event: library.AuditContextFrom(ctx), ctx: ctx,
		level: config.Level, omitManagedFields: config.OmitManagedFields, long: q.Long, refused: q.Refused,
	}
	// Managed fields are left out here, where it costs nothing below the level
	// that shows objects.
	config.OmitManagedFields = false
	if err := r.event.Init(config, l.sink); err != nil {
		panic(fmt.Sprintf("audit: %v", err)) // the context was made here
	}
	library.LogRequestMetadata(ctx, q.Request, q.Received, q.Attributes)
	if !q.Refused {
		r.event.ProcessEventStage(ctx, internal.StageRequestReceived)
	}
	return ctx, r
}

// Record is what is noted of one request. It belongs to the request.
type Record struct {
	event             *library.AuditContext
	ctx               context.Context
	level             internal.Level
	omitManagedFields bool
	long, refused     bool

	// Options says that the options of a deletion came as a body.
	Options bool
}

func (r *Record) shows(level internal.Level) bool { return r != nil && !r.level.Less(level) }

// Context is the request's context where there is a record, else the one given:
// what the library's parts annotate the event by.
func (r *Record) Context(ctx context.Context) context.Context {
	if r == nil {
		return ctx
	}
	return r.ctx
}

// Impersonates notes as whom the client goes on, and the verb that gave it leave
// where that was not for all requests alike.
func (r *Record) Impersonates(u user.Info, constraint string) {
	if r != nil {
		r.event.LogImpersonatedUser(u, constraint)
	}
}

// Decided notes what the authorizer said of the request as a whole.
func (r *Record) Decided(decision authorizer.Decision, reason string, err error) {
	const decisionKey, reasonKey = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
	switch {
	case r == nil:
	case decision == authorizer.DecisionAllow:
		library.AddAuditAnnotations(r.ctx, decisionKey, "allow", reasonKey, reason)
	case err != nil:
		library.AddAuditAnnotation(r.ctx, reasonKey, "internal error")
	default:
		library.AddAuditAnnotations(r.ctx, decisionKey, "forbid", reasonKey, reason)
	}
}

// UnsafeDeletion notes that the client wants an object deleted even if it cannot
// be read.
func (r *Record) UnsafeDeletion() {
	if r != nil {
		library.AddAuditAnnotation(r.ctx, "apiserver.k8s.io/unsafe-delete-ignore-read-error", "")
	}
}

// Deprecated notes that the version asked for will go.
func (r *Record) Deprecated() {
	if r != nil {
		library.AddAuditAnnotation(r.ctx, "k8s.io/deprecated", "true")
	}
}

// Object notes the object that was sent: its name, and where the policy wants
// it, all of it, which encode gives as JSON.
func (r *Record) Object(obj runtime.Object, a authorizer.Attributes, encode func() ([]byte, error)) {
	if r == nil {
		return
	}
	if !r.shows(internal.LevelRequest) {
		encode = func() ([]byte, error) { return nil, nil }
	}
	gvr := schema.GroupVersionResource{Group: a.GetAPIGroup(), Version: a.GetAPIVersion(), Resource: a.GetResource()}
	logRequest(r.ctx, obj, gvr, a.GetSubresource(), func() ([]byte, error) { return r.trimmed(encode()) })
}

// Patch notes the patch that was sent, as JSON.
func (r *Record) Patch(patch []byte) {
	if r.shows(internal.LevelRequest) {
		r.event.LogRequestPatch(patch)
	}
}

// Answer notes what is answered: a status (nil if it is none), and where the
// policy wants it, all of it, which encode gives as JSON.
func (r *Record) Answer(status *metav1.Status, encode func() ([]byte, error)) {
	if r == nil || status == nil && !r.shows(internal.LevelRequestResponse) {
		return
	}
	var whole *runtime.Unknown
	if r.shows(internal.LevelRequestResponse) {
		// What cannot be encoded here is not answered either.
		if data, err := r.trimmed(encode()); err == nil {
			whole = &runtime.Unknown{Raw: data, ContentType: runtime.ContentTypeJSON}
		}
	}
	r.event.LogResponseObject(status, whole)
}

// Started notes that the answer begins.
func (r *Record) Started(code int) {
	if r == nil {
		return
	}
	r.event.SetEventResponseStatusCode(int32(code))
	if r.long || r.refused {
		r.event.ProcessEventStage(r.ctx, internal.StageResponseStarted)
	}
}

// Complete notes that the answer is complete.
func (r *Record) Complete() {
	if r == nil || r.refused {
		return
	}
	if r.event.GetEventResponseStatus() == nil {
		r.event.SetEventResponseStatus(&metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"})
		if r.long {
			r.event.ProcessEventStage(r.ctx, internal.StageResponseStarted)
		}
	}
	r.event.ProcessEventStage(r.ctx, internal.StageResponseComplete)
}

// Panicked notes that the server failed.
func (r *Record) Panicked(why any) {
	if r == nil {
		return
	}
	r.event.SetEventResponseStatus(&metav1.Status{
		Code: http.StatusInternalServerError, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("APIServer panic'd: %v", why),
	})
	r.event.ProcessEventStage(r.ctx, internal.StagePanic)
}

// trimmed takes managed fields out of an encoded object, of the items of a list
// and of the objects in a table, if the policy does not want them.
func (r *Record) trimmed(data []byte, err error) ([]byte, error) {
	if err != nil || !r.omitManagedFields || len(data) == 0 {
		return data, err
	}
	var whole map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&whole); err != nil {
		return nil, err
	}
	trim(whole)
	for _, items := range []string{"items", "rows"} {
		list, _ := whole[items].([]any)
		for _, item := range list {
			trim(item)
			if row, ok := item.(map[string]any); ok && items == "rows" {
				trim(row["object"])
			}
		}
	}
	return json.Marshal(whole)
}

func trim(obj any) {
	if fields, ok := obj.(map[string]any); ok {
		if meta, ok := fields["metadata"].(map[string]any); ok {
			delete(meta, "managedFields")
		}
	}
}
