package conformance

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/pki"
)

// The API runs alone: its own loops and no others, with the objects that every
// API server makes (envtest's documentation: "no built-in controllers").
func TestAPIAlone(t *testing.T) {
	t.Parallel()
	p := startPlane(t)
	root, nobody := p.as(t, "admin", "system:masters"), p.as(t, "")
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/version"} {
		nobody.want(t, http.StatusOK, call{path: path}, nil)
	}
	for _, path := range []string{
		"/readyz/poststarthook/rbac/bootstrap-roles", "/api/v1/namespaces/default", "/api/v1/namespaces/kube-system", "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
		"/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
	} {
		root.want(t, http.StatusOK, call{path: path}, nil)
	}
	var service corev1.Service
	root.want(t, http.StatusOK, call{path: "/api/v1/namespaces/default/services/kubernetes"}, &service)
	if service.Spec.ClusterIP != "10.0.0.1" {
		t.Errorf("the service kubernetes has address %s", service.Spec.ClusterIP)
	}
	root.want(t, http.StatusNotFound, call{path: "/api/v1/namespaces/kube-system/services/kube-dns"}, nil)
	// What is a part of kube-controller-manager or kube-scheduler does not run.
	for _, name := range []string{"controller-manager", "scheduler"} {
		var c corev1.ComponentStatus
		root.want(t, http.StatusOK, call{path: "/api/v1/componentstatuses/" + name}, &c)
		if c.Conditions[0].Status != corev1.ConditionFalse || c.Conditions[0].Error != "not started" {
			t.Errorf("%s: %+v", name, c.Conditions)
		}
	}
	// Definitions are a part of the API.
	root.want(t, http.StatusCreated, call{method: "POST", path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body: `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.alone.example.com}
spec:
  group: alone.example.com
  scope: Cluster
  names: {kind: Thing, plural: things}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]`}, nil)
	eventually(t, "the definition is served", func() bool {
		return root.do(t, call{path: "/apis/alone.example.com/v1/things"}).code == http.StatusOK
	})
	for line := range strings.Lines(p.api.errs.String()) {
		if !strings.Contains(line, "level=WARN") {
			t.Errorf("the API complains: %s", line)
		}
	}
}

// What one server wrote the next one finds, with the certificate that was made.
func TestAPIAloneAgain(t *testing.T) {
	t.Parallel()
	p := startPlane(t)
	p.as(t, "admin", "system:masters").want(t, http.StatusCreated, call{method: "POST", path: "/api/v1/namespaces", body: `{"metadata": {"name": "kept"}}`}, nil)
	cert, err := os.ReadFile(filepath.Join(p.certs, "apiserver.crt"))
	if err != nil {
		t.Fatal(err)
	}
	p.api.end(t)
	p.start(t)
	p.as(t, "admin", "system:masters").want(t, http.StatusOK, call{path: "/api/v1/namespaces/kept"}, nil)
	if again, err := os.ReadFile(filepath.Join(p.certs, "apiserver.crt")); err != nil || string(again) != string(cert) {
		t.Errorf("the certificate was made anew, %v", err)
	}
}

