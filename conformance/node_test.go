package conformance

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hansa.dev/hansa/pki"
)

// nodeClient has the identity of a node, signed as its agent's is.
func nodeClient(t *testing.T, name string) *peer {
	t.Helper()
	return certificate(t, apiCA, pki.NodeIdentity(name))
}

// "Using Node Authorization": a node reads what its own pods refer to, and
// nothing else.
func TestNodeAuthorizer(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	other := node + "-other"
	create(t, "nodes", "", "metadata: {name: "+other+"}")
	n := nodeClient(t, node)
	for _, name := range []string{"mounted", "env", "pull", "unused", "others"} {
		create(t, "secrets", ns, "metadata: {name: "+name+"}")
		create(t, "configmaps", ns, "metadata: {name: "+name+"}")
	}
	create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	pod := `
metadata: {name: %s}
spec:
  nodeName: %s
  serviceAccountName: robot
  imagePullSecrets: [{name: pull}]
  volumes: [{name: v, secret: {secretName: %[3]s}}, {name: w, configMap: {name: %[3]s}}]
  containers: [{name: c, image: i, envFrom: [{secretRef: {name: env}}, {configMapRef: {name: env}}]}]`
	create(t, "pods", ns, fmt.Sprintf(pod, "mine", node, "mounted"))
	create(t, "pods", ns, fmt.Sprintf(pod, "theirs", other, "others"))
	for path, want := range map[string]int{
		at("secrets", ns, "mounted"): 200, at("secrets", ns, "env"): 200, at("secrets", ns, "pull"): 200,
		at("configmaps", ns, "mounted"): 200, at("configmaps", ns, "env"): 200,
		at("secrets", ns, "unused"): 403, at("configmaps", ns, "unused"): 403, at("secrets", ns, "others"): 403, at("configmaps", ns, "others"): 403,
		at("secrets", ns): 403, at("secrets", ""): 403, at("secrets", ns, "none"): 403,
		at("secrets", ns) + "?fieldSelector=metadata.name%3Dmounted":                          200,
		at("secrets", ns) + "?fieldSelector=metadata.name%3Dunused":                           403,
		at("secrets", ns) + "?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dmounted": 200,
		at("secrets", ns) + "?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dunused":  403,
		at("secrets", ns) + "?watch=1&timeoutSeconds=1":                                       403,
		at("nodes", "", node): 200,
		at("services", ""):    200,
		at("pods", "") + "?fieldSelector=spec.nodeName%3D" + node: 200,
		at("leases", "kube-node-lease", node):                     404,
		at("leases", "kube-node-lease", other):                    403,
		at("leases", ns, node):                                    403,
		at("roles", ns):                                           403,
		at("serviceaccounts", ns, "robot"):                        200,
		at("serviceaccounts", ns, "default"):                      403,
	} {
		if a := n.do(t, call{path: path}); a.code != want {
			t.Errorf("GET %s: %d, want %d: %s", path, a.code, want, a.body)
		}
	}
	n.do(t, call{path: at("secrets", ns, "unused")}).refused(t, 403, metav1.StatusReasonForbidden, "no relationship found between node '"+node+"' and this object")
	bound := "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: {boundObjectRef: {apiVersion: v1, kind: Pod, name: %s, uid: %s}}}"
	token := func(name string) answer {
		uid := get(t, "pods", ns, name).GetUID()
		return n.do(t, call{method: "POST", path: at("serviceaccounts", ns, "robot", "token"), body: fmt.Sprintf(bound, name, uid)})
	}
	if a := token("mine"); a.code != http.StatusCreated {
		t.Errorf("a token for its own pod: %d %s", a.code, a.body)
	}
	token("theirs").refused(t, 403, metav1.StatusReasonForbidden, "node requested token bound to a pod scheduled on a different node")
	n.do(t, call{method: "POST", path: at("serviceaccounts", ns, "robot", "token"), body: "{spec: {}}"}).
		refused(t, 403, metav1.StatusReasonForbidden, "node requested token not bound to a pod")
	admin.want(t, http.StatusOK, deleteCall("pods", ns, "mine", "{gracePeriodSeconds: 0}"), nil)
	if a := n.do(t, call{path: at("secrets", ns, "mounted")}); a.code != http.StatusForbidden {
		t.Errorf("a secret of a pod that is gone: %d", a.code)
	}
}

