package controller_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/certificates"
	"hansa.dev/hansa/controller/trustbundle"
	"hansa.dev/hansa/store"
)

// seal signs by a key of its own.
type seal struct{ key *ecdsa.PrivateKey }

func newSeal() seal {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return seal{key}
}

func (s seal) Sign(certificate *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	c := *certificate
	return x509.CreateCertificate(rand.Reader, &c, &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}}, key, s.key)
}

var authority = newSeal()

func certificateSigner(c client.Interface, _ events.Recorder) controller.Loop {
	return certificates.New(c, authority)
}

func podCertificates(c client.Interface, _ events.Recorder) controller.Loop {
	return certificates.NewPodCleaner(c)
}

func trustBundles(c client.Interface, _ events.Recorder) controller.Loop {
	return trustbundle.New(c, bundlePEM)
}

// bundlePEM is an authority; otherPEM another one.
var bundlePEM, otherPEM = anAuthority("a"), anAuthority("b")

func anAuthority(name string) []byte {
	s := newSeal()
	c := &x509.Certificate{SerialNumber: s.key.X, Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, s.key.Public(), s.key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func aRequest(name, signer, user, group string, usages ...certificatesv1.KeyUsage) *certificatesv1.CertificateSigningRequest {
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, newSeal().key)
	if err != nil {
		panic(err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer, Usages: usages,
		},
	}
}

func (w *world) csr(name string) *certificatesv1.CertificateSigningRequest {
	return get[*certificatesv1.CertificateSigningRequest](w, "", name)
}

// verdict is what a person says about a request.
func (w *world) verdict(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) {
	w.Helper()
	update(w, r, "approval", func(r *certificatesv1.CertificateSigningRequest) {
		r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue, LastUpdateTime: w.stamp()})
	})
	w.settle()
}

// from makes a user the author of a request, which only the server can say.
func (w *world) from(r *certificatesv1.CertificateSigningRequest, user string, groups ...string) {
	w.Helper()
	_, err := w.h.Store.Update(w.Context(), api.RefTo(w.row(r), r), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
		next := cur.DeepCopyObject().(*certificatesv1.CertificateSigningRequest)
		next.Spec.Username, next.Spec.Groups = user, groups
		return store.Outcome{Object: next}, nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

func conditionsIn(r *certificatesv1.CertificateSigningRequest) string {
	var all []string
	for _, c := range r.Status.Conditions {
		all = append(all, string(c.Type)+" "+c.Reason+" "+c.Message)
	}
	return strings.Join(all, "; ")
}

const (
	forClients = certificatesv1.KubeAPIServerClientSignerName
	forNodes   = certificatesv1.KubeAPIServerClientKubeletSignerName
	auth1      = certificatesv1.UsageClientAuth
	signature  = certificatesv1.UsageDigitalSignature
)

// Documentation: "Certificates and Certificate Signing Requests".
func TestRequestsAreSignedOnceApproved(t *testing.T) {
	w := newWorld(t)
	w.run(certificateSigner)
	r := create(w, aRequest("jane", forClients, "jane", "devs", auth1, signature))
	w.rests()
	if got := w.csr("jane").Status; len(got.Conditions)+len(got.Certificate) > 0 {
		t.Fatalf("nobody approved it, and it has %+v", got)
	}
	w.verdict(r, certificatesv1.CertificateApproved)
	block, _ := pem.Decode(w.csr("jane").Status.Certificate)
	if block == nil {
		t.Fatalf("it is not signed: %+v", w.csr("jane").Status)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Subject.String() != "CN=jane,O=devs" || leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate is of %s for %v %v", leaf.Subject, leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	w.rests()

	bad := create(w, aRequest("server", forClients, "jane", "", certificatesv1.UsageServerAuth))
	foreign := create(w, aRequest("foreign", "example.com/signer", "jane", "", auth1))
	refused := create(w, aRequest("refused", forClients, "jane", "", auth1))
	w.verdict(bad, certificatesv1.CertificateApproved)
	w.verdict(foreign, certificatesv1.CertificateApproved)
	w.verdict(refused, certificatesv1.CertificateDenied)
	w.rests()
	if got := conditionsIn(w.csr("server")); got != "Approved  ; Failed SignerValidationFailure invalid usage for client certificate: server auth" {
		t.Errorf("what the signer does not sign: %s", got)
	}
	for _, name := range []string{"server", "foreign", "refused"} {
		if len(w.csr(name).Status.Certificate) > 0 {
			t.Errorf("%s was signed", name)
		}
	}
}

// Documentation: "TLS bootstrapping": the permissions nodeclient and
// selfnodeclient.
func TestNodesAreApproved(t *testing.T) {
	w := newWorld(t)
	w.run(certificateSigner)
	create(w, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "self"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests/selfnodeclient"}, Verbs: []string{"create"}},
	}})
	create(w, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "self"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "self"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}},
	})
	node := func(name, author string) {
		w.from(create(w, aRequest(name, forNodes, "system:node:n", "system:nodes", auth1, signature)), author, "system:nodes")
	}
	node("own", "system:node:n")
	node("others", "system:node:m")
	node("joins", "system:bootstrap:abc")
	w.from(create(w, aRequest("plain", forNodes, "jane", "system:nodes", auth1, signature)), "jane", "system:nodes")
	w.rests()
	if got := conditionsIn(w.csr("own")); got != "Approved AutoApproved Auto approving self kubelet client certificate after SubjectAccessReview." {
		t.Errorf("the node's own request: %s", got)
	}
	if len(w.csr("own").Status.Certificate) == 0 {
		t.Error("the node's own request is not signed")
	}
	for _, name := range []string{"others", "joins", "plain"} {
		if got := conditionsIn(w.csr(name)); got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}

	// A permission that is granted late is found out.
	create(w, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "join"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests/nodeclient"}, Verbs: []string{"create"}},
	}})
	create(w, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "join"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "join"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:bootstrap:abc"}},
	})
	w.pass(time.Minute)
	if got := conditionsIn(w.csr("joins")); got != "Approved AutoApproved Auto approving kubelet client certificate after SubjectAccessReview." {
		t.Errorf("a node that joins: %s", got)
	}
	w.rests()
}

