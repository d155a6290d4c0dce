package http_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// journal collects events; it can be made to fail.
type journal struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	broken error
	room   int           // bytes that it takes of each event although it is broken
	more   chan struct{} // gets something with each event, if it is not full
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		n, _ := j.buf.Write(p[:min(j.room, len(p))])
		return n, j.broken
	}
	select {
	case j.more <- struct{}{}:
	default:
	}
	return j.buf.Write(p)
}

// await waits until there are n events: the last one of a request comes when the
// client has its answer already.
func (j *journal) await(t *testing.T, n int) []auditv1.Event {
	t.Helper()
	limit, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		j.mu.Lock()
		have := bytes.Count(j.buf.Bytes(), []byte("\n"))
		j.mu.Unlock()
		if have >= n {
			return j.take(t)
		}
		select {
		case <-j.more:
		case <-limit.Done():
			return j.take(t)
		}
	}
}

func (j *journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = err
}

// take gives the events since the last time.
func (j *journal) take(t *testing.T) []auditv1.Event {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var events []auditv1.Event
	for d := json.NewDecoder(&j.buf); ; {
		var e auditv1.Event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			j.buf.Reset()
			return events
		} else if err != nil {
			t.Fatal(err)
		}
		if e.Kind != "Event" || e.APIVersion != "audit.k8s.io/v1" {
			t.Errorf("an event is a %s of %s", e.Kind, e.APIVersion)
		}
		events = append(events, e)
	}
}

// audited is a cluster whose requests are noted by rules, each a line of YAML.
func audited(t *testing.T, rules string, change func(*apihttp.Config)) (*cluster, *journal) {
	t.Helper()
	j := &journal{more: make(chan struct{}, 1)}
	p, doubt, err := audit.ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\n" + rules))
	if err != nil || doubt != nil {
		t.Fatal(err, doubt)
	}
	c := newCluster(t, func(c *apihttp.Config) {
		if change != nil {
			change(c)
		}
		c.Metrics = prometheus.NewRegistry()
		c.Requests.Audit = audit.New(audit.Options{Policy: p, Out: j, Logger: c.Logger, Metrics: c.Metrics})
	})
	return c, j
}

// shown is an event as a line: stage, user, verb, what, code and what else the
// level shows.
func shown(e auditv1.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q %s", e.Stage, e.User.Username, e.Verb)
	if o := e.ObjectRef; o != nil {
		fmt.Fprintf(&b, " %s/%s/%s/%s/%s/%s", o.APIGroup, o.APIVersion, o.Resource, o.Namespace, o.Name, o.Subresource)
	} else {
		b.WriteString(" " + e.RequestURI)
	}
	if s := e.ResponseStatus; s != nil {
		fmt.Fprintf(&b, " %d%s", s.Code, s.Reason)
	}
	if d, ok := e.Annotations["authorization.k8s.io/decision"]; ok {
		b.WriteString(" " + d)
	}
	if u := e.ImpersonatedUser; u != nil {
		fmt.Fprintf(&b, " as %s %s", u.Username, strings.Join(u.Groups, ","))
	}
	if e.RequestObject != nil {
		b.WriteString(" request")
	}
	if e.ResponseObject != nil {
		b.WriteString(" response")
	}
	return b.String()
}

