package kinds_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/kinds"
)

// TestRequester takes out what a client says about itself, for the server to
// write it down.
func TestRequester(t *testing.T) {
	r := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		Username: "root", UID: "0", Groups: []string{"system:masters"}, Extra: map[string]certificatesv1.ExtraValue{"a": {"b"}},
	}}
	kinds.Registry().Must(certificatesv1.GroupName, "certificatesigningrequests").PrepareCreate(r)
	if diff := cmp.Diff(certificatesv1.CertificateSigningRequestSpec{}, r.Spec); diff != "" {
		t.Errorf("kept what the client says (-want +got):\n%s", diff)
	}
	kinds.SetRequester(r, "jane", "1", []string{"devs"}, map[string][]string{"c": {"d", "e"}})
	want := certificatesv1.CertificateSigningRequestSpec{
		Username: "jane", UID: "1", Groups: []string{"devs"}, Extra: map[string]certificatesv1.ExtraValue{"c": {"d", "e"}},
	}
	if diff := cmp.Diff(want, r.Spec); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestIssuedNow is about the five minutes that a certificate's start may be away
// from the time at which it is issued, which are looked at after the start itself
// and before its end.
func TestIssuedNow(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := func(conditions ...metav1.Condition) *certificatesv1.PodCertificateRequest {
		return &certificatesv1.PodCertificateRequest{
			Spec:   certificatesv1.PodCertificateRequestSpec{StubPKCS10Request: stub, MaxExpirationSeconds: ptr.To[int32](86400)},
			Status: certificatesv1.PodCertificateRequestStatus{Conditions: conditions},
		}
	}
	issued := metav1.Condition{Type: "Issued", Status: metav1.ConditionTrue, Reason: "R", LastTransitionTime: metav1.NewTime(now)}
	of := func(start time.Time, change func(*certificatesv1.PodCertificateRequestStatus)) *certificatesv1.PodCertificateRequest {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.Add(2 * time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		r := request(issued)
		s := &r.Status
		s.CertificateChain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		s.NotBefore, s.NotAfter = ptr.To(metav1.NewTime(start)), ptr.To(metav1.NewTime(start.Add(2*time.Hour)))
		s.BeginRefreshAt = ptr.To(metav1.NewTime(start.Add(time.Hour)))
		if change != nil {
			change(s)
		}
		return r
	}
	otherEnd := func(s *certificatesv1.PodCertificateRequestStatus) { s.NotAfter = s.NotBefore }
	otherStart := func(s *certificatesv1.PodCertificateRequestStatus) { s.NotBefore = s.NotAfter }
	status := kinds.Registry().Must(certificatesv1.GroupName, "podcertificaterequests").Subresources["status"]
	const far = "must be set to within 5 minutes of kube-apiserver's current time"
	long := of(now.Add(-time.Hour), nil)
	for name, c := range map[string]struct {
		r, old *certificatesv1.PodCertificateRequest
		want   string
	}{
		"now":                    {of(now, nil), request(), ""},
		"just within the past":   {of(now.Add(time.Second-5*time.Minute), nil), request(), ""},
		"just within the future": {of(now.Add(5*time.Minute-time.Second), nil), request(), ""},
		"past":                   {of(now.Add(-5*time.Minute), nil), request(), far},
		"future":                 {of(now.Add(5*time.Minute), nil), request(), far},
		"past, another end":      {of(now.Add(-time.Hour), otherEnd), request(), far},
		"past, another start":    {of(now.Add(-time.Hour), otherStart), request(), "must be set to the NotBefore time encoded in the leaf certificate"},
		"now, another end":       {of(now, otherEnd), request(), "must be set to the NotAfter time encoded in the leaf certificate"},
		"issued long ago":        {long, long, ""},
		"not issued":             {request(), request(), ""},
	} {
		errs := status.ValidateUpdateAt(c.r, c.old, now)
		switch {
		case c.want == "" && len(errs) > 0, c.want != "" && (len(errs) != 1 || errs[0].Detail != c.want):
			t.Errorf("%s: %v, want %q", name, errs, c.want)
		}
	}
}