// Each flag has its effect.
func TestAPIServerFlags(t *testing.T) {
	t.Parallel()
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("secret,ann,1,\"system:masters\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPlane(t, "--etcd-prefix=/elsewhere", "--service-cluster-ip-range=10.7.0.0/16", "--service-node-port-range=31000-31009",
		"--advertise-address=192.0.2.77", "--external-hostname=api.example.com", "--anonymous-auth=false", "--allow-privileged=false",
		"--token-auth-file="+tokens, "--api-audiences=here,there", "--service-account-issuer=https://old.example.com", "--service-account-max-token-expiration=2h",
		"--enable-priority-and-fairness=false", "--max-requests-inflight=50", "--max-mutating-requests-inflight=50")
	root := p.as(t, "admin", "system:masters")

	t.Run("etcd-prefix", func(t *testing.T) {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{p.etcdURL}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for prefix, want := range map[string]int{"/elsewhere/namespaces/default": 1, "/registry/": 0} {
			resp, err := c.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
			if err != nil || len(resp.Kvs) != want {
				t.Errorf("%d keys below %s, %v", len(resp.Kvs), prefix, err)
			}
		}
	})
	t.Run("client-ca-file", func(t *testing.T) {
		var me authenticationv1.SelfSubjectReview
		p.as(t, "bob", "devs").want(t, http.StatusCreated, call{method: "POST", path: "/apis/authentication.k8s.io/v1/selfsubjectreviews", body: "{}"}, &me)
		if u := me.Status.UserInfo; u.Username != "bob" || u.Groups[0] != "devs" {
			t.Errorf("I am %+v", u)
		}
	})
	t.Run("authorization-mode", func(t *testing.T) {
		p.as(t, "bob").do(t, call{path: "/api/v1/pods"}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, `User "bob" cannot list resource "pods"`)
	})
	t.Run("anonymous-auth", func(t *testing.T) {
		p.as(t, "").want(t, http.StatusUnauthorized, call{path: "/healthz"}, nil)
	})
	t.Run("token-auth-file", func(t *testing.T) {
		p.bearing(t, "secret").want(t, http.StatusOK, call{path: "/api/v1/pods"}, nil)
	})
	t.Run("service-cluster-ip-range", func(t *testing.T) {
		var s corev1.Service
		root.want(t, http.StatusCreated, call{method: "POST", path: "/api/v1/namespaces/default/services", body: `{"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}`}, &s)
		if !strings.HasPrefix(s.Spec.ClusterIP, "10.7.") || s.Spec.Ports[0].NodePort < 31000 || s.Spec.Ports[0].NodePort > 31009 {
			t.Errorf("the service has %+v", s.Spec)
		}
	})
	t.Run("advertise-address", func(t *testing.T) {
		var e discoveryv1.EndpointSlice
		root.want(t, http.StatusOK, call{path: "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"}, &e)
		if len(e.Endpoints) != 1 || e.Endpoints[0].Addresses[0] != "192.0.2.77" {
			t.Errorf("the endpoints are %+v", e.Endpoints)
		}
	})
	t.Run("allow-privileged", func(t *testing.T) {
		root.do(t, call{method: "POST", path: "/api/v1/namespaces/default/pods", body: `{"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}}`}).
			refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy")
	})
	t.Run("disable-admission-plugins", func(t *testing.T) {
		// ServiceAccount is off: the pod needs no account.
		var pod corev1.Pod
		root.want(t, http.StatusCreated, call{method: "POST", path: "/api/v1/namespaces/default/pods", body: `{"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}`}, &pod)
		if pod.Spec.ServiceAccountName != "" || len(pod.Spec.Volumes) != 0 {
			t.Errorf("the pod is %+v", pod.Spec)
		}
	})
	t.Run("enable-priority-and-fairness", func(t *testing.T) {
		if a := root.want(t, http.StatusOK, call{path: "/api/v1/pods"}, nil); a.header.Get("X-Kubernetes-Pf-Flowschema-Uid") != "" {
			t.Errorf("the answer has %v", a.header)
		}
	})
	t.Run("service-account", func(t *testing.T) { aloneTokens(t, p, root) })
}

// aloneTokens is about the flags of service accounts' tokens.
func aloneTokens(t *testing.T, p *plane, root *peer) {
	root.want(t, http.StatusCreated, call{method: "POST", path: "/api/v1/namespaces/default/serviceaccounts", body: `{"metadata": {"name": "robot"}}`}, nil)
	var req authenticationv1.TokenRequest
	a := root.want(t, http.StatusCreated, call{method: "POST", path: "/api/v1/namespaces/default/serviceaccounts/robot/token", body: `{"spec": {"expirationSeconds": 86400}}`}, &req)
	if *req.Spec.ExpirationSeconds != 7200 || !strings.Contains(a.header.Get("Warning"), "shortened to 7200 seconds") {
		t.Errorf("the token is for %d s, with %q", *req.Spec.ExpirationSeconds, a.header.Get("Warning"))
	}
	if strings.Join(req.Spec.Audiences, " ") != "here there" {
		t.Errorf("the token is for %v", req.Spec.Audiences)
	}
	var me authenticationv1.SelfSubjectReview
	p.bearing(t, req.Status.Token).want(t, http.StatusCreated, call{method: "POST", path: "/apis/authentication.k8s.io/v1/selfsubjectreviews", body: "{}"}, &me)
	if me.Status.UserInfo.Username != "system:serviceaccount:default:robot" {
		t.Errorf("with the token I am %+v", me.Status.UserInfo)
	}
	var provider struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(root.want(t, http.StatusOK, call{path: "/.well-known/openid-configuration"}, nil).body, &provider); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^https://api\.example\.com:\d+/openid/v1/jwks$`).MatchString(provider.JWKS) || provider.Issuer != p.url+"/" {
		t.Errorf("the issuer is %+v", provider)
	}
	var keys struct{ Keys []any }
	if err := json.Unmarshal(root.want(t, http.StatusOK, call{path: "/openid/v1/jwks"}, nil).body, &keys); err != nil || len(keys.Keys) != 1 {
		t.Errorf("%d keys, %v: both halves of one pair are one", len(keys.Keys), err)
	}
}

