package noderestriction_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/noderestriction"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

// request is a certificate request for a common name.
func request(t *testing.T, signer, cn string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		SignerName: signer, Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	}}
}

func TestSigningRequests(t *testing.T) {
	p, view := setup(t)
	reg, n1 := view.Registry, admissiontest.Node("n1")
	broken := request(t, certificatesv1.KubeletServingSignerName, "x")
	broken.Spec.Request = []byte("x")
	const begin = `certificatesigningrequests.certificates.k8s.io "r" is forbidden: `
	for _, c := range []write{
		{"for itself, to serve", admissiontest.Create(reg, n1, request(t, certificatesv1.KubeletServingSignerName, "system:node:n1")), ""},
		{"for itself, to ask", admissiontest.Create(reg, n1, request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, "system:node:n1")), ""},
		{"for another node", admissiontest.Create(reg, n1, request(t, certificatesv1.KubeletServingSignerName, "system:node:n2")), begin + "can only create a node CSR with CN=system:node:n1"},
		{"that does not parse", admissiontest.Create(reg, n1, broken), begin + "unable to parse csr: PEM block type must be CERTIFICATE REQUEST"},
		{"of another signer", admissiontest.Create(reg, n1, request(t, "example.com/s", "x")), ""},
		{"changed", admissiontest.Update(reg, n1, broken, broken), ""},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
}

func TestStorage(t *testing.T) {
	p, view := setup(t)
	reg, n1 := view.Registry, admissiontest.Node("n1")
	csi := func(name string) *storagev1.CSINode {
		return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	slice := func(node *string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{NodeName: node}}
	}
	claim := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}
		change(c)
		return c
	}
	plain := func(*corev1.PersistentVolumeClaim) {}
	status := func(obj api.Object) *admission.Attributes {
		a := admissiontest.Update(reg, n1, obj, claim(plain))
		a.Subresource = "status"
		return a
	}
	for _, c := range []write{
		{"its CSINode", admissiontest.Create(reg, n1, csi("n1")), ""},
		{"another's", admissiontest.Create(reg, n1, csi("n2")), `csinodes.storage.k8s.io "n2" is forbidden: can only access CSINode with the same name as the requesting node`},
		{"another's, changed", admissiontest.Update(reg, n1, csi("n2"), csi("n2")), `csinodes.storage.k8s.io "n2" is forbidden: can only access CSINode with the same name as the requesting node`},
		{"its devices", admissiontest.Create(reg, n1, slice(ptr.To("n1"))), ""},
		{"another's devices", admissiontest.Create(reg, n1, slice(ptr.To("n2"))), `resourceslices.resource.k8s.io "s" is forbidden: can only create ResourceSlice with the same NodeName as the requesting node`},
		{"devices of none", admissiontest.Create(reg, n1, slice(nil)), `resourceslices.resource.k8s.io "s" is forbidden: can only create ResourceSlice with the same NodeName as the requesting node`},
		{"another's devices gone", admissiontest.Delete(reg, n1, slice(ptr.To("n2"))), `resourceslices.resource.k8s.io "s" is forbidden: can only delete ResourceSlice with the same NodeName as the requesting node`},
		{"a claim", admissiontest.Update(reg, n1, claim(plain), claim(plain)), `persistentvolumeclaims "c" is forbidden: may only update PVC status`},
		{"a claim's growth", status(claim(func(c *corev1.PersistentVolumeClaim) {
			c.Status.Capacity = corev1.ResourceList{"storage": resource.MustParse("1Gi")}
			c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimResizing}}
		})), ""},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
	if err := admissiontest.Run(t.Context(), p, status(claim(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost }))); err == nil {
		t.Error("a node may lose a claim")
	}
}

// nothing is allowed to anybody.
var nothing = authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionNoOpinion, "", nil
})

func TestPodCertificates(t *testing.T) {
	mounts := func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/s"}}}}}}}
	}
	view := authtest.New(t, node("n1"), node("n2"), pod("mine", "n1", mounts), pod("other", "n2", mounts), pod("bare", "n1"), mirror(mounts),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "robot", UID: "uid-robot"}})
	p := noderestriction.New(view.Registry, view, nothing)
	reg, n1 := view.Registry, admissiontest.Node("n1")
	of := func(pod string, change ...func(*certificatesv1.PodCertificateRequestSpec)) *admission.Attributes {
		r := &certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: "example.com/s", PodName: pod, PodUID: types.UID("uid-" + pod), NodeName: "n1", NodeUID: "uid-n1", ServiceAccountName: "robot", ServiceAccountUID: "uid-robot",
		}}
		for _, f := range change {
			f(&r.Spec)
		}
		return admissiontest.Create(reg, n1, r)
	}
	type spec = certificatesv1.PodCertificateRequestSpec
	const begin = `podcertificaterequests.certificates.k8s.io "r" is forbidden: `
	for _, c := range []write{
		{"for its pod", of("mine"), ""},
		{"for another node", of("mine", func(s *spec) { s.NodeName = "n2" }), begin + `PodCertificateRequest.Spec.NodeName="n2", which is not the requesting node "n1"`},
		{"for another's pod", of("other"), begin + `pod "ns/other" is not running on node "n1" named in the PodCertificateRequest`},
		{"for a mirror pod", of("mirror"), begin + `pod "ns/mirror" is a mirror pod`},
		{"as another account", of("mine", func(s *spec) { s.ServiceAccountName = "x" }), begin + `PodCertificateRequest for pod "ns/mine" contains serviceAccountName ("x") that differs from running pod ("robot")`},
		{"of a signer that it does not name", of("bare"), begin + `pod "ns/bare" does not mount a podCertificate projected volume for signer "example.com/s"`},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
	for _, c := range []write{
		{"of an old node", of("mine", func(s *spec) { s.NodeUID = "x" }), `PodCertificateRequest for pod "ns/mine" names node UID "x", inconsistent with the running node ("uid-n1")`},
		{"for no pod", of("gone"), `while retrieving pod "ns/gone" named in the PodCertificateRequest: pods "gone" not found`},
		{"for an old pod", of("mine", func(s *spec) { s.PodUID = "x" }), `PodCertificateRequest for pod "ns/mine" contains pod UID ("x") which differs from running pod "uid-mine"`},
		{"as an old account", of("mine", func(s *spec) { s.ServiceAccountUID = "x" }), `PodCertificateRequest for pod "ns/mine" names service account UID "x", which differs from the running service account ("uid-robot")`},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 500, c.want)
	}
	update := of("mine")
	update.Operation = admission.Update
	admissiontest.Expect(t, "changed", p, update, 403, begin+"unexpected operation UPDATE")
}
