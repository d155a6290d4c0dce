package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hansa.dev/hansa/pki"
)

// certificate is a client of the shared cluster whose certificate an authority
// of its data directory has signed.
func certificate(t *testing.T, authority func(*pki.Authority) *pki.CA, id pki.Identity) *peer {
	t.Helper()
	a, err := pki.Open(filepath.Join(shared.dir, "pki"), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return bearing(t, authority(a), id)
}

func bearing(t *testing.T, ca *pki.CA, id pki.Identity) *peer {
	t.Helper()
	cert, err := ca.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return as(t, func(c *rest.Config) {
		for _, der := range cert.Certificate {
			c.CertData = append(c.CertData, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		c.KeyData = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	})
}

func apiCA(a *pki.Authority) *pki.CA { return a.API }

// whoami asks the server whom it takes a client for.
func (p *peer) whoami(t *testing.T) (answer, authenticationv1.UserInfo) {
	t.Helper()
	var review authenticationv1.SelfSubjectReview
	a := p.do(t, call{method: "POST", path: at("selfsubjectreviews", ""), body: "{apiVersion: authentication.k8s.io/v1, kind: SelfSubjectReview}"})
	if a.code == http.StatusCreated {
		a.into(t, &review)
	}
	return a, review.Status.UserInfo
}

// "Authenticating", X.509 client certificates: common name and organisations are
// the user and groups; those of another authority are refused.
func TestClientCertificates(t *testing.T) {
	_, me := admin.whoami(t)
	if me.Username != "hansa-admin" || !slices.Equal(me.Groups, []string{"system:masters", "system:authenticated"}) {
		t.Errorf("the administrator is %+v", me)
	}
	eve := certificate(t, apiCA, pki.Identity{CommonName: "eve", Organizations: []string{"one", "two"}})
	if _, u := eve.whoami(t); u.Username != "eve" || !slices.Equal(u.Groups, []string{"one", "two", "system:authenticated"}) {
		t.Errorf("eve is %+v", u)
	}
	eve.do(t, call{path: at("pods", "default")}).refused(t, 403, metav1.StatusReasonForbidden, `pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "default"`)
	for name, ca := range map[string]func(*pki.Authority) *pki.CA{
		"etcd's":            func(a *pki.Authority) *pki.CA { return a.Etcd },
		"the front proxy's": func(a *pki.Authority) *pki.CA { return a.FrontProxy },
	} {
		p := certificate(t, ca, pki.AdminIdentity())
		if a := p.do(t, call{path: at("pods", "default")}); a.code != http.StatusUnauthorized {
			t.Errorf("a certificate of %s authority: %d %s", name, a.code, a.body)
		}
	}
	foreign, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	bearing(t, foreign.API, pki.AdminIdentity()).do(t, call{path: at("pods", "default")}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
}

// The server shows a certificate of the cluster's own authority for each of its
// names, and speaks TLS 1.2 and newer only.
func TestServerCertificate(t *testing.T) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(admin.config.CAData)
	address := strings.TrimPrefix(admin.config.Host, "https://")
	for _, name := range []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1", "10.43.0.1", shared.address.String()} {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Errorf("as %s: %v", name, err)
			continue
		}
		if leaf := conn.ConnectionState().PeerCertificates[0]; len(conn.ConnectionState().VerifiedChains) == 0 || leaf.IsCA {
			t.Errorf("as %s: chain %v", name, leaf.Subject)
		}
		conn.Close()
	}
	if _, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, ServerName: "example.com"}); err == nil {
		t.Error("the certificate is good for example.com")
	}
	if _, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, ServerName: "kubernetes", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
	buf := make([]byte, 100)
	n, _ := conn.Read(buf) // whatever comes is shown
	if !strings.HasPrefix(string(buf[:n]), "HTTP/1.0 400") {
		t.Errorf("without TLS the server answers %q", buf[:n])
	}
}

