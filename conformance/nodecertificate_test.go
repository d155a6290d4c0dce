package conformance

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	nodeSigner    = certificatesv1.KubeAPIServerClientKubeletSignerName
	servingSigner = certificatesv1.KubeletServingSignerName
	clientUsages  = "digital signature, client auth"
	serverUsages  = "digital signature, server auth"
)

// nodeRequest is what a node asks for: a certificate by which it is known.
func nodeRequest(name string) *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}}
}

func signingRequest(t *testing.T, name string) certificatesv1.CertificateSigningRequest {
	t.Helper()
	var r certificatesv1.CertificateSigningRequest
	admin.want(t, http.StatusOK, call{path: at("certificatesigningrequests", "", name)}, &r)
	return r
}

// verdicts are the conditions of a request, and "Issued".
func verdicts(r certificatesv1.CertificateSigningRequest) (all []string) {
	for _, c := range r.Status.Conditions {
		all = append(all, string(c.Type)+" "+c.Reason+": "+c.Message)
	}
	if len(r.Status.Certificate) > 0 {
		all = append(all, "Issued")
	}
	return all
}

// judge says yes or no to a request, as somebody who may.
func judge(t *testing.T, name, condition string) {
	t.Helper()
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("certificatesigningrequests", "", name, "approval"), contentType: mergePatch,
		body: `{"status":{"conditions":[{"type":"` + condition + `","status":"True","reason":"Test","message":"m"}]}}`}, nil)
}

// mayAsk lets users do something with requests for certificates, by a role of the
// test or by a default one.
func mayAsk(t *testing.T, name, role, rules string, users ...string) {
	t.Helper()
	if rules != "" {
		create(t, "clusterroles", "", "metadata: {name: "+role+"}\nrules:\n- {apiGroups: [certificates.k8s.io], "+rules+"}")
		dropped(t, admin, "clusterroles", role)
	}
	var subjects []string
	for _, user := range users {
		subjects = append(subjects, fmt.Sprintf("{apiGroup: rbac.authorization.k8s.io, kind: User, name: %q}", user))
	}
	create(t, "clusterrolebindings", "", fmt.Sprintf("metadata: {name: %s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %q}\nsubjects: [%s]", name, role, strings.Join(subjects, ", ")))
	dropped(t, admin, "clusterrolebindings", name)
}

