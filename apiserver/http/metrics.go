package http

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/internal/results"
)

// metrics are those of Kubernetes' API server, under its names.
type metrics struct {
	gatherer prometheus.Gatherer
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	size     *prometheus.HistogramVec
	inflight *prometheus.GaugeVec
	long     *prometheus.GaugeVec
	events   *prometheus.CounterVec
	attempts *results.Counts // to authenticate
	users    *prometheus.CounterVec

	reading, writing prometheus.Gauge
	series           sync.Map // series → *observers
}

// series are the labels of one kind of request.
type series struct {
	verb, dryRun, group, version, resource, sub, scope string
}

func (k series) labels(more ...string) []string {
	return append([]string{k.verb, k.dryRun, k.group, k.version, k.resource, k.sub, k.scope, "apiserver"}, more...)
}

// observers are looked up once for each series: that costs more than observing.
type observers struct {
	duration, size prometheus.Observer
	long           prometheus.Gauge
	codes          sync.Map // int → prometheus.Counter
}

var requestLabels = []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		gatherer: r,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
		}, append(requestLabels[:len(requestLabels):len(requestLabels)], "code")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, requestLabels),
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_response_sizes",
			Help:    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
			Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
		}, requestLabels),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests",
			Help: "Number of requests currently being served, by kind.",
		}, []string{"request_kind"}),
		long: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
		}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_watch_events_total",
			Help: "Number of events sent in watch clients",
		}, []string{"group", "version", "resource"}),
	}
	m.attempts = results.New("authentication_attempts", "Counter of authenticated attempts.",
		"authentication_duration_seconds", "Authentication duration in seconds broken out by result.", "success", "failure", "error")
	m.users = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "authenticated_user_requests", Help: "Counter of authenticated requests broken out by username.",
	}, []string{"username"})
	r.MustRegister(m.total, m.duration, m.size, m.inflight, m.long, m.events, m.attempts, m.users)
	m.reading, m.writing = m.inflight.WithLabelValues("readOnly"), m.inflight.WithLabelValues("mutating")
	return m
}

func (m *metrics) observers(k series) *observers {
	if o, ok := m.series.Load(k); ok {
		return o.(*observers)
	}
	labels := k.labels()
	o, _ := m.series.LoadOrStore(k, &observers{
		duration: m.duration.WithLabelValues(labels...),
		size:     m.size.WithLabelValues(labels...),
		long:     m.long.WithLabelValues(k.verb, k.group, k.version, k.resource, k.sub, k.scope, "apiserver"),
	})
	return o.(*observers)
}

// begin counts a request in; the returned function counts it out.
func (m *metrics) begin(info *request.Info, t target, r *http.Request, q url.Values) func(*response, time.Duration) {
	k := series{verb: metricVerb(info), group: t.group, version: t.version, resource: t.plural, sub: t.sub, scope: scopeOf(t)}
	if info.Served == nil || info.Served.Subresources[t.sub] == nil && t.sub != "" {
		// What anybody can type must not become a label.
		k.group, k.version, k.resource, k.sub = "", "", "", ""
	}
	if values := q["dryRun"]; len(values) > 0 {
		k.dryRun = "invalid"
		if values[0] == "All" {
			k.dryRun = "All"
		}
	}
	o := m.observers(k)
	long := k.verb == "WATCH" || k.verb == "CONNECT"
	gauge := m.reading
	switch {
	case long:
		gauge = o.long
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		gauge = m.writing
	}
	gauge.Inc()
	return func(w *response, took time.Duration) {
		gauge.Dec()
		m.count(o, k, w.status)
		if !long {
			o.duration.Observe(took.Seconds())
			o.size.Observe(float64(w.size))
		}
	}
}

func (m *metrics) count(o *observers, k series, code int) {
	c, ok := o.codes.Load(code)
	if !ok {
		c, _ = o.codes.LoadOrStore(code, m.total.WithLabelValues(k.labels(strconv.Itoa(code))...))
	}
	c.(prometheus.Counter).Inc()
}

// metricVerb is the verb as Kubernetes' metrics call it.
func metricVerb(info *request.Info) string {
	if info.Served != nil {
		if sub := info.Served.Subresources[info.Subresource]; sub != nil && sub.Connect && sub.New == nil || info.Subresource == "proxy" {
			return "CONNECT"
		}
	}
	switch info.Verb {
	case "get":
		return "GET"
	case "list":
		return "LIST"
	case "watch":
		return "WATCH"
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "patch":
		return "PATCH"
	case "delete", "deletecollection":
		return "DELETE"
	}
	return "other"
}

func scopeOf(t target) string {
	switch {
	case t.name != "":
		return "resource"
	case t.namespace != "":
		return "namespace"
	}
	return "cluster"
}

// authenticated counts whether it was found out who sent a request.
func (m *metrics) authenticated(answer *authenticator.Response, ok bool, err error, took time.Duration) {
	switch {
	case err != nil:
		m.attempts.Add("error", took)
	case !ok:
		m.attempts.Add("failure", took)
	default:
		m.attempts.Add("success", took)
		m.users.WithLabelValues(kindOfUser(answer.User.GetName())).Inc()
	}
}

// kindOfUser is what Kubernetes' metrics make of a name: there are too many
// users, and they are nobody's business.
func kindOfUser(name string) string {
	switch {
	case name == "admin", name == "client", name == "kube_proxy", name == "kubelet", name == "system:serviceaccount:kube-system:default":
		return name
	case strings.Contains(name, "@"):
		return "email_id"
	}
	return "other"
}

func (m *metrics) watchEvents(info *request.Info, n int) {
	v := info.Served.Version
	m.events.WithLabelValues(v.Group, v.Version, info.Served.Plural).Add(float64(n))
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.gatherer, promhttp.HandlerOpts{})
}
