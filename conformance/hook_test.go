package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ourAddress is that of the tests' end of the link to the shared cluster.
func ourAddress(t *testing.T) netip.Addr {
	t.Helper()
	u, err := url.Parse(admin.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	node, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		t.Fatal(err)
	}
	return node.Prev()
}

// served is a server that the cluster reaches, whose certificate has names beside
// its address.
func served(t *testing.T, handler http.HandlerFunc, names ...string) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(ourAddress(t), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t, ourAddress(t), names...)}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// bundleOf is the authority of a server as configurations have it.
func bundleOf(s *httptest.Server) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// selfSigned is a certificate for an address and names, which is its own
// authority.
func selfSigned(t *testing.T, address netip.Addr, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "webhook"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{address.AsSlice()}, DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// opinion is what a webhook says of a request. Nil: it has no objection.
type opinion func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

// hook is a server of admission webhooks, by path.
type hook struct {
	*httptest.Server
	namespace string

	mu    sync.Mutex
	asked []string // PATH OPERATION RESOURCE[/SUBRESOURCE] NAME
	seen  []*admissionv1.AdmissionRequest
}

// hooks starts a server of webhooks, which are asked about a namespace.
func hooks(t *testing.T, ns string, opinions map[string]opinion, names ...string) *hook {
	t.Helper()
	h := &hook{namespace: ns}
	h.Server = served(t, func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
			return
		}
		q := review.Request
		h.note(r.URL.Path, q)
		var answer *admissionv1.AdmissionResponse
		if of := opinions[r.URL.Path]; of != nil {
			answer = of(q)
		}
		if answer == nil {
			answer = &admissionv1.AdmissionResponse{Allowed: true}
		}
		if answer.UID == "" {
			answer.UID = q.UID
		}
		review.Request, review.Response = nil, answer
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&review)
	}, names...)
	return h
}

func (h *hook) note(path string, q *admissionv1.AdmissionRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	resource := q.Resource.Resource
	if q.SubResource != "" {
		resource += "/" + q.SubResource
	}
	h.asked = append(h.asked, strings.TrimSpace(strings.Join([]string{path, string(q.Operation), resource, q.Name}, " ")))
	h.seen = append(h.seen, q)
}

// take gives what was asked since the last time.
func (h *hook) take() (asked []string, seen []*admissionv1.AdmissionRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	asked, seen = h.asked, h.seen
	h.asked, h.seen = nil, nil
	return asked, seen
}

// expect compares what was asked since the last time.
func (h *hook) expect(t *testing.T, what string, want ...string) []*admissionv1.AdmissionRequest {
	t.Helper()
	asked, seen := h.take()
	if !slices.Equal(asked, want) {
		t.Errorf("%s: asked %q, want %q", what, asked, want)
	}
	return seen
}

// rule is a rule of a webhook: "GROUP/VERSION RESOURCES OPERATIONS", lists by
// commas.
func rule(text string) string {
	parts := strings.Fields(text)
	group, version, _ := strings.Cut(parts[0], "/")
	return fmt.Sprintf("{apiGroups: [%q], apiVersions: [%q], resources: [%s], operations: [%s]}", group, version, quoted(parts[1]), quoted(parts[2]))
}

func quoted(list string) string { return `"` + strings.ReplaceAll(list, ",", `","`) + `"` }

// webhook is an entry of a configuration, asked at a path about what a rule names.
// more overrides anything, as flow-style YAML.
func (h *hook) webhook(path, of string, more ...string) string {
	fields := map[string]string{
		"name":                    strings.TrimPrefix(path, "/") + ".example.com",
		"clientConfig":            fmt.Sprintf("{url: %q, caBundle: %q}", h.URL+path, bundleOf(h.Server)),
		"sideEffects":             "None",
		"admissionReviewVersions": "[v1]",
		"namespaceSelector":       fmt.Sprintf("{matchLabels: {kubernetes.io/metadata.name: %q}}", h.namespace),
		"rules":                   "[" + rule(of) + "]",
	}
	for _, m := range more {
		name, value, _ := strings.Cut(m, ": ")
		fields[name] = value
	}
	var list []string
	for name, value := range fields {
		if value != "" {
			list = append(list, name+": "+value)
		}
	}
	return "{" + strings.Join(list, ", ") + "}"
}

const (
	mutatingHooks   = "mutatingwebhookconfigurations"
	validatingHooks = "validatingwebhookconfigurations"
)

func init() {
	groups[mutatingHooks], groups[validatingHooks] = "admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1"
}

// configure writes a configuration, which ends with the test, and answers with
// its name.
func configure(t *testing.T, resource, suffix string, webhooks ...string) string {
	t.Helper()
	name := namespaceName(t) + suffix
	kind := map[string]string{mutatingHooks: "MutatingWebhookConfiguration", validatingHooks: "ValidatingWebhookConfiguration"}[resource]
	create(t, resource, "", fmt.Sprintf("{apiVersion: admissionregistration.k8s.io/v1, kind: %s, metadata: {name: %s}, webhooks: [%s]}",
		kind, name, strings.Join(webhooks, ", ")))
	t.Cleanup(func() { unconfigure(t, resource, name) })
	return name
}

func unconfigure(t *testing.T, resource, name string) {
	t.Helper()
	if err := kube.AdmissionregistrationV1().RESTClient().Delete().Resource(resource).Name(name).Do(background).Error(); err != nil && !strings.Contains(err.Error(), "not found") {
		t.Error(err)
	}
}

// deny refuses everything with a message.
func deny(message string) opinion {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
	}
}

// patches allows, with a JSON patch.
func patches(patch string) opinion {
	return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return patching(patch) }
}

func patching(patch string) *admissionv1.AdmissionResponse {
	kind := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(patch), PatchType: &kind}
}

// mapNamed is a ConfigMap to be created.
func mapNamed(name, more string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, %s}", name, more)
}
