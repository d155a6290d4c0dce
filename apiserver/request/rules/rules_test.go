package rules_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/apiserver/request/rules"
)

// A user may do what its groups say: "VERB RESOURCE[/SUBRESOURCE] NAME".
var byGroups = authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	resource := a.GetResource()
	if a.GetSubresource() != "" {
		resource += "/" + a.GetSubresource()
	}
	if slices.Contains(a.GetUser().GetGroups(), strings.TrimSpace(a.GetVerb()+" "+resource+" "+a.GetName())) {
		return authorizer.DecisionAllow, "", nil
	}
	return requesttest.AdminOnly.Authorize(ctx, a)
})

type fixture struct {
	*request.Handler
	t *testing.T
}

func setup(t *testing.T) fixture {
	return fixture{requesttest.Handler(t, func(c *request.Config) {
		c.Authorizer = byGroups
		c.Rules = rules.New(c.Registry, c.Store.View(), byGroups)
	}), t}
}

func (f fixture) create(version, plural, ns string, obj api.Object) (api.Object, error) {
	out, err := f.Create(f.t.Context(), requesttest.Info("create", version, plural, ns, ""), request.Body{Object: obj}, &metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return out.(api.Object), nil
}

func (f fixture) patch(u user.Info, version, plural, ns, name, sub, text string) error {
	info := requesttest.Info("patch", version, plural, ns, name)
	info.User, info.Subresource = u, sub
	_, _, err := f.Patch(f.t.Context(), info, types.MergePatchType, func() ([]byte, error) { return []byte(text), nil }, &metav1.PatchOptions{})
	return err
}

const (
	signingRequest = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlHZE1GRUNBUUF3SGpFTk1Bc0dBMVVFQ2hNRVpHVjJjekVOTUFzR0ExVUVBeE1FYW1GdVpUQXFNQVVHQXl0bApjQU1oQUxhaEV6Q1dteW90TU1NWE9QLzQwUnp2UUdyRDBoOXNDQkQwQnNVdXM0M3JvQUF3QlFZREsyVndBMEVBCm9mUmtHV04wcVU3ZzJ0Z0Nxc0N2Uk03ZWRpVWZvUHJzcmxpNGRoNUFvWE9meFMzaGd3NGFpaWZqT1dJY0xGTlAKUXZTZHdJRkFmd2E2OE9IQzVWdDFEdz09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo="
	stubRequest    = "MH8wMwIBADAAMCowBQYDK2VwAyEAtqETMJabKi0wwxc4//jRHO9AasPSH2wIEPQGxS6zjeugADAFBgMrZXADQQDlp9s48o4Yq+gJXU/tMvVcCLOP92b5zEq6DKZryfgC9WSA+UcbJUYeZEIrO1985Oc35YMB9BlzbsDmINKq95EH"
)

func raw(t *testing.T, text string) []byte {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Who asks for a certificate is what the server knows, not what the request says.
func TestRequester(t *testing.T) {
	f := setup(t)
	made, err := f.create("certificates.k8s.io/v1", "certificatesigningrequests", "", &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "x"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Username: "somebody", UID: "1", Groups: []string{"g"}, Extra: map[string]certificatesv1.ExtraValue{"a": {"b"}},
			SignerName: "example.com/s", Request: raw(t, signingRequest), Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := made.(*certificatesv1.CertificateSigningRequest).Spec; s.Username != "admin" || !slices.Equal(s.Groups, requesttest.Admin.Groups) || s.UID != "" || s.Extra != nil {
		t.Errorf("requested by %+v", s)
	}
}

// Only who may sign for a signer writes what became of requests to it.
func TestSigner(t *testing.T) {
	f := setup(t)
	if _, err := f.create("certificates.k8s.io/v1", "podcertificaterequests", "default", &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "r"},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: "example.com/s", PodName: "p", PodUID: "1", ServiceAccountName: "s", ServiceAccountUID: "2", NodeName: "n", NodeUID: "3",
			StubPKCS10Request: raw(t, stubRequest),
		},
	}); err != nil {
		t.Fatal(err)
	}
	const denied = `{"status":{"conditions":[{"type":"Denied","status":"True","reason":"R","message":"m","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	deny := func(groups ...string) error {
		u := &user.DefaultInfo{Name: "u", Groups: append(groups, "patch podcertificaterequests/status r")}
		return f.patch(u, "certificates.k8s.io/v1", "podcertificaterequests", "default", "r", "status", denied)
	}
	const want = `spec.signerName: Forbidden: User "u" is not permitted to "sign" for signer "example.com/s"`
	if err := deny("sign signers example.com/t"); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("a stranger: %v", err)
	}
	if err := deny("sign signers example.com/*"); err != nil {
		t.Errorf("the signer: %v", err)
	}
}

// A certificate begins when it is issued, by the server's clock.
func TestIssuedNow(t *testing.T) {
	f := setup(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.create("certificates.k8s.io/v1", "podcertificaterequests", "default", &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "r"},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: "example.com/s", PodName: "p", PodUID: "1", ServiceAccountName: "s", ServiceAccountUID: "2", NodeName: "n", NodeUID: "3",
			StubPKCS10Request: stub,
		},
	}); err != nil {
		t.Fatal(err)
	}
	issue := func(start time.Time) error {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.Add(2 * time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		status, err := json.Marshal(map[string]any{"status": certificatesv1.PodCertificateRequestStatus{
			Conditions:       []metav1.Condition{{Type: "Issued", Status: metav1.ConditionTrue, Reason: "R", LastTransitionTime: metav1.NewTime(start)}},
			CertificateChain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
			NotBefore:        ptr.To(metav1.NewTime(start)),
			NotAfter:         ptr.To(metav1.NewTime(start.Add(2 * time.Hour))),
			BeginRefreshAt:   ptr.To(metav1.NewTime(start.Add(time.Hour))),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return f.patch(requesttest.Admin, "certificates.k8s.io/v1", "podcertificaterequests", "default", "r", "status", string(status))
	}
	now := f.Clock.Now().UTC().Truncate(time.Second)
	if err := issue(now.Add(-time.Hour)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must be set to within 5 minutes of kube-apiserver's current time") {
		t.Errorf("issued an hour ago: %v", err)
	}
	if err := issue(now); err != nil {
		t.Errorf("issued now: %v", err)
	}
}

func claim(name string, admin bool) *resourcev1.ResourceClaim {
	exactly := &resourcev1.ExactDeviceRequest{DeviceClassName: "c"}
	if admin {
		exactly.AdminAccess = ptr.To(true)
	}
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceClaimSpec{
		Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: exactly}}},
	}}
}

// Devices that are in use are for namespaces of administrators.
func TestAdminAccess(t *testing.T) {
	f := setup(t)
	const want = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
	if _, err := f.create("resource.k8s.io/v1", "resourceclaims", "default", claim("a", true)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("in a plain namespace: %v", err)
	}
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: claim("a", true).Spec}}
	if _, err := f.create("resource.k8s.io/v1", "resourceclaimtemplates", "default", template); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("a template in a plain namespace: %v", err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "admins", Labels: map[string]string{"resource.kubernetes.io/admin-access": "true"}}}
	if _, err := f.create("v1", "namespaces", "", ns); err != nil {
		t.Fatal(err)
	}
	if _, err := f.create("resource.k8s.io/v1", "resourceclaims", "admins", claim("a", true)); err != nil {
		t.Errorf("in one of administrators: %v", err)
	}
}

// The scheduler writes allocations, drivers the status of their devices.
func TestClaimStatus(t *testing.T) {
	f := setup(t)
	if _, err := f.create("resource.k8s.io/v1", "resourceclaims", "default", claim("a", false)); err != nil {
		t.Fatal(err)
	}
	write := func(text string, u *user.DefaultInfo) error {
		u.Groups = append(u.Groups, "patch resourceclaims/status a")
		return f.patch(u, "resource.k8s.io/v1", "resourceclaims", "default", "a", "status", text)
	}
	as := func(groups ...string) *user.DefaultInfo { return &user.DefaultInfo{Name: "u", Groups: groups} }
	const allocate = `{"status":{"allocation":{"nodeSelector":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]},
		"devices":{"results":[{"request":"r","driver":"example.com","pool":"p","device":"d"}]}}}}`
	const report = `{"status":{"devices":[{"driver":"example.com","pool":"p","device":"d"}]}}`
	const binding = `status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="patch" permission: ` +
		`resourceclaims.resource.k8s.io is forbidden: User "u" cannot patch resource "resourceclaims/binding" in API group "resource.k8s.io" at the cluster scope`
	const driver = `status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", verb="[arbitrary-node:patch]" permission: ` +
		`resourceclaims.resource.k8s.io "example.com" is forbidden: User "u" cannot arbitrary-node:patch resource "resourceclaims/driver" in API group "resource.k8s.io" in the namespace "default"`
	on := func(node string) *user.DefaultInfo {
		return &user.DefaultInfo{Name: "system:serviceaccount:default:driver", Extra: map[string][]string{"authentication.kubernetes.io/node-name": {node}},
			Groups: []string{"associated-node:patch resourceclaims/driver example.com"}}
	}
	for _, c := range []struct {
		name string
		text string
		u    *user.DefaultInfo
		want string
	}{
		{"a stranger allocates", allocate, as(), binding},
		{"a driver allocates", allocate, as("arbitrary-node:patch resourceclaims/driver example.com"), binding},
		{"a scheduler allocates", allocate, as("patch resourceclaims/binding"), ""},
		{"a scheduler reports", report, as("patch resourceclaims/binding"), driver},
		{"another driver reports", report, as("arbitrary-node:patch resourceclaims/driver example.org"), driver},
		{"the driver of another node reports", report, on("n2"), "verb=\"[arbitrary-node:patch]\" permission"},
		{"the driver of the node reports", report, on("n1"), ""},
		{"a driver of all nodes takes it back", `{"status":{"devices":null}}`, as("arbitrary-node:patch resourceclaims/driver example.com"), ""},
	} {
		err := write(c.text, c.u)
		if c.want == "" && err != nil || c.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.want)
		}
	}
}
