package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var certificateRows = []row{{"projected volumes: pod certificates", podCertificate}}

// asksForCertificate is a pod that shows a certificate of a signer.
func asksForCertificate(signer string) string {
	return fmt.Sprintf(`
volumes:
- name: tls
  projected:
    defaultMode: 0440
    sources:
    - podCertificate: {signerName: %q, keyType: ECDSAP256, maxExpirationSeconds: 7200, credentialBundlePath: bundle.pem, userAnnotations: {example.com/for: tests}}
    - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [{name: tls, mountPath: /tls}]}
`, signer)
}

// request waits for the node's request for a pod.
func (s *space) request(pod string) *certificatesv1.PodCertificateRequest {
	s.t.Helper()
	var found *certificatesv1.PodCertificateRequest
	await(s.t, "the node asks for a certificate of pod "+pod, func() error {
		list, err := s.client.CertificatesV1().PodCertificateRequests(s.name).List(s.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			if list.Items[i].Spec.PodName == pod {
				found = &list.Items[i]
				return nil
			}
		}
		return errors.New("it did not")
	})
	return found
}

// answer gives a request its status.
func (s *space) answer(r *certificatesv1.PodCertificateRequest, condition, reason string) {
	s.t.Helper()
	r.Status.Conditions = []metav1.Condition{{Type: condition, Status: metav1.ConditionTrue, Reason: reason, Message: "by the test", LastTransitionTime: metav1.Now()}}
	if _, err := s.client.CertificatesV1().PodCertificateRequests(s.name).UpdateStatus(s.t.Context(), r, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// "Pod Certificates": the node asks a signer for a pod's certificate, and the
// pod starts with it and its key; one that is denied says so.
func podCertificate(s *space) {
	s.create("p", asksForCertificate("example.com/"+s.name))
	r := s.request("p")
	spec := r.Spec
	if spec.SignerName != "example.com/"+s.name || string(spec.NodeName) != nodeName || spec.ServiceAccountName != "default" || *spec.MaxExpirationSeconds != 7200 || spec.UnverifiedUserAnnotations["example.com/for"] != "tests" {
		s.t.Errorf("request %+v", spec)
	}
	s.event("p", `Warning FailedMount: MountVolume.SetUp failed for volume "tls" : credential bundle is not issued yet`)
	proof, err := x509.ParseCertificateRequest(spec.StubPKCS10Request)
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"p.example.com"}, NotBefore: now, NotAfter: now.Add(2 * time.Hour),
	}, registryCA.cert, proof.PublicKey, registryCA.key)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Status.CertificateChain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	r.Status.NotBefore, r.Status.BeginRefreshAt, r.Status.NotAfter = ptr.To(metav1.NewTime(now)), ptr.To(metav1.NewTime(now.Add(time.Hour))), ptr.To(metav1.NewTime(now.Add(2*time.Hour)))
	s.answer(r, certificatesv1.PodCertificateRequestConditionTypeIssued, "Issued")
	s.ready("p")
	bundle := s.exec("p", "cat", "/tls/bundle.pem")
	pair, err := tls.X509KeyPair([]byte(bundle), []byte(bundle))
	if err != nil {
		s.t.Fatalf("%v: %s", err, bundle)
	}
	if pair.Leaf.VerifyHostname("p.example.com") != nil || !strings.HasPrefix(bundle, "-----BEGIN PRIVATE KEY") {
		s.t.Errorf("bundle: %s", bundle)
	}
	if got := s.exec("p", "sh", "-c", "stat -Lc %a /tls/bundle.pem; cat /tls/name"); got != "440\np" {
		s.t.Errorf("files: %s", got)
	}
	if got, want := s.ofNode("/metrics"), fmt.Sprintf(`kubelet_podcertificate_states{signer_name="example.com/%s",state="fresh"} 1`, s.name); !strings.Contains(got, want) {
		s.t.Errorf("the metrics lack %s", want)
	}

	s.create("denied", asksForCertificate("example.com/"+s.name+"-other"))
	s.answer(s.request("denied"), certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionUnsupportedKeyType)
	s.event("denied", "Warning Denied: PodCertificateRequest "+s.name+"/req-")
	s.event("denied", `PodCertificateRequest was permanently denied: reason="UnsupportedKeyType" message="by the test"`)
}
