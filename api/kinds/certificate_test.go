package kinds_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
// from the time at which it is issued.
func TestIssuedNow(t *testing.T) {
	status := func(verdict string, start time.Time) *certificatesv1.PodCertificateRequest {
		return &certificatesv1.PodCertificateRequest{Status: certificatesv1.PodCertificateRequestStatus{
			Conditions: []metav1.Condition{{Type: verdict, Status: metav1.ConditionTrue}},
			NotBefore:  &metav1.Time{Time: start},
		}}
	}
	const issued = certificatesv1.PodCertificateRequestConditionTypeIssued
	fresh := &certificatesv1.PodCertificateRequest{}
	for name, c := range map[string]struct {
		r, old *certificatesv1.PodCertificateRequest
		refuse bool
	}{
		"now":                    {status(issued, now), fresh, false},
		"just within the past":   {status(issued, now.Add(time.Second-5*time.Minute)), fresh, false},
		"just within the future": {status(issued, now.Add(5*time.Minute-time.Second)), fresh, false},
		"past":                   {status(issued, now.Add(-5*time.Minute)), fresh, true},
		"future":                 {status(issued, now.Add(5*time.Minute)), fresh, true},
		"issued long ago":        {status(issued, now.Add(-time.Hour)), status(issued, now.Add(-time.Hour)), false},
		"not issued":             {status("Denied", now.Add(-time.Hour)), fresh, false},
	} {
		errs := kinds.ValidateIssuedNow(c.r, c.old, now)
		if (len(errs) > 0) != c.refuse {
			t.Errorf("%s: %v", name, errs)
		}
		if c.refuse && (errs[0].Field != "status.notBefore" || errs[0].Detail != "must be set to within 5 minutes of kube-apiserver's current time") {
			t.Errorf("%s: %v", name, errs[0])
		}
	}
}
