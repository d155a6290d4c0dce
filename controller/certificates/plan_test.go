package certificates

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/utils/ptr"
)

// Documentation: "Certificates and Certificate Signing Requests", "Kubernetes
// signers".
func TestSigners(t *testing.T) {
	type usages = []certificatesv1.KeyUsage
	node := func(change func(*x509.CertificateRequest)) *x509.CertificateRequest {
		r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n", Organization: []string{"system:nodes"}}}
		if change != nil {
			change(r)
		}
		return r
	}
	dns := func(r *x509.CertificateRequest) { r.DNSNames = []string{"n"} }
	const client, server, signs, enciphers = certificatesv1.UsageClientAuth, certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment
	for _, c := range []struct {
		signer  string
		request *x509.CertificateRequest
		usages  usages
		want    string
	}{
		{certificatesv1.KubeAPIServerClientSignerName, node(dns), usages{client, signs, enciphers}, ""},
		{certificatesv1.KubeAPIServerClientSignerName, node(nil), usages{signs}, "missing required usage for client certificate: client auth"},
		{certificatesv1.KubeAPIServerClientSignerName, node(nil), usages{client, server}, "invalid usage for client certificate: server auth"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(nil), usages{signs, client}, ""},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(nil), usages{enciphers, signs, client}, ""},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(nil), usages{client}, "usages did not match [client auth digital signature key encipherment]"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(dns), usages{signs, client}, "DNS subjectAltNames are not allowed"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }), usages{signs, client}, "Email subjectAltNames are not allowed"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{1, 2, 3, 4}} }), usages{signs, client}, "IP subjectAltNames are not allowed"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(func(r *x509.CertificateRequest) { r.URIs = []*url.URL{{}} }), usages{signs, client}, "URI subjectAltNames are not allowed"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(func(r *x509.CertificateRequest) { r.Subject.CommonName = "n" }), usages{signs, client}, "subject common name does not begin with system:node:"},
		{certificatesv1.KubeAPIServerClientKubeletSignerName, node(func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "system:masters"} }), usages{signs, client}, "subject organization is not system:nodes"},
		{certificatesv1.KubeletServingSignerName, node(dns), usages{signs, server}, ""},
		{certificatesv1.KubeletServingSignerName, node(nil), usages{signs, server}, "DNS or IP subjectAltName is required"},
		{certificatesv1.KubeletServingSignerName, node(dns), usages{signs, client}, "usages did not match [digital signature key encipherment server auth]"},
		{legacyUnknown, node(nil), usages{certificatesv1.UsageCertSign}, ""},
	} {
		got := ""
		if err := signers[c.signer].check(c.request, c.usages); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s for %v: %q, want %q", c.signer, c.usages, got, c.want)
		}
	}
}

func TestLifetime(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		seconds *int32
		life    time.Duration // from now on
	}{
		{nil, 365*24*time.Hour - 5*time.Minute},
		{ptr.To[int32](2_000_000_000), 365*24*time.Hour - 5*time.Minute},
		{ptr.To[int32](86400), 24*time.Hour - 5*time.Minute},
		{ptr.To[int32](3600), time.Hour},
		{ptr.To[int32](1), 10 * time.Minute},
	} {
		got, err := certificate(&x509.CertificateRequest{}, nil, c.seconds, now)
		if err != nil || got.NotAfter.Sub(now) != c.life || now.Sub(got.NotBefore) != 5*time.Minute {
			t.Errorf("%v seconds: %s to %s, %v", ptr.Deref(c.seconds, 0), got.NotBefore, got.NotAfter, err)
		}
	}
}