// A certificate and etcd's own certificates are in files, and nobody keeps the
// endpoints; who may do what is not asked.
func TestAPIServerFiles(t *testing.T) {
	t.Parallel()
	p := &plane{}
	p.prepare(t)
	ca, err := os.ReadFile(filepath.Join(p.certs, "api-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(p.certs, name) }
	leaf := p.issue(t, pki.Identity{CommonName: "etcd-and-api", Names: []string{"127.0.0.1"}, Server: true, Client: true})
	for name, data := range map[string][]byte{"apiserver.crt": append(leaf.cert, ca...), "server.crt": leaf.cert, "server.key": leaf.key} {
		if err := os.WriteFile(file(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.etcdURL = "https://127.0.0.1:" + freePort(t)
	begun(t, asset(t, "etcd", "--listen-client-urls="+p.etcdURL, "--advertise-client-urls="+p.etcdURL, "--listen-peer-urls=http://127.0.0.1:"+freePort(t),
		"--data-dir="+t.TempDir(), "--cert-file="+file("server.crt"), "--key-file="+file("server.key"), "--client-cert-auth", "--trusted-ca-file="+file("api-ca.crt")))
	p.start(t, "--etcd-cafile="+file("api-ca.crt"), "--etcd-certfile="+file("server.crt"), "--etcd-keyfile="+file("server.key"),
		"--tls-cert-file="+file("server.crt"), "--tls-private-key-file="+file("server.key"), "--cert-dir=/no/such/place",
		"--endpoint-reconciler-type=none", "--authorization-mode=AlwaysAllow")
	p.as(t, "bob").want(t, http.StatusOK, call{path: "/api/v1/secrets"}, nil)
	p.as(t, "bob").want(t, http.StatusNotFound, call{path: "/api/v1/namespaces/default/endpoints/kubernetes"}, nil)
	// AlwaysAllow and nobody in particular would be everybody's.
	p.as(t, "").want(t, http.StatusUnauthorized, call{path: "/api/v1/secrets"}, nil)
}

// A whole cluster, too, can have its objects in an etcd elsewhere.
func TestClusterOverAnotherEtcd(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "etcd")
	socket := "unix://" + file
	begun(t, asset(t, "etcd", "--listen-client-urls="+socket, "--advertise-client-urls="+socket,
		"--listen-peer-urls=http://127.0.0.1:"+freePort(t), "--data-dir="+t.TempDir(), "--unsafe-no-fsync"))
	eventually(t, "etcd listens", func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
	c := own(t, "etcd")
	if err := c.up("--etcd-endpoints="+socket, "--etcd-prefix=/cluster"); err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{socket}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	resp, err := client.Get(t.Context(), "/cluster/minions/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 1 {
		t.Errorf("%v nodes in etcd, %v", resp, err)
	}
	if _, err := os.Stat(filepath.Join(c.dir, "etcd")); !os.IsNotExist(err) {
		t.Errorf("the data directory has an etcd: %v", err)
	}
}

// TestEnvtestPrograms: what envtest asks of its programs before it runs them.
func TestEnvtestPrograms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, flag string
		code       int
		pattern    string
	}{
		{"kube-apiserver", "--help", 0, `(?m)^\s*--etcd-servers\b`},
		{"kube-apiserver", "--version", 0, `^Kubernetes v1\.37\.2\+hansa\.`},
		{"kube-apiserver", "--watch-cache=false", 2, `^hansa: --watch-cache is a flag of kube-apiserver that hansa apiserver does not have; leave it out\n$`},
		{"kube-apiserver", "--insecure-port=0", 2, `^hansa: unknown flag: --insecure-port; `},
		{"kube-apiserver", "--secure-port=0", 2, `^hansa: --etcd-servers: must be specified\n$`},
		{"etcd", "--help", 0, `(?m)^\s*--unsafe-no-fsync\b`},
		{"etcd", "--version", 0, `^etcd Version: 3\.7\.`},
		{"etcd", "--initial-cluster=a=http://a:1,b=http://b:1", 2, `^hansa: --initial-cluster: this etcd has a single member`},
		{"etcd", "--auto-compaction-retention=1", 2, `^hansa: unknown flag: --auto-compaction-retention; `},
		{"kubectl", "--help", 0, `^kubectl controls the Kubernetes cluster manager`},
	} {
		cmd := asset(t, c.name, c.flag)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.code || !regexp.MustCompile(c.pattern).Match(out) {
			t.Errorf("%s %s: exit status %d, %v; %s", c.name, c.flag, cmd.ProcessState.ExitCode(), err, out)
		}
	}
}