// "NodeRestriction": a node writes its own node, lease and pods only, and not
// the labels and taints that decide who comes to it.
func TestNodeRestriction(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	other := node + "-other"
	create(t, "nodes", "", "metadata: {name: "+other+"}")
	create(t, "pods", ns, podOn("mine", node))
	create(t, "pods", ns, podOn("theirs", other))
	n := nodeClient(t, node)
	merge := func(path, body string) call {
		return call{method: "PATCH", path: path, contentType: mergePatch, body: body}
	}
	for _, c := range []struct {
		what    string
		call    call
		code    int
		message string
	}{
		{"its status", merge(at("nodes", "", node, "status"), `{"status":{"capacity":{"cpu":"4"}}}`), 200, ""},
		{"another's status", merge(at("nodes", "", other, "status"), `{"status":{"capacity":{"cpu":"4"}}}`), 403, `node "` + node + `" is not allowed to modify node "` + other + `"`},
		{"a free label of its own", merge(at("nodes", "", node), `{"metadata":{"labels":{"example.com/a":"b"}}}`), 200, ""},
		{"a label of the kubelet's", merge(at("nodes", "", node), `{"metadata":{"labels":{"kubernetes.io/os":"linux"}}}`), 200, ""},
		{"a reserved label", merge(at("nodes", "", node), `{"metadata":{"labels":{"node-restriction.kubernetes.io/a":"b"}}}`), 403, "is not allowed to modify labels: node-restriction.kubernetes.io/a"},
		{"its taints", merge(at("nodes", "", node), `{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`), 403, "is not allowed to modify taints"},
		{"its own deletion", call{method: "DELETE", path: at("nodes", "", node)}, 403, ""},
		{"another node", call{method: "POST", path: at("nodes", ""), body: "metadata: {name: " + node + "-new}"}, 403, "is not allowed to modify node"},
		{"its pod's status", merge(at("pods", ns, "mine", "status"), `{"status":{"message":"x"}}`), 200, ""},
		{"another's pod's status", merge(at("pods", ns, "theirs", "status"), `{"status":{"message":"x"}}`), 403, "can only update pod status for pods with spec.nodeName set to itself"},
		{"its pod's spec", merge(at("pods", ns, "mine"), `{"metadata":{"labels":{"a":"b"}}}`), 403, ""},
		{"a pod of nobody", call{method: "POST", path: at("pods", ns), body: podOn("new", node)}, 403, "can only create mirror pods"},
		{"its lease", call{method: "POST", path: at("leases", "kube-node-lease"), body: "metadata: {name: " + node + "}"}, 201, ""},
		{"another's lease", call{method: "POST", path: at("leases", "kube-node-lease"), body: "metadata: {name: " + other + "}"}, 403, ""},
		{"a lease elsewhere", call{method: "POST", path: at("leases", ns), body: "metadata: {name: " + node + "}"}, 403, ""},
		{"a secret", call{method: "POST", path: at("secrets", ns), body: "metadata: {name: x}"}, 403, ""},
		{"an event", call{method: "POST", path: at("events", ns), body: "metadata: {name: e}\ninvolvedObject: {kind: Pod, name: mine, namespace: " + ns + "}"}, 201, ""},
		{"another's pod's deletion", call{method: "DELETE", path: at("pods", ns, "theirs")}, 403, "can only delete pods with spec.nodeName set to itself"},
		{"its pod's eviction", call{method: "POST", path: at("pods", ns, "theirs", "eviction"), body: "{apiVersion: policy/v1, kind: Eviction, metadata: {name: theirs}}"}, 403, "can only evict pods with spec.nodeName set to itself"},
		{"its pod's deletion", call{method: "DELETE", path: at("pods", ns, "mine"), body: "{gracePeriodSeconds: 0}"}, 200, ""},
	} {
		a := n.do(t, c.call)
		if c.code == http.StatusForbidden {
			if s := a.refused(t, 403, metav1.StatusReasonForbidden, c.message); t.Failed() {
				t.Fatalf("%s: %s", c.what, s.Message)
			}
		} else if a.code != c.code {
			t.Errorf("%s: %d, want %d: %s", c.what, a.code, c.code, a.body)
		}
	}
	certificate(t, apiCA, pki.Identity{CommonName: "system:node:", Organizations: []string{"system:nodes"}}).
		do(t, call{path: at("nodes", "")}).refused(t, 403, metav1.StatusReasonForbidden, "")
}

// The node's own API knows callers as the API server does, by certificate or
// token, and asks the roles for a subresource of the node ("Kubelet
// authentication/authorization"): so monitoring scrapes it.
func TestNodeAPI(t *testing.T) {
	ns := namespace(t)
	account := makeAccount(t, ns, "monitor")
	anonymous := as(t, func(*rest.Config) {})
	bad := withToken(t, account.config.BearerToken+"x")
	owner := as(t, func(c *rest.Config) { c.TLSClientConfig = admin.config.TLSClientConfig })
	for _, p := range []*peer{account, anonymous, bad, owner} {
		p.config.Host = "https://" + net.JoinHostPort(shared.address.String(), "10250")
	}
	want := func(p *peer, path string, code int) {
		t.Helper()
		if a := p.do(t, call{path: path}); a.code != code {
			t.Errorf("%s gave %d, want %d: %.200s", path, a.code, code, a.body)
		}
	}
	for _, path := range []string{"/healthz", "/metrics/resource", "/pods", "/version"} {
		want(anonymous, path, http.StatusUnauthorized)
		want(bad, path, http.StatusUnauthorized)
	}
	want(owner, "/pods", http.StatusOK)
	want(account, "/metrics/resource", http.StatusForbidden)
	want(account, "/healthz", http.StatusForbidden)
	create(t, "clusterroles", "", "{metadata: {name: "+ns+"}, rules: [{apiGroups: [''], resources: [nodes/metrics], verbs: [get]}]}")
	create(t, "clusterrolebindings", "", "{metadata: {name: "+ns+"}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "+ns+"}, subjects: [{kind: ServiceAccount, namespace: "+ns+", name: monitor}]}")
	eventually(t, "the role counts", func() bool { return account.do(t, call{path: "/metrics/resource"}).code == http.StatusOK })
	want(account, "/pods", http.StatusForbidden)
}
