package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// requested makes a request of a signer, for a new key.
func requested(t *testing.T, name, signer, usages string, template *x509.CertificateRequest) (answer, *ecdsa.PrivateKey) {
	t.Helper()
	return admin.requested(t, name, signer, usages, template)
}

func (p *peer) requested(t *testing.T, name, signer, usages string, template *x509.CertificateRequest) (answer, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	dropped(t, admin, "certificatesigningrequests", name)
	return p.do(t, call{method: "POST", path: at("certificatesigningrequests", ""), body: `{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: ` + name + `},
spec: {request: ` + base64.StdEncoding.EncodeToString(text) + `, signerName: ` + signer + `, expirationSeconds: 86400, usages: [` + usages + `]}}`}), key
}

// approved approves a request by kubectl, as documentation has it, and gives the
// certificate that follows, in PEM.
func approved(t *testing.T, name string) []byte {
	t.Helper()
	kubectl := func(args ...string) string {
		t.Helper()
		r := shared.run(t, append([]string{"kubectl", "--data-dir", shared.dir}, args...)...)
		if r.code != 0 {
			t.Fatalf("kubectl %v: %d\n%s%s", args, r.code, r.out, r.err)
		}
		return r.out
	}
	if got := kubectl("certificate", "approve", name); got != "certificatesigningrequest.certificates.k8s.io/"+name+" approved\n" {
		t.Errorf("approve: %s", got)
	}
	var signed certificatesv1.CertificateSigningRequest
	eventually(t, "the certificate is issued", func() bool {
		admin.want(t, 200, call{path: at("certificatesigningrequests", "", name)}, &signed)
		return len(signed.Status.Certificate) > 0
	})
	if got := kubectl("get", "csr", name, "--no-headers"); !strings.Contains(got, "Approved,Issued") {
		t.Errorf("get csr: %s", got)
	}
	return signed.Status.Certificate
}

// withCertificate is the client that has a certificate for a key.
func withCertificate(t *testing.T, cert []byte, key *ecdsa.PrivateKey) *peer {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return as(t, func(c *rest.Config) {
		c.CertData = cert
		c.KeyData = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	})
}

// Documentation: "Issue a Certificate for a Kubernetes API Client Using A
// CertificateSigningRequest", with kubectl as it is written there.
func TestCertificateIsIssued(t *testing.T) {
	name := namespaceName(t)
	a, key := requested(t, name, "kubernetes.io/kube-apiserver-client", "client auth", &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{"devs"}}})
	a.status2xx(t)
	issued := withCertificate(t, approved(t, name), key)
	if _, who := issued.whoami(t); who.Username != name || !slices.Contains(who.Groups, "devs") {
		t.Errorf("the certificate is of %+v", who)
	}
	admin.want(t, 200, call{method: "DELETE", path: at("certificatesigningrequests", "", name)}, nil)
}

// "Kubernetes signers": kubelet-serving signs what a node serves with, for its
// names and addresses, and only when somebody approved it; legacy-unknown cannot
// be asked in this version of the API.
func TestServingCertificateIsIssued(t *testing.T) {
	name := namespaceName(t)
	template := &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}},
		DNSNames: []string{name, name + ".example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 77).To4()},
	}
	const usages = "digital signature, server auth"
	a, key := requested(t, name, "kubernetes.io/kubelet-serving", usages, template)
	a.status2xx(t)
	block, _ := pem.Decode(approved(t, name))
	if block == nil || block.Type != "CERTIFICATE" {
		t.Fatalf("issued is %v", block)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cert.DNSNames, template.DNSNames) || len(cert.IPAddresses) != 1 || !cert.IPAddresses[0].Equal(template.IPAddresses[0]) || cert.Subject.String() != template.Subject.String() {
		t.Errorf("issued for %q %v of %s", cert.DNSNames, cert.IPAddresses, cert.Subject)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || cert.KeyUsage != x509.KeyUsageDigitalSignature || cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("issued with uses %v and %b, authority %v", cert.ExtKeyUsage, cert.KeyUsage, cert.IsCA)
	}
	ca, err := os.ReadFile(filepath.Join(shared.dir, "pki", "api-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("no authority")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		t.Error(err)
	}

	refused, _ := requested(t, name+"-legacy", "kubernetes.io/legacy-unknown", usages, template)
	refused.refused(t, 422, metav1.StatusReasonInvalid, "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\"")
	// No name to serve by: it is approved, and fails.
	template.DNSNames, template.IPAddresses = nil, nil
	a, _ = requested(t, name+"-nameless", "kubernetes.io/kubelet-serving", usages, template)
	a.status2xx(t)
	if r := shared.run(t, "kubectl", "--data-dir", shared.dir, "certificate", "approve", name+"-nameless"); r.code != 0 {
		t.Fatalf("approve: %+v", r)
	}
	eventually(t, "it fails", func() bool {
		var failed certificatesv1.CertificateSigningRequest
		admin.want(t, 200, call{path: at("certificatesigningrequests", "", name+"-nameless")}, &failed)
		return len(failed.Status.Certificate) == 0 && slices.ContainsFunc(failed.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == certificatesv1.CertificateFailed && c.Reason == "SignerValidationFailure"
		})
	})
}

// KEP-3257: the signer of the API servers' certificates has a bundle.
func TestServingTrustBundle(t *testing.T) {
	ca, err := os.ReadFile(filepath.Join(shared.dir, "pki", "api-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	var bundles certificatesv1.ClusterTrustBundleList
	eventually(t, "the bundle is published", func() bool {
		admin.want(t, 200, call{path: at("clustertrustbundles", "") + "?fieldSelector=spec.signerName%3Dkubernetes.io%2Fkube-apiserver-serving"}, &bundles)
		return len(bundles.Items) > 0
	})
	if len(bundles.Items) != 1 || bundles.Items[0].Spec.TrustBundle != string(ca) || !strings.HasPrefix(bundles.Items[0].Name, "kubernetes.io:kube-apiserver-serving:") {
		t.Errorf("the bundles are %+v", bundles.Items)
	}
}