// "Anonymous requests" are let in to health and version alone.
func TestAnonymous(t *testing.T) {
	nobody := as(t, func(*rest.Config) {})
	for path, code := range map[string]int{
		"/healthz": 200, "/livez": 200, "/readyz": 200, "/version": 200, "/version/": 200,
		"/": 401, "/api": 401, "/apis": 401, "/api/v1": 401, "/openapi/v2": 401, "/openapi/v3": 401, "/metrics": 401,
		"/api/v1/namespaces": 401, "/api/v1/namespaces/default/pods": 401, "/nonsense": 401, "/healthzz": 401, "/readyz/ping": 401, "/version/x": 401,
		"/apis/authentication.k8s.io/v1/selfsubjectreviews": 401, "/.well-known/openid-configuration": 401,
	} {
		if a := nobody.do(t, call{path: path}); a.code != code {
			t.Errorf("%s: %d, want %d", path, a.code, code)
		}
	}
	if a := nobody.do(t, call{method: "POST", path: "/version", body: "{}"}); a.code != 403 && a.code != 401 {
		t.Errorf("POST /version: %d", a.code)
	}
	wrong := withToken(t, "nonsense")
	for _, path := range []string{"/version", "/api/v1/namespaces"} {
		wrong.do(t, call{path: path}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	}
}

// tokenOf asks for a token of a service account; spec is that of the request.
func tokenOf(t *testing.T, ns, account, spec string) authenticationv1.TokenRequest {
	t.Helper()
	var r authenticationv1.TokenRequest
	admin.want(t, http.StatusCreated, call{method: "POST", path: at("serviceaccounts", ns, account, "token"), body: "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: " + spec + "}"}, &r)
	return r
}

// "TokenRequest": a token is its account, with its groups, for its audiences
// and time.
func TestServiceAccountTokens(t *testing.T) {
	ns := namespace(t)
	account := create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	r := tokenOf(t, ns, "robot", "{expirationSeconds: 700}")
	if left := r.Status.ExpirationTimestamp.Sub(account.GetCreationTimestamp().Time).Seconds(); left < 650 || left > 800 || r.Spec.ExpirationSeconds == nil || *r.Spec.ExpirationSeconds != 700 {
		t.Errorf("a token for 700 s ends %.0f s after the account was made; spec %+v", left, r.Spec)
	}
	if m := r.ManagedFields; len(m) != 1 || m[0].Subresource != "token" || m[0].APIVersion != "authentication.k8s.io/v1" || string(m[0].FieldsV1.Raw) != `{"f:spec":{"f:expirationSeconds":{}}}` {
		t.Errorf("the request's managers are %+v", m)
	}
	robot := withToken(t, r.Status.Token)
	_, u := robot.whoami(t)
	want := []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, "system:authenticated"}
	if u.Username != "system:serviceaccount:"+ns+":robot" || u.UID != string(account.GetUID()) || !slices.Equal(u.Groups, want) || len(u.Extra["authentication.kubernetes.io/credential-id"]) != 1 {
		t.Errorf("the robot is %+v", u)
	}
	robot.do(t, call{path: at("secrets", ns)}).refused(t, 403, metav1.StatusReasonForbidden, "cannot list resource \"secrets\"")
	withToken(t, tokenOf(t, ns, "robot", "{audiences: [elsewhere]}").Status.Token).
		do(t, call{path: at("pods", ns)}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	broken := r.Status.Token[:len(r.Status.Token)-4] + "AAAA"
	withToken(t, broken).do(t, call{path: at("pods", ns)}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")

	post := func(spec string) answer {
		return admin.do(t, call{method: "POST", path: at("serviceaccounts", ns, "robot", "token"), body: "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: " + spec + "}"})
	}
	post("{expirationSeconds: 5}").refused(t, 422, metav1.StatusReasonInvalid, "spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes")
	post("{boundObjectRef: {kind: Pod, apiVersion: v1, name: none}}").refused(t, 404, metav1.StatusReasonNotFound, `pods "none" not found`)
	post("{boundObjectRef: {kind: ConfigMap, apiVersion: v1, name: none}}").refused(t, 400, metav1.StatusReasonBadRequest, "cannot bind token to object of type /v1, Kind=ConfigMap")

	admin.want(t, http.StatusOK, deleteCall("serviceaccounts", ns, "robot", ""), nil)
	robot.do(t, call{path: at("pods", ns)}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	if a, _ := robot.whoami(t); a.code != http.StatusUnauthorized {
		t.Errorf("the token of a former account of that name: %d", a.code)
	}
}

// "Bound service account tokens": dead with the pod or secret they are bound to.
func TestBoundTokens(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	pod := create(t, "pods", ns, "metadata: {name: p}\nspec: {nodeName: "+node+", serviceAccountName: robot, containers: [{name: c, image: i}]}")
	secret := create(t, "secrets", ns, "metadata: {name: s}")
	ref := func(kind, name, uid string) string {
		return fmt.Sprintf("{boundObjectRef: {apiVersion: v1, kind: %s, name: %s, uid: %q}}", kind, name, uid)
	}
	byPod := withToken(t, tokenOf(t, ns, "robot", ref("Pod", "p", string(pod.GetUID()))).Status.Token)
	bySecret := withToken(t, tokenOf(t, ns, "robot", ref("Secret", "s", "")).Status.Token)
	_, u := byPod.whoami(t)
	for key, want := range map[string]string{
		"authentication.kubernetes.io/pod-name": "p", "authentication.kubernetes.io/pod-uid": string(pod.GetUID()),
		"authentication.kubernetes.io/node-name": node,
	} {
		if got := u.Extra[key]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %v, want %s", key, got, want)
		}
	}
	admin.do(t, call{method: "POST", path: at("serviceaccounts", ns, "robot", "token"), body: "{spec: " + ref("Pod", "p", "other") + "}"}).
		refused(t, 409, metav1.StatusReasonConflict, "the UID in the bound object reference (other) does not match the UID in record")
	create(t, "pods", ns, podOf("other-account"))
	admin.do(t, call{method: "POST", path: at("serviceaccounts", ns, "robot", "token"), body: "{spec: " + ref("Pod", "other-account", "") + "}"}).
		refused(t, 400, metav1.StatusReasonBadRequest, "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.")

	admin.want(t, http.StatusOK, deleteCall("pods", ns, "p", "{gracePeriodSeconds: 0}"), nil)
	if a, _ := byPod.whoami(t); a.code != http.StatusUnauthorized {
		t.Errorf("the token outlives its pod: %d", a.code)
	}
	create(t, "pods", ns, "metadata: {name: p}\nspec: {nodeName: "+node+", serviceAccountName: robot, containers: [{name: c, image: i}]}")
	if a, _ := byPod.whoami(t); a.code != http.StatusUnauthorized {
		t.Errorf("the token is good for another pod of that name: %d", a.code)
	}
	if a, _ := bySecret.whoami(t); a.code != http.StatusCreated {
		t.Errorf("the token of a living secret: %d", a.code)
	}
	admin.want(t, http.StatusOK, deleteCall("secrets", ns, "s", ""), nil)
	if a, _ := bySecret.whoami(t); a.code != http.StatusUnauthorized {
		t.Errorf("the token outlives secret %s: %d", secret.GetName(), a.code)
	}
}

// "Manual Secret management for ServiceAccounts": a secret gets a token without
// end, good while the secret and the account are there.
func TestTokensInSecrets(t *testing.T) {
	ns := namespace(t)
	create(t, "serviceaccounts", ns, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot}, secrets: [{name: listed}]}")
	account := get(t, "serviceaccounts", ns, "robot")
	secret := func(name string) *corev1.Secret {
		t.Helper()
		create(t, "secrets", ns, "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: "+name+", annotations: {kubernetes.io/service-account.name: robot}}}")
		var s corev1.Secret
		eventually(t, "the secret has a token", func() bool {
			s = corev1.Secret{}
			admin.want(t, http.StatusOK, call{path: at("secrets", ns, name)}, &s)
			return len(s.Data["token"]) > 0
		})
		return &s
	}
	s := secret("listed")
	if string(s.Data["namespace"]) != ns || string(s.Data["ca.crt"]) != string(admin.config.CAData) || s.Annotations["kubernetes.io/service-account.uid"] != string(account.GetUID()) {
		t.Errorf("the secret was filled with %v, annotations %v", s.Data, s.Annotations)
	}
	robot := withToken(t, string(s.Data["token"]))
	if _, u := robot.whoami(t); u.Username != "system:serviceaccount:"+ns+":robot" || u.UID != string(account.GetUID()) || len(u.Extra) > 0 ||
		!slices.Equal(u.Groups, []string{"system:serviceaccounts", "system:serviceaccounts:" + ns, "system:authenticated"}) {
		t.Errorf("the bearer of the secret's token is %+v", u)
	}
	day := get(t, "secrets", ns, "listed").GetLabels()["kubernetes.io/legacy-token-last-used"]
	if _, err := time.Parse(time.DateOnly, day); err != nil {
		t.Errorf("the secret was last used on %q", day)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("secrets", ns, "listed")}, nil)
	robot.do(t, call{path: at("pods", ns)}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	eventually(t, "the account lists no secret that is gone", func() bool {
		var a corev1.ServiceAccount
		admin.want(t, http.StatusOK, call{path: at("serviceaccounts", ns, "robot")}, &a)
		return len(a.Secrets) == 0
	})

	robot = withToken(t, string(secret("second").Data["token"]))
	if a, _ := robot.whoami(t); a.code != http.StatusCreated {
		t.Errorf("the bearer of the second token: %d %s", a.code, a.body)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("serviceaccounts", ns, "robot")}, nil)
	robot.do(t, call{path: at("pods", ns)}).refused(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
	eventually(t, "the token goes with its account", func() bool { return gone(t, "secrets", ns, "second") })
}

// "TokenReview" tells others who bears a token, for which audience.
func TestTokenReview(t *testing.T) {
	ns := namespace(t)
	create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	review := func(token, audiences string) authenticationv1.TokenReviewStatus {
		var r authenticationv1.TokenReview
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("tokenreviews", ""), body: fmt.Sprintf("{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {token: %q%s}}", token, audiences)}, &r)
		return r.Status
	}
	token := tokenOf(t, ns, "robot", "{audiences: [shop, bank]}").Status.Token
	if s := review(token, ", audiences: [bank, other]"); !s.Authenticated || s.User.Username != "system:serviceaccount:"+ns+":robot" || !slices.Equal(s.Audiences, []string{"bank"}) {
		t.Errorf("for its audience: %+v", s)
	}
	if s := review(token, ""); s.Authenticated {
		t.Errorf("for the server's own audience: %+v", s)
	}
	if s := review("nonsense", ""); s.Authenticated || s.Error == "" {
		t.Errorf("of nonsense: %+v", s)
	}
	if s := review(tokenOf(t, ns, "robot", "{}").Status.Token, ""); !s.Authenticated {
		t.Errorf("of an ordinary token: %+v", s)
	}
	admin.do(t, call{method: "POST", path: at("tokenreviews", ""), body: "{apiVersion: authentication.k8s.io/v1, kind: TokenReview}"}).
		refused(t, 400, metav1.StatusReasonBadRequest, "token is required for TokenReview in authentication")
	admin.do(t, call{path: at("tokenreviews", "")}).refused(t, 405, metav1.StatusReasonMethodNotAllowed, "")
}

