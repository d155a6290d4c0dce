package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/rest"
)

// auditRules note a bit of everything, and nothing twice.
const auditRules = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: [/version]
- level: None
  resources: [{group: coordination.k8s.io}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps]}]
  namespaces: [default]
- level: Request
  resources: [{group: apps}]
- level: Metadata
`

// events reads an audit log.
func events(t *testing.T, file string) []auditv1.Event {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []auditv1.Event
	for line := range strings.Lines(string(data)) {
		var e auditv1.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Kind != "Event" {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// "Auditing": every request has its events in the log by the time the server has
// stopped, those of the loops and of the node as well.
func TestAuditLog(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "logs", "audit.log")
	if err := os.WriteFile(policy, []byte(auditRules), 0o600); err != nil {
		t.Fatal(err)
	}
	c, p := started(t, "audited", "--audit-policy-file", policy, "--audit-log-path", log)
	mark := map[string]string{"Audit-Id": "marked"}
	if a := p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"), body: "metadata: {name: a}\ndata: {k: v}", header: mark}, nil); a.header.Get("Audit-Id") != "marked" {
		t.Errorf("the audit ID is answered as %q", a.header.Get("Audit-Id"))
	}
	p.do(t, call{path: at("secrets", "default", "none")})
	p.do(t, call{path: "/version"})
	p.do(t, call{path: at("pods", "default") + "?watch=true&timeoutSeconds=1"})
	p.do(t, call{path: at("pods", "default"), header: map[string]string{"Impersonate-User": "jane"}})
	wrong := rest.AnonymousClientConfig(p.config)
	wrong.BearerToken = "wrong"
	unknown, err := newPeer(wrong)
	if err != nil {
		t.Fatal(err)
	}
	unknown.do(t, call{path: at("pods", "default")})
	if r := c.run(t, "kubectl", "create", "deployment", "web", "--image", "example.com/x", "--replicas", "2"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	eventually(t, "two pods", func() bool {
		return strings.Count(c.run(t, "kubectl", "get", "pods", "-o", "name").out, "pod/web") == 2
	})
	if err := c.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	all := events(t, log)
	for what, match := range map[string]func(e auditv1.Event) bool{
		"the create with its objects": func(e auditv1.Event) bool {
			return e.AuditID == "marked" && e.Level == "RequestResponse" && e.Stage == "ResponseComplete" && e.Verb == "create" && e.ObjectRef.Name == "a" &&
				e.ResponseStatus.Code == 201 && e.RequestObject != nil && strings.Contains(string(e.ResponseObject.Raw), `"uid"`) &&
				!strings.Contains(string(e.ResponseObject.Raw), "managedFields") && e.Annotations["authorization.k8s.io/decision"] == "allow"
		},
		"the failed get": func(e auditv1.Event) bool {
			return e.ObjectRef != nil && e.ObjectRef.Resource == "secrets" && e.ObjectRef.Name == "none" && e.ResponseStatus.Code == 404 && e.ResponseStatus.Reason == "NotFound"
		},
		"the beginning of the watch": func(e auditv1.Event) bool {
			return e.Stage == "ResponseStarted" && e.Verb == "watch" && e.ObjectRef.Resource == "pods" && e.ResponseStatus.Code == 200
		},
		"the end of the watch": func(e auditv1.Event) bool {
			return e.Stage == "ResponseComplete" && e.Verb == "watch" && e.ObjectRef.Resource == "pods"
		},
		"who acts as whom": func(e auditv1.Event) bool {
			return e.ImpersonatedUser != nil && e.ImpersonatedUser.Username == "jane" && slices.Contains(e.User.Groups, "system:masters") &&
				e.ResponseStatus.Code == 403 && e.Annotations["authorization.k8s.io/decision"] == "forbid"
		},
		"a token that nobody knows": func(e auditv1.Event) bool {
			return e.Stage == "ResponseStarted" && e.User.Username == "" && e.ResponseStatus.Code == 401 && e.ResponseStatus.Reason == "Unauthorized"
		},
		"kubectl's deployment": func(e auditv1.Event) bool {
			return e.Level == "Request" && e.Verb == "create" && e.ObjectRef.Resource == "deployments" && strings.HasPrefix(e.UserAgent, "kubectl") &&
				e.RequestObject != nil && e.ResponseObject == nil
		},
		"the pods of the loop": func(e auditv1.Event) bool {
			return e.User.Username == "system:serviceaccount:kube-system:replicaset-controller" && e.Verb == "create" && e.ObjectRef.Resource == "pods" &&
				e.RequestURI == "/api/v1/namespaces/default/pods" && e.ResponseStatus.Code == 201 && strings.HasPrefix(e.Annotations["authorization.k8s.io/reason"], "RBAC: allowed by ClusterRoleBinding")
		},
		"the scheduler's binding": func(e auditv1.Event) bool {
			return e.User.Username == "system:kube-scheduler" && e.Verb == "create" && e.ObjectRef.Subresource == "binding"
		},
		"the node's status": func(e auditv1.Event) bool {
			return e.User.Username == "system:node:node-audited" && e.ObjectRef.Resource == "nodes" && e.ObjectRef.Subresource == "status"
		},
	} {
		if !slices.ContainsFunc(all, match) {
			t.Errorf("%s is not in the log", what)
		}
	}
	for _, e := range all {
		if e.Stage == "RequestReceived" || e.RequestURI == "/version" || e.ObjectRef != nil && e.ObjectRef.Resource == "leases" {
			t.Errorf("the policy does not want %+v", e)
		}
	}

	// It is continued, and on standard output as well.
	if err := c.up("--audit-policy-file", policy, "--audit-log-path", "-"); err != nil {
		t.Fatal(err)
	}
	p.http.CloseIdleConnections()
	p.want(t, http.StatusOK, call{path: at("configmaps", "default", "a"), header: map[string]string{"Audit-Id": "again"}}, nil)
	eventually(t, "an event on standard output", func() bool { return strings.Contains(c.daemon.out.String(), `"auditID":"again"`) })
	if err := c.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	refusedRun(t, c.run(t, "up", "--audit-policy-file", policy, "--audit-log-path", log), 2, `--audit-policy-file: `+policy+`: rules\[0\].level: Unsupported value: "Loud": .*`)
	refusedRun(t, c.run(t, "up", "--audit-log-path", log), 2, `--audit-log-path: without --audit-policy-file nothing would be noted`)
}

// A full disk takes events away and nothing else: requests go on, the loss is
// counted, and once there is room the log goes on with a line of its own.
func TestAuditLogOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	disk, policy := filepath.Join(dir, "disk"), filepath.Join(dir, "policy.yaml")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(disk, "audit.log")
	_, p := started(t, "disk-full", "--audit-policy-file", policy, "--audit-log-path", log)
	for i := range 20 {
		p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"),
			body: fmt.Sprintf("metadata: {name: c%d}\ndata: {k: %s}", i, strings.Repeat("x", 20<<10))}, nil)
	}
	metrics := string(p.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)
	if !strings.Contains(metrics, `apiserver_audit_error_total{plugin="log"} `) || strings.Contains(metrics, `apiserver_audit_error_total{plugin="log"} 0`+"\n") {
		t.Error("no event is lost: the disk is not full")
	}
	p.want(t, http.StatusOK, call{path: "/readyz"}, nil)
	if err := os.Truncate(log, 64<<10-7); err != nil {
		t.Fatal(err)
	}
	p.want(t, http.StatusOK, call{path: at("configmaps", "default", "c0"), header: map[string]string{"Audit-Id": "afterwards"}}, nil)
	eventually(t, "the log goes on", func() bool {
		data, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(data), "\n{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"RequestResponse\",\"auditID\":\"afterwards\"")
	})
}

// The log is set aside at a size, and no more of such files are kept than is
// asked for (kube-apiserver's --audit-log-maxsize and --audit-log-maxbackup).
func TestAuditLogIsSetAside(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: RequestResponse}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, p := started(t, "set-aside", "--audit-policy-file", policy, "--audit-log-path", log, "--audit-log-maxsize", "1", "--audit-log-maxbackup", "2", "--audit-log-maxage", "1")
	for i := range 12 {
		p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"),
			body: fmt.Sprintf("metadata: {name: c%d}\ndata: {k: %s}", i, strings.Repeat("x", 200<<10))}, nil)
	}
	eventually(t, "two files set aside", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "audit-*.log"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range append(files, log) {
			if info, err := os.Stat(file); err == nil && info.Size() > 1<<20 {
				t.Errorf("%s has %d bytes", file, info.Size())
			}
		}
		return len(files) == 2
	})
	for _, e := range events(t, log) {
		if e.Stage == "RequestReceived" {
			t.Errorf("a stage that is left out: %+v", e)
		}
	}
}
