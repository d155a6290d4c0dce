package volume_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/volume"
)

func (w *world) RequestCertificate(_ context.Context, p *v1.Pod, spec certificatesv1.PodCertificateRequestSpec) (*certificatesv1.PodCertificateRequest, error) {
	if w.requestErr != nil {
		return nil, w.requestErr
	}
	r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: fmt.Sprintf("req-%d", len(w.requests))}, Spec: spec}
	w.requests = append(w.requests, r)
	return r, nil
}

func (w *world) CertificateRequest(_, name string) *certificatesv1.PodCertificateRequest {
	for _, r := range w.requests {
		if r != nil && r.Name == name {
			return r
		}
	}
	return nil
}

// issue answers the newest request with a chain that says which it is, to be
// renewed after an hour and good for two.
func (w *world) issue() {
	now, n := w.clock.Now(), len(w.requests)
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"dropped": "yes"}, Bytes: fmt.Append(nil, n)})
	w.requests[n-1].Status = certificatesv1.PodCertificateRequestStatus{
		Conditions:       []metav1.Condition{{Type: certificatesv1.PodCertificateRequestConditionTypeIssued, Status: metav1.ConditionTrue}},
		CertificateChain: "dropped\n" + string(block), BeginRefreshAt: ptr.To(metav1.NewTime(now.Add(time.Hour))), NotAfter: ptr.To(metav1.NewTime(now.Add(2 * time.Hour))),
	}
}

// certificatePod has a certificate in one file, and in two.
func certificatePod() *v1.Pod {
	return podWith(v1.Volume{Name: "c", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{{
		PodCertificate: &v1.PodCertificateProjection{
			SignerName: "example.com/signer", KeyType: "ED25519", MaxExpirationSeconds: ptr.To[int32](7200), UserAnnotations: map[string]string{"example.com/a": "b"},
			CredentialBundlePath: "bundle.pem", KeyPath: "key.pem", CertificateChainPath: "chain.pem",
		},
	}}}}})
}

// issued reads the volume of certificatePod: what is in its certificate.
func issued(t *testing.T, m *volume.Manager, p *v1.Pod) string {
	t.Helper()
	root, err := m.Path(p, &p.Spec.Volumes[0])
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	whole := read("bundle.pem")
	key, rest := pem.Decode([]byte(whole))
	if key == nil || key.Type != "PRIVATE KEY" {
		t.Fatalf("bundle: %q", whole)
	}
	if _, err := x509.ParsePKCS8PrivateKey(key.Bytes); err != nil {
		t.Fatal(err)
	}
	cert, rest := pem.Decode(rest)
	if cert == nil || cert.Type != "CERTIFICATE" || len(cert.Headers) > 0 || len(rest) > 0 || whole != read("key.pem")+read("chain.pem") {
		t.Fatalf("bundle: %q", whole)
	}
	return string(cert.Bytes)
}