// "User impersonation": by headers, if allowed to.
func TestImpersonation(t *testing.T) {
	ns := namespace(t)
	if _, u := impersonating(t, "ann", "staff").whoami(t); u.Username != "ann" || !slices.Equal(u.Groups, []string{"staff", "system:authenticated"}) {
		t.Errorf("ann is %+v", u)
	}
	if _, u := impersonating(t, "system:serviceaccount:"+ns+":robot").whoami(t); !slices.Contains(u.Groups, "system:serviceaccounts:"+ns) {
		t.Errorf("the robot is %+v", u)
	}
	eve := certificate(t, apiCA, pki.Identity{CommonName: "eve"})
	eve.do(t, call{path: at("pods", ns), header: map[string]string{"Impersonate-User": "ann"}}).
		refused(t, 403, metav1.StatusReasonForbidden, `pods is forbidden: User "eve" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "`+ns+`"`)
	eve.do(t, call{path: at("pods", ns), header: map[string]string{"Impersonate-User": "eve", "Impersonate-Group": "system:masters"}}).
		refused(t, 403, metav1.StatusReasonForbidden, "cannot impersonate-on:user-info:list resource")
}

// makeAccount makes a service account and its client.
func makeAccount(t *testing.T, ns, name string) *peer {
	t.Helper()
	if _, err := kube.CoreV1().ServiceAccounts(ns).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return withToken(t, tokenOf(t, ns, name, "{}").Status.Token)
}
