package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/rest"
)

// Documentation: "Issue a Certificate for a Kubernetes API Client Using A
// CertificateSigningRequest", with kubectl as it is written there.
func TestCertificateIsIssued(t *testing.T) {
	name := namespaceName(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, Organization: []string{"devs"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	create(t, "certificatesigningrequests", "", `{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {name: `+name+`},
spec: {request: `+base64.StdEncoding.EncodeToString(text)+`, signerName: kubernetes.io/kube-apiserver-client, expirationSeconds: 86400, usages: [client auth]}}`)

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

	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	issued := as(t, func(c *rest.Config) {
		c.CertData = signed.Status.Certificate
		c.KeyData = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	})
	if _, who := issued.whoami(t); who.Username != name || !slices.Contains(who.Groups, "devs") {
		t.Errorf("the certificate is of %+v", who)
	}
	admin.want(t, 200, call{method: "DELETE", path: at("certificatesigningrequests", "", name)}, nil)
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
