package certificates_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/certificates"
)

type csr = certificatesv1.CertificateSigningRequest

func request(signer string, change ...func(*csr)) *csr {
	r := &csr{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer}}
	for _, f := range change {
		f(r)
	}
	return r
}

func from(t *testing.T, organizations ...string) func(*csr) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{Organization: organizations}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *csr) {
		r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
}

// "Signers" and "Authorization" of Kubernetes' page on certificate signing
// requests, and its page on admission controllers.
func TestPlugin(t *testing.T) {
	reg := kinds.Registry()
	// by may do what its name says for one signer, or for all of a domain.
	by := func(verb, name string) user.Info {
		return &user.DefaultInfo{Name: verb + " " + name}
	}
	p := admissiontest.Chain(certificates.Plugins(authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetAPIGroup() == "certificates.k8s.io" && a.GetResource() == "signers" && a.GetNamespace() == "" && a.GetUser().GetName() == a.GetVerb()+" "+a.GetName() {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})))
	write := func(u user.Info, sub string, obj, old *csr) *admission.Attributes {
		a := admissiontest.Update(reg, u, obj, old)
		a.Subresource = sub
		return a
	}
	approved := func(r *csr) {
		r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	}
	issued := func(r *csr) { r.Status.Certificate = []byte("x") }
	bundle := func(signer string, owners ...metav1.OwnerReference) *certificatesv1.ClusterTrustBundle {
		return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "b", OwnerReferences: owners}, Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer}}
	}
	const of, begin = "example.com/s", `certificatesigningrequests.certificates.k8s.io "r" is forbidden: `
	const attest = `clustertrustbundles.certificates.k8s.io "b" is forbidden: user not permitted to attest for signerName "example.com/s"`
	for _, c := range []struct {
		name  string
		write *admission.Attributes
		want  string
	}{
		{"approve", write(by("approve", of), "approval", request(of, approved), request(of)), ""},
		{"approve for a domain", write(by("approve", "example.com/*"), "approval", request(of, approved), request(of)), ""},
		{"approve for another", write(by("approve", "example.com/t"), "approval", request(of, approved), request(of)), begin + `user not permitted to approve requests with signerName "example.com/s"`},
		{"approve by another name", write(by("approve", "example.com/t"), "approval", request("example.com/t", approved), request(of)), begin + `user not permitted to approve requests with signerName "example.com/s"`},
		{"approve as a signer", write(by("sign", of), "approval", request(of, approved), request(of)), begin + `user not permitted to approve requests with signerName "example.com/s"`},
		{"sign", write(by("sign", of), "status", request(of, issued), request(of)), ""},
		{"sign as an approver", write(by("approve", of), "status", request(of, issued), request(of)), begin + `user not permitted to sign requests with signerName "example.com/s"`},
		{"fail as an approver", write(by("approve", of), "status", request(of, approved), request(of)), begin + `user not permitted to sign requests with signerName "example.com/s"`},
		{"change nothing of the status", write(by("approve", of), "status", request(of, issued), request(of, issued)), ""},
		{"change labels", write(by("x", of), "", request(of), request(of)), ""},
		{"a client", admissiontest.Create(reg, by("x", of), request(certificatesv1.KubeAPIServerClientSignerName, from(t, "dev"))), ""},
		{"a master", admissiontest.Create(reg, by("x", of), request(certificatesv1.KubeAPIServerClientSignerName, from(t, "dev", "system:masters"))),
			begin + "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"},
		{"a master of others", admissiontest.Create(reg, by("x", of), request(of, from(t, "system:masters"))), ""},
		{"nonsense", admissiontest.Create(reg, by("x", of), request(certificatesv1.KubeAPIServerClientSignerName)), begin + "failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"},
		{"anchors", admissiontest.Create(reg, by("attest", of), bundle(of)), ""},
		{"anchors of another", admissiontest.Create(reg, by("sign", of), bundle(of)), attest},
		{"anchors changed", admissiontest.Update(reg, by("sign", of), func() *certificatesv1.ClusterTrustBundle {
			b := bundle(of)
			b.Spec.TrustBundle = "x"
			return b
		}(), bundle(of)), attest},
		{"anchors released", admissiontest.Update(reg, by("sign", of), bundle(of), bundle(of, metav1.OwnerReference{UID: "x"})), ""},
		{"anchors gone", admissiontest.Delete(reg, by("sign", of), bundle(of)), ""},
		{"anchors of none", admissiontest.Create(reg, by("sign", of), bundle("")), ""},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
}