// "Kubernetes signers": kube-apiserver-client-kubelet. The request of a node for
// its own certificate, or of who may bring nodes into the cluster, is approved and
// issued ("TLS bootstrapping", approval); nobody else's is before somebody says so,
// and none that is not of a node's form is signed even then.
func TestNodeCertificateIsIssued(t *testing.T) {
	name := namespaceName(t)
	const requests = "system:certificates.k8s.io:certificatesigningrequests:"
	joiner, stranger := impersonating(t, name+"-joiner"), impersonating(t, name+"-stranger")
	mayAsk(t, name, name, "resources: [certificatesigningrequests], verbs: [create, get]", name+"-joiner", name+"-stranger")
	mayAsk(t, name+"-self", requests+"selfnodeclient", "", "system:node:"+name)
	mayAsk(t, name+"-joins", requests+"nodeclient", "", name+"-joiner")
	eventually(t, "the roles are known", func() bool {
		return stranger.do(t, call{path: at("certificatesigningrequests", "", "none")}).code == http.StatusNotFound
	})

	// These wait for somebody while all that follow are answered.
	a, _ := stranger.requested(t, name+"-stranger", nodeSigner, clientUsages, nodeRequest(name))
	a.status2xx(t)
	wrong := nodeRequest(name)
	wrong.DNSNames = []string{"a.example.com"}
	n := nodeClient(t, name)
	a, _ = n.requested(t, name+"-wrong", nodeSigner, clientUsages, wrong)
	a.status2xx(t)
	a, _ = n.requested(t, name+"-wronguse", nodeSigner, serverUsages, nodeRequest(name))
	a.status2xx(t)

	for _, c := range []struct {
		who               *peer
		request, of, says string
	}{
		{n, name + "-own", name, "Approved AutoApproved: Auto approving self kubelet client certificate after SubjectAccessReview."},
		{joiner, name + "-new", name + "-other", "Approved AutoApproved: Auto approving kubelet client certificate after SubjectAccessReview."},
	} {
		a, key := c.who.requested(t, c.request, nodeSigner, clientUsages, nodeRequest(c.of))
		a.status2xx(t)
		eventually(t, c.request+" is issued", func() bool { return len(signingRequest(t, c.request).Status.Certificate) > 0 })
		r := signingRequest(t, c.request)
		if got := verdicts(r); !slices.Equal(got, []string{c.says, "Issued"}) {
			t.Errorf("%s is %q", c.request, got)
		}
		if _, who := withCertificate(t, r.Status.Certificate, key).whoami(t); who.Username != "system:node:"+c.of || !slices.Contains(who.Groups, "system:nodes") {
			t.Errorf("the certificate of %s is of %+v", c.request, who)
		}
	}
	for _, waiting := range []string{"-stranger", "-wrong", "-wronguse"} {
		if got := verdicts(signingRequest(t, name+waiting)); len(got) > 0 {
			t.Errorf("%s is %q", waiting, got)
		}
	}

	// A node asks for itself alone.
	for _, signer := range []string{nodeSigner, servingSigner} {
		a, _ = n.requested(t, name+"-theirs", signer, clientUsages, nodeRequest(name+"-other"))
		a.refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, "can only create a node CSR with CN=system:node:"+name)
	}
	for request, want := range map[string][]string{
		"-stranger": {"Approved Test: m", "Issued"},
		"-wrong":    {"Approved Test: m", "Failed SignerValidationFailure: DNS subjectAltNames are not allowed"},
		"-wronguse": {"Approved Test: m", "Failed SignerValidationFailure: usages did not match [client auth digital signature key encipherment]"},
	} {
		judge(t, name+request, "Approved")
		eventually(t, request+" is settled", func() bool { return len(verdicts(signingRequest(t, name+request))) > 1 })
		if got := verdicts(signingRequest(t, name+request)); !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", request, got, want)
		}
	}
}

// kubelet-serving approves nothing by itself, whoever asks; what was denied is
// never signed.
func TestServingCertificateWaitsForApproval(t *testing.T) {
	name := namespaceName(t)
	n := nodeClient(t, name)
	mayAsk(t, name, "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "", "system:node:"+name)
	request := nodeRequest(name)
	request.DNSNames = []string{name}
	for _, which := range []string{"-approved", "-denied"} {
		a, _ := n.requested(t, name+which, servingSigner, serverUsages, request)
		a.status2xx(t)
	}
	// While these wait the node's other certificate is issued.
	a, _ := n.requested(t, name+"-client", nodeSigner, clientUsages, nodeRequest(name))
	a.status2xx(t)
	eventually(t, "the client's certificate is issued", func() bool { return len(signingRequest(t, name+"-client").Status.Certificate) > 0 })
	for _, which := range []string{"-approved", "-denied"} {
		if got := verdicts(signingRequest(t, name+which)); len(got) > 0 {
			t.Errorf("%s is %q before anybody said so", which, got)
		}
	}
	judge(t, name+"-denied", "Denied")
	judge(t, name+"-approved", "Approved")
	eventually(t, "what was approved is issued", func() bool { return len(signingRequest(t, name+"-approved").Status.Certificate) > 0 })
	if got := verdicts(signingRequest(t, name+"-denied")); !slices.Equal(got, []string{"Denied Test: m"}) {
		t.Errorf("what was denied is %q", got)
	}
	a = admin.do(t, call{method: "PATCH", path: at("certificatesigningrequests", "", name+"-denied", "approval"), contentType: mergePatch,
		body: `{"status":{"conditions":[{"type":"Approved","status":"True","reason":"Test","message":"m"}]}}`})
	a.refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "")
}