// Documentation: "Certificates and Certificate Signing Requests", "Certificate
// signing": requests are removed after a while.
func TestOldRequestsAreRemoved(t *testing.T) {
	w := newWorld(t)
	w.run(certificateSigner)
	create(w, aRequest("pending", forClients, "a", "", auth1))
	w.verdict(create(w, aRequest("signed", forClients, "b", "", auth1)), certificatesv1.CertificateApproved)
	w.verdict(create(w, aRequest("denied", forClients, "c", "", auth1)), certificatesv1.CertificateDenied)
	w.verdict(create(w, aRequest("failed", forClients, "d", "", signature)), certificatesv1.CertificateApproved)
	w.verdict(create(w, aRequest("foreign", "example.com/signer", "e", "", auth1)), certificatesv1.CertificateApproved)
	left := func(d time.Duration, want string) {
		t.Helper()
		w.pass(d)
		var names []string
		for _, r := range all[*certificatesv1.CertificateSigningRequest](w, "") {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("after %s there are %s, want %s", d, got, want)
		}
	}
	left(59*time.Minute, "denied failed foreign pending signed")
	left(2*time.Minute, "foreign pending")
	left(22*time.Hour, "foreign pending")
	left(time.Hour, "")
	w.rests()
}

// KEP-4317, "PodCertificateRequest": requests are removed after 15 minutes.
func TestOldPodRequestsAreRemoved(t *testing.T) {
	w := newWorld(t)
	w.run(podCertificates)
	r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r", CreationTimestamp: w.stamp(), UID: "u"}}
	if _, err := w.h.Store.Create(t.Context(), w.row(r), r, store.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	there := func() bool { return get[*certificatesv1.PodCertificateRequest](w, "default", "r") != nil }
	w.pass(14 * time.Minute)
	w.rests()
	if !there() {
		t.Error("the request was removed early")
	}
	w.pass(2 * time.Minute)
	if there() {
		t.Error("the request is still there")
	}
}

func TestTrustBundleIsPublished(t *testing.T) {
	w := newWorld(t)
	w.run(trustBundles)
	w.rests()
	name := trustbundle.Name(bundlePEM)
	b := get[*certificatesv1.ClusterTrustBundle](w, "", name)
	if b == nil || b.Spec.SignerName != trustbundle.Signer || b.Spec.TrustBundle != string(bundlePEM) {
		t.Fatalf("the bundle is %+v", b)
	}
	// It is mended, what else the signer has goes, and others' stay.
	update(w, b, "", func(b *certificatesv1.ClusterTrustBundle) { b.Spec.TrustBundle = string(otherPEM) })
	create(w, &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: trustbundle.Name(otherPEM)},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: trustbundle.Signer, TrustBundle: string(otherPEM)},
	})
	create(w, &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: string(otherPEM)}})
	w.rests()
	if got := all[*certificatesv1.ClusterTrustBundle](w, ""); len(got) != 2 || got[0].Name != name || got[0].Spec.TrustBundle != string(bundlePEM) {
		t.Errorf("the bundles are %+v", got)
	}
	remove(w, get[*certificatesv1.ClusterTrustBundle](w, "", name), metav1.DeleteOptions{})
	w.rests()
	if get[*certificatesv1.ClusterTrustBundle](w, "", name) == nil {
		t.Error("the bundle was not made anew")
	}
}