func wantEvents(t *testing.T, j *journal, want ...string) []auditv1.Event {
	t.Helper()
	events := j.await(t, len(want))
	var got []string
	for _, e := range events {
		got = append(got, shown(e))
	}
	if !slices.Equal(got, want) {
		t.Errorf("events are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	return events
}

// https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
func TestAuditStages(t *testing.T) {
	c, j := audited(t, "rules: [{level: Metadata}]", func(c *apihttp.Config) {
		c.Connectors = map[string]apihttp.Connector{"pods/log": apihttp.ConnectorFunc(func(w http.ResponseWriter, r *http.Request, _ *apihttp.Connection) error {
			if r.URL.Query().Get("follow") != "" {
				panic("an error of ours")
			}
			_, err := io.WriteString(w, "a line\n")
			return err
		})}
	})
	const cm = "/v1/configmaps/default/a/"
	c.createConfigMap("a")
	events := wantEvents(t, j, `RequestReceived "admin" create /v1/configmaps/default//`, `ResponseComplete "admin" create `+cm+` 201 allow`)
	first, last := events[0], events[1]
	if first.AuditID == "" || first.AuditID != last.AuditID || last.RequestURI != configMaps || last.SourceIPs[0] != "127.0.0.1" ||
		!first.StageTimestamp.Equal(&first.RequestReceivedTimestamp) || last.StageTimestamp.Before(&first.StageTimestamp) || last.UserAgent == "" {
		t.Errorf("events are %+v\n%+v", first, last)
	}

	a := c.do(call{path: configMaps + "/a", header: map[string]string{"Audit-Id": "mine"}})
	if e := wantEvents(t, j, `RequestReceived "admin" get `+cm, `ResponseComplete "admin" get `+cm+` 200 allow`); a.header.Get("Audit-Id") != "mine" || e[1].AuditID != "mine" {
		t.Errorf("the audit ID is %q, %q", a.header.Get("Audit-Id"), e[1].AuditID)
	}
	c.do(call{path: configMaps + "?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Da"})
	wantEvents(t, j, `RequestReceived "admin" watch `+cm, `ResponseStarted "admin" watch `+cm+` 200 allow`, `ResponseComplete "admin" watch `+cm+` 200 allow`)
	ws := c.dial(configMaps + "?watch=1")
	const all = "/v1/configmaps/default//"
	wantEvents(t, j, `RequestReceived "admin" watch `+all, `ResponseStarted "admin" watch `+all+` 101 allow`)
	ws.Close()
	wantEvents(t, j, `ResponseComplete "admin" watch `+all+` 101 allow`)
	c.do(call{path: "/version", token: "-"})
	wantEvents(t, j, `RequestReceived "system:anonymous" get /version`, `ResponseComplete "system:anonymous" get /version 200 allow`)
	c.do(call{path: "/api/v1/namespaces/default/pods/p/log"})
	wantEvents(t, j, `RequestReceived "admin" get /v1/pods/default/p/log`, `ResponseStarted "admin" get /v1/pods/default/p/log 200 allow`, `ResponseComplete "admin" get /v1/pods/default/p/log 200 allow`)
	c.do(call{path: "/api/v1/namespaces/default/pods/p/log?follow=true"})
	e := wantEvents(t, j, `RequestReceived "admin" get /v1/pods/default/p/log`, `Panic "admin" get /v1/pods/default/p/log 500InternalError allow`)
	if m := e[1].ResponseStatus.Message; m != "APIServer panic'd: an error of ours" {
		t.Errorf("a panic is noted as %q", m)
	}
}

// Who is refused is noted as well, with the reason.
func TestAuditOfRefusals(t *testing.T) {
	c, j := audited(t, "omitStages: [RequestReceived]\nrules: [{level: RequestResponse}]", nil)
	const what = "/v1/configmaps/default/a/"
	get := call{path: configMaps + "/a"}
	c.do(get)
	wantEvents(t, j, `ResponseComplete "admin" get `+what+` 404NotFound allow response`)
	get.token = "u"
	c.do(get)
	e := wantEvents(t, j, `ResponseComplete "u" get `+what+` 403Forbidden forbid response`)
	if _, ok := e[0].Annotations["authorization.k8s.io/reason"]; !ok {
		t.Errorf("annotations are %v", e[0].Annotations)
	}
	// Nobody knows whose request it is, and it ends with its beginning.
	get.token = "wrong"
	c.do(get)
	e = wantEvents(t, j, `ResponseStarted "" get `+what+` 401Unauthorized response`)
	if len(e[0].User.Groups) != 0 {
		t.Errorf("the user is %+v", e[0].User)
	}
	c.do(call{path: "/apis/none/v1/things/x"})
	wantEvents(t, j, `ResponseComplete "admin" get none/v1/things//x/ 404 allow`)
	c.do(call{method: "POST", path: configMaps, body: "{"})
	wantEvents(t, j, `ResponseComplete "admin" create /v1/configmaps/default// 400BadRequest allow response`)

	c.do(call{path: configMaps, header: map[string]string{"Impersonate-User": "somebody", "Impersonate-Group": "g"}})
	wantEvents(t, j, `ResponseComplete "admin" list /v1/configmaps/default// 403Forbidden forbid as somebody g,system:authenticated response`)
	c.do(call{path: configMaps, token: "u", header: map[string]string{"Impersonate-User": "somebody"}})
	wantEvents(t, j, `ResponseComplete "u" list /v1/configmaps/default// 403Forbidden response`)
}

// The level says how much is shown; the first rule that fits counts.
func TestAuditLevels(t *testing.T) {
	c, j := audited(t, `omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["/healthz*", /version]}
- {level: None, users: [u]}
- {level: None, userGroups: ["system:masters"], verbs: [watch]}
- {level: Metadata, resources: [{group: "", resources: [configmaps], resourceNames: [quiet]}]}
- {level: Request, namespaces: [kube-system]}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: "", resources: [secrets, "pods/*"]}]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}]}
`, nil)
	for _, quiet := range []call{{path: "/version"}, {path: "/healthz/ping"}, {path: configMaps, token: "u"}, {path: "/metrics"}, {path: "/api/v1/nodes"}} {
		c.do(quiet)
		wantEvents(t, j)
	}
	post := func(path, body string) call { return call{method: "POST", path: path, body: body} }
	one := func(in call, want string) auditv1.Event {
		t.Helper()
		c.do(in)
		if e := wantEvents(t, j, `ResponseComplete "admin" `+want); len(e) == 1 {
			return e[0]
		}
		return auditv1.Event{}
	}
	one(post("/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"quiet"}}`), `create /v1/configmaps/default/quiet/ 201 allow request response`)
	one(call{path: configMaps + "/quiet"}, `get /v1/configmaps/default/quiet/ 200 allow`)
	one(post("/api/v1/namespaces/kube-system/configmaps", `{"metadata":{"name":"a"}}`), `create /v1/configmaps/kube-system/a/ 201 allow request`)

	e := one(post("/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"},"stringData":{"k":"v"}}`), `create /v1/secrets/default/s/ 201 allow request response`)
	var object struct {
		Kind, APIVersion, Type string
		Metadata               map[string]any
		Items                  []struct{ Metadata map[string]any }
		Rows                   []struct {
			Object struct{ Metadata map[string]any }
		}
	}
	read := func(raw []byte) {
		t.Helper()
		object.Items, object.Rows, object.Metadata = nil, nil, nil
		if err := json.Unmarshal(raw, &object); err != nil {
			t.Fatal(err)
		}
	}
	// What was sent has its defaults, but nothing from the server yet.
	if read(e.RequestObject.Raw); object.Kind != "Secret" || object.APIVersion != "v1" || object.Type != "Opaque" || object.Metadata["uid"] != nil {
		t.Errorf("request object is %s", e.RequestObject.Raw)
	}
	if read(e.ResponseObject.Raw); object.Kind != "Secret" || object.Metadata["uid"] == nil || object.Metadata["managedFields"] != nil {
		t.Errorf("response object is %s", e.ResponseObject.Raw)
	}
	e = one(call{path: "/api/v1/namespaces/default/secrets"}, `list /v1/secrets/default// 200 allow response`)
	if read(e.ResponseObject.Raw); object.Kind != "SecretList" || len(object.Items) != 1 || object.Items[0].Metadata["name"] != "s" || object.Items[0].Metadata["managedFields"] != nil {
		t.Errorf("list is %s", e.ResponseObject.Raw)
	}
	table := map[string]string{"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
	e = one(call{path: "/api/v1/namespaces/default/secrets", header: table}, `list /v1/secrets/default// 200 allow response`)
	if read(e.ResponseObject.Raw); object.Kind != "Table" || object.Rows[0].Object.Metadata["name"] != "s" || object.Rows[0].Object.Metadata["managedFields"] != nil {
		t.Errorf("table is %s", e.ResponseObject.Raw)
	}
	one(post("/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"b"},"data":{"k":"v"}}`), `create /v1/configmaps/default/b/ 201 allow request response`)
	e = one(call{path: configMaps + "/b"}, `get /v1/configmaps/default/b/ 200 allow response`)
	if read(e.ResponseObject.Raw); object.Metadata["managedFields"] == nil {
		t.Errorf("managed fields are left out although the rule wants them: %s", e.ResponseObject.Raw)
	}
}

// A patch is shown as it was sent, in JSON; a deletion with the options that
// came as a body.
func TestAuditOfPatchesAndDeletions(t *testing.T) {
	c, j := audited(t, "omitStages: [RequestReceived]\nrules: [{level: Request}]", nil)
	c.createConfigMap("a")
	j.await(t, 1)
	for _, in := range []struct {
		call
		want string
	}{
		{call{method: "PATCH", path: configMaps + "/a", body: `{"data": {"a": "b"}}`, header: map[string]string{"Content-Type": "application/merge-patch+json"}}, `{"data":{"a":"b"}}`},
		{call{method: "PATCH", path: configMaps + "/a?fieldManager=m&force=true", body: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}", header: map[string]string{"Content-Type": "application/apply-patch+yaml"}}, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}`},
		{call{method: "PATCH", path: configMaps + "/a", body: `{`, header: map[string]string{"Content-Type": "application/merge-patch+json"}}, ""},
		{call{method: "DELETE", path: configMaps + "/a", body: `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`}, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`},
		{call{method: "DELETE", path: configMaps + "/a"}, ""},
		{call{method: "DELETE", path: configMaps, body: `{"propagationPolicy":"Orphan"}`}, `{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/v1","propagationPolicy":"Orphan"}`},
	} {
		c.do(in.call)
		e := j.await(t, 1)
		if len(e) != 1 {
			t.Fatalf("%s %s: %d events", in.method, in.body, len(e))
		}
		got := ""
		if o := e[0].RequestObject; o != nil {
			got = string(o.Raw)
		}
		if got != in.want {
			t.Errorf("%s %s is noted as %s, want %s", in.method, in.body, got, in.want)
		}
	}
}

// Events that cannot be written do not stop requests, but the log says so, once,
// and how many they were.
func TestAuditLogFails(t *testing.T) {
	var logged bytes.Buffer
	c, j := audited(t, "rules: [{level: Metadata}]", func(c *apihttp.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	})
	j.fail(errors.New("no space left"))
	for range 3 {
		if a := c.do(call{path: configMaps}); a.code != http.StatusOK {
			t.Errorf("list: %d", a.code)
		}
	}
	j.fail(nil)
	c.do(call{path: configMaps})
	if n := len(j.await(t, 2)); n != 2 {
		t.Errorf("%d events, want 2", n)
	}
	text := logged.String()
	metrics := string(c.do(call{path: "/metrics"}).body)
	for _, line := range []string{"apiserver_audit_event_total 9", `apiserver_audit_error_total{plugin="log"} 6`, `apiserver_audit_level_total{level="Metadata"} 5`} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("the metrics have no %s", line)
		}
	}
	if strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "no space left") || !strings.Contains(text, "lost=6") {
		t.Errorf("the log is\n%s", text)
	}
}

// What a full disk took of an event ends its line: the next one is whole.
func TestAuditLogIsCutOff(t *testing.T) {
	c, j := audited(t, "omitStages: [RequestReceived]\nrules: [{level: Metadata}]", nil)
	text := func() string {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.buf.String()
	}
	j.room = 20
	j.fail(errors.New("no space left"))
	for text() == "" { // the last event comes after the answer
		c.do(call{path: configMaps})
	}
	j.fail(nil)
	for !strings.HasSuffix(text(), "}\n") {
		c.do(call{path: configMaps + "/a"})
	}
	lines := strings.Split(text(), "\n")
	if last := lines[len(lines)-2]; !strings.HasPrefix(last, `{"kind":"Event"`) || strings.Count(last, `{"kind":"Event"`) != 1 {
		t.Errorf("the log is %q", lines)
	}
}

// A request that is not noted costs nothing more for it: neither an allocation
// nor a look into the context.
func BenchmarkGetWithAudit(b *testing.B) {
	policies := map[string]string{"off": "", "None": "rules: [{level: None}]", "Metadata": "rules: [{level: Metadata}]"}
	for _, name := range []string{"off", "None", "Metadata"} {
		b.Run(name, func(b *testing.B) {
			s := benchServer(b)
			if rules := policies[name]; rules != "" {
				p, _, err := audit.ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\n" + rules))
				if err != nil {
					b.Fatal(err)
				}
				s.Audit = audit.New(audit.Options{Policy: p, Out: io.Discard})
			}
			serve(b, s, "POST", configMaps, `{"metadata":{"name":"a"}}`, http.StatusCreated)
			b.ReportAllocs()
			for b.Loop() {
				serve(b, s, "GET", configMaps+"/a", "", http.StatusOK)
			}
		})
	}
}

// Without a log a request takes exactly the allocations of one whose record is
// nil: what is noted is computed behind that check.
func TestNoAuditNoAllocation(t *testing.T) {
	var none *audit.Record
	if n := testing.AllocsPerRun(100, func() {
		none.Decided(0, "", nil)
		none.Impersonates(requesttest.Admin, "")
		none.Deprecated()
		none.Patch(nil)
		none.Answer(nil, nil)
		none.Started(200)
		none.Complete()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	h := requesttest.Handler(t, nil)
	r := httptest.NewRequest("GET", "/", nil)
	if n := testing.AllocsPerRun(100, func() {
		_, asked := h.Begin(r.Context(), &request.Info{})
		asked.End(nil, nil)
	}); n > 1 { // the Info of the call
		t.Errorf("%v allocations in process", n)
	}
}
