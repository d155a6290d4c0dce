package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// The administrator's clients of the shared cluster.
var (
	admin *peer
	kube  kubernetes.Interface
	dyn   dynamic.Interface
	metas metadata.Interface
)

func makeClients(c *cluster) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	if admin, err = newPeer(config); err != nil {
		return err
	}
	if kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if dyn, err = dynamic.NewForConfig(config); err != nil {
		return err
	}
	metas, err = metadata.NewForConfig(config)
	return err
}

// peer is a plain HTTP client with an identity.
type peer struct {
	config *rest.Config
	http   *http.Client
}

func newPeer(config *rest.Config) (*peer, error) {
	client, err := rest.HTTPClientFor(config)
	return &peer{config, client}, err
}

// as is a client of the shared cluster with another identity, which change
// gives to a configuration that has none.
func as(t *testing.T, change func(*rest.Config)) *peer {
	t.Helper()
	config := rest.AnonymousClientConfig(admin.config)
	change(config)
	p, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// withToken is the client that bears a token.
func withToken(t *testing.T, token string) *peer {
	t.Helper()
	return as(t, func(c *rest.Config) { c.BearerToken = token })
}

// impersonating is the administrator acting as somebody else.
func impersonating(t *testing.T, user string, groups ...string) *peer {
	t.Helper()
	config := rest.CopyConfig(admin.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	p, err := newPeer(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// call is one request; its zero parts are those of a plain GET.
type call struct {
	method, path string
	body         string
	contentType  string // "": application/yaml, which JSON is a part of
	accept       string // "": whatever the server prefers
	header       map[string]string
}

// answer is one answer.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

func (p *peer) open(ctx context.Context, c call) (*http.Response, error) {
	if c.method == "" {
		c.method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, c.method, p.config.Host+c.path, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/yaml")
	}
	if c.contentType != "" {
		r.Header.Set("Content-Type", c.contentType)
	}
	if c.accept != "" {
		r.Header.Set("Accept", c.accept)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	return p.http.Do(r)
}

// do sends a request and reads the answer.
func (p *peer) do(t *testing.T, c call) answer {
	t.Helper()
	resp, err := p.open(t.Context(), c)
	if err != nil {
		t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read answer: %v", c.method, c.path, err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// want sends a request whose answer must have this code, and decodes the answer
// into what is given, unless that is nil.
func (p *peer) want(t *testing.T, code int, c call, into any) answer {
	t.Helper()
	a := p.do(t, c)
	if a.code != code {
		t.Fatalf("%s %s gave %d, want %d\n%s", c.method, c.path, a.code, code, a.body)
	}
	if into != nil {
		a.into(t, into)
	}
	return a
}

func (a answer) into(t *testing.T, into any) {
	t.Helper()
	var err error
	if u, ok := into.(*unstructured.Unstructured); ok {
		err = u.UnmarshalJSON(a.body)
	} else {
		err = yaml.Unmarshal(a.body, into) // or JSON
	}
	if err != nil {
		t.Fatalf("decode answer: %v\n%s", err, a.body)
	}
}

// object is the answer as an object of any kind.
func (a answer) object(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	a.into(t, u)
	return u
}

// status is the answer as a Status, which it must be.
func (a answer) status(t *testing.T) metav1.Status {
	t.Helper()
	var s metav1.Status
	a.into(t, &s)
	if s.Kind != "Status" || s.APIVersion != "v1" {
		t.Fatalf("answer %d is no Status: %s", a.code, a.body)
	}
	return s
}

// refused demands a failure with this code and reason, whose message contains
// a text.
func (a answer) refused(t *testing.T, code int, reason metav1.StatusReason, message string) metav1.Status {
	t.Helper()
	s := a.status(t)
	if a.code != code || int(s.Code) != code || s.Status != metav1.StatusFailure || s.Reason != reason || !strings.Contains(s.Message, message) {
		t.Errorf("answer is %d (%d %s %s)\n  %s\nwant %d %s\n  …%s…", a.code, s.Code, s.Status, s.Reason, s.Message, code, reason, message)
	}
	return s
}

// causesOf lists the causes of a failure as "TYPE FIELD".
func causesOf(s metav1.Status) []string {
	causes := []string{}
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			causes = append(causes, string(c.Type)+" "+c.Field)
		}
	}
	return causes
}

// groups are the group-versions of resources outside of the core.
var groups = map[string]string{
	"validatingadmissionpolicies": "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings": "admissionregistration.k8s.io/v1",
	"mutatingadmissionpolicies": "admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings": "admissionregistration.k8s.io/v1",
	"deployments": "apps/v1", "replicasets": "apps/v1", "statefulsets": "apps/v1", "daemonsets": "apps/v1", "controllerrevisions": "apps/v1",
	"jobs": "batch/v1", "cronjobs": "batch/v1",
	"leases": "coordination.k8s.io/v1", "endpointslices": "discovery.k8s.io/v1", "priorityclasses": "scheduling.k8s.io/v1",
	"roles": "rbac.authorization.k8s.io/v1", "rolebindings": "rbac.authorization.k8s.io/v1",
	"clusterroles": "rbac.authorization.k8s.io/v1", "clusterrolebindings": "rbac.authorization.k8s.io/v1",
	"certificatesigningrequests": "certificates.k8s.io/v1", "clustertrustbundles": "certificates.k8s.io/v1",
	"tokenreviews": "authentication.k8s.io/v1", "selfsubjectreviews": "authentication.k8s.io/v1",
	"subjectaccessreviews": "authorization.k8s.io/v1", "localsubjectaccessreviews": "authorization.k8s.io/v1",
	"selfsubjectaccessreviews": "authorization.k8s.io/v1", "selfsubjectrulesreviews": "authorization.k8s.io/v1",
}

// at is the path of a resource, or of an object and below: NAME, SUBRESOURCE.
// The namespace is "" for cluster-scoped ones and for all namespaces.
func at(resource, namespace string, below ...string) string {
	path := "/api/v1"
	if gv := groups[resource]; gv != "" {
		path = "/apis/" + gv
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return strings.Join(append([]string{path, resource}, below...), "/")
}

// create makes an object from YAML and answers with what was stored.
func create(t *testing.T, resource, namespace, body string) *unstructured.Unstructured {
	t.Helper()
	return admin.want(t, http.StatusCreated, call{method: "POST", path: at(resource, namespace), body: body}, nil).object(t)
}

// get reads an object.
func get(t *testing.T, resource, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	return admin.want(t, http.StatusOK, call{path: at(resource, namespace, name)}, nil).object(t)
}

// patch changes an object by a merge patch.
func patch(t *testing.T, resource, namespace, name, body string) *unstructured.Unstructured {
	t.Helper()
	c := call{method: "PATCH", path: at(resource, namespace, name), body: body, contentType: mergePatch}
	return admin.want(t, http.StatusOK, c, nil).object(t)
}

const (
	jsonPatch      = "application/json-patch+json"
	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
	applyPatch     = "application/apply-patch+yaml"
)

// gone says whether an object is not there (any more).
func gone(t *testing.T, resource, namespace, name string) bool {
	t.Helper()
	return admin.do(t, call{path: at(resource, namespace, name)}).code == http.StatusNotFound
}

// decode reads YAML into an object.
func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// encode writes an object as JSON.
func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// namespace makes a namespace for a test. It goes with the cluster.
func namespace(t *testing.T) string {
	t.Helper()
	name := namespaceName(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := kube.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	return name
}

// namespaceName is a name for a namespace, from that of the test.
func namespaceName(t *testing.T) string {
	sum := sha256.Sum256([]byte(t.Name()))
	name := strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.TrimPrefix(t.Name(), "Test")))
	return fmt.Sprintf("%.40s-%s", name, hex.EncodeToString(sum[:4]))
}

// field reads a nested field of an object as text; "" when it is absent.
func field(u *unstructured.Unstructured, path ...string) string {
	v, ok, err := unstructured.NestedFieldNoCopy(u.Object, path...)
	if !ok || err != nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // came from JSON
	return strings.TrimSuffix(b.String(), "\n")
}

// tlsOf is the TLS configuration of a client.
func tlsOf(p *peer) (*tls.Config, error) { return rest.TLSConfigFor(p.config) }

// nested reads a part of an object as what it is in JSON.
func nested[T any](obj map[string]any, path ...string) (part T, ok bool, err error) {
	v, ok, err := unstructured.NestedFieldNoCopy(obj, path...)
	if ok && err == nil {
		part, ok = v.(T)
	}
	return part, ok, err
}

// status2xx demands success.
func (a answer) status2xx(t *testing.T) {
	t.Helper()
	if a.code/100 != 2 {
		t.Fatalf("answer is %d: %s", a.code, a.body)
	}
}