// "Pod Certificates": a pod waits for its certificate, which is renewed with a
// new key; the old one serves meanwhile, and what is late is said.
func TestPodCertificate(t *testing.T) {
	m, w := newManager(t)
	p := certificatePod()
	states := func(want string) {
		t.Helper()
		if got := m.CertificateStates(); !reflect.DeepEqual(got, map[[2]string]int{{"example.com/signer", want}: 1}) {
			t.Errorf("states %v, want one that is %s", got, want)
		}
	}
	for range 2 {
		if _, err := m.Mount(t.Context(), p); err == nil || !strings.HasSuffix(err.Error(), `volume "c" : credential bundle is not issued yet`) {
			t.Fatalf("mounted without a certificate: %v", err)
		}
	}
	states("not_yet_issued")
	if len(w.requests) != 1 {
		t.Fatalf("%d requests", len(w.requests))
	}
	spec := w.requests[0].Spec
	request, err := x509.ParseCertificateRequest(spec.StubPKCS10Request)
	if err != nil || request.CheckSignature() != nil || len(request.Subject.Names) > 0 {
		t.Errorf("proof of the key: %+v, %v", request, err)
	}
	if spec.SignerName != "example.com/signer" || *spec.MaxExpirationSeconds != 7200 || spec.UnverifiedUserAnnotations["example.com/a"] != "b" {
		t.Errorf("request: %+v", spec)
	}
	w.issue()
	next := mount(t, m, p)
	if wait := next.Sub(w.clock.Now()); wait < time.Hour || wait > 65*time.Minute {
		t.Errorf("renewed after %v", wait)
	}
	if got := issued(t, m, p); got != "1" {
		t.Errorf("certificate %s", got)
	}
	states("fresh")
	refresh := func() time.Time {
		t.Helper()
		at, err := m.Refresh(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	w.clock.SetTime(next.Add(-time.Second))
	if at := refresh(); !at.Equal(next) || len(w.requests) != 1 {
		t.Errorf("before it is due: next at %v, %d requests", at, len(w.requests))
	}
	w.clock.SetTime(next)
	w.requestErr = errors.New("no server")
	if at := refresh(); !at.Equal(next.Add(time.Minute)) || issued(t, m, p) != "1" {
		t.Errorf("without a server: next at %v", at)
	}
	w.requestErr = nil
	refresh()
	w.requests[1] = nil // deleted by somebody
	w.clock.SetTime(next.Add(time.Minute))
	refresh()
	refresh()
	if len(w.requests) != 3 {
		t.Errorf("%d requests after one was deleted", len(w.requests))
	}
	w.clock.SetTime(next.Add(overdue))
	refresh()
	states("overdue_for_refresh")
	w.clock.SetTime(next.Add(time.Hour))
	refresh()
	refresh()
	states("expired")
	if got := strings.Join(w.events, "; "); got != "Warning CertificateOverdueForRefresh: PodCertificate refresh overdue; Warning CertificateExpired: PodCertificate expired" {
		t.Errorf("events: %s", got)
	}
	w.issue()
	refresh()
	if got := issued(t, m, p); got != "3" {
		t.Errorf("certificate %s", got)
	}
	states("fresh")
	if err := m.Unmount(p.UID); err != nil || len(m.CertificateStates()) != 0 {
		t.Errorf("after the pod: %v, %v", m.CertificateStates(), err)
	}
}

// overdue is after when a certificate is late for sure, spread included.
const overdue = 11 * time.Minute

// A request that is denied, or fails, is so for good, and the pod is told.
func TestPodCertificateRefused(t *testing.T) {
	for kind, how := range map[string]string{
		certificatesv1.PodCertificateRequestConditionTypeDenied: "was denied", certificatesv1.PodCertificateRequestConditionTypeFailed: "failed",
	} {
		m, w := newManager(t)
		p := certificatePod()
		p.UID = types.UID(kind)
		_, _ = m.Mount(t.Context(), p) // it waits
		w.requests[0].Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: "UnsupportedKeyType", Message: "use another"}}
		for range 2 {
			want := fmt.Sprintf(`PodCertificateRequest was permanently %s: reason="UnsupportedKeyType" message="use another"`, strings.ToLower(kind))
			if _, err := m.Mount(t.Context(), p); err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%s: %v", kind, err)
			}
		}
		want := fmt.Sprintf(`[Warning %s: PodCertificateRequest ns/req-0 %s, reason="UnsupportedKeyType", message="use another"]`, kind, how)
		if got := fmt.Sprint(w.events); got != want || len(w.requests) != 1 {
			t.Errorf("%s: events %s, %d requests", kind, got, len(w.requests))
		}
		if got := m.CertificateStates()[[2]string{"example.com/signer", strings.ToLower(kind)}]; got != 1 {
			t.Errorf("%s: states %v", kind, m.CertificateStates())
		}
	}
}

// Every type of key that the API allows can be made.
func TestPodCertificateKeys(t *testing.T) {
	for kind, want := range map[string]x509.PublicKeyAlgorithm{
		"RSA3072": x509.RSA, "RSA4096": x509.RSA, "ECDSAP256": x509.ECDSA, "ECDSAP384": x509.ECDSA, "ECDSAP521": x509.ECDSA, "ED25519": x509.Ed25519,
	} {
		m, w := newManager(t)
		p := certificatePod()
		p.Spec.Volumes[0].Projected.Sources[0].PodCertificate.KeyType = kind
		_, _ = m.Mount(t.Context(), p) // it waits
		if len(w.requests) != 1 {
			t.Fatalf("%s: no request", kind)
		}
		if r, err := x509.ParseCertificateRequest(w.requests[0].Spec.StubPKCS10Request); err != nil || r.PublicKeyAlgorithm != want {
			t.Errorf("%s: %+v, %v", kind, r, err)
		}
	}
}
