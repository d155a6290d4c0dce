package noderestriction

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/certificates"
)

// signing allows certificates for the node itself only, from the two signers
// whose certificates make a node.
func (r *request) signing() error {
	if r.Operation != admission.Create || r.Subresource != "" {
		return nil
	}
	obj, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return r.unexpected(r.Object)
	}
	if s := obj.Spec.SignerName; s != certificatesv1.KubeletServingSignerName && s != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	request, err := certificates.Parse(obj.Spec.Request)
	if err != nil {
		return r.forbidden("unable to parse csr: %v", err)
	}
	if want := "system:node:" + r.node; request.Subject.CommonName != want {
		return r.forbidden("can only create a node CSR with CN=%s", want)
	}
	return nil
}

// podCertificate allows requests for pods of the node, which must be as the
// request says. What may be seen too early is no refusal for good, so its error
// is not a 403.
func (r *request) podCertificate(ctx context.Context) error {
	if r.Operation != admission.Create {
		return r.forbidden("unexpected operation %v", r.Operation)
	}
	if r.Subresource != "" {
		return r.forbidden("unexpected subresource %v", r.Subresource)
	}
	obj, ok := r.Object.(*certificatesv1.PodCertificateRequest)
	if !ok {
		return r.unexpected(r.Object)
	}
	spec := &obj.Spec
	if string(spec.NodeName) != r.node {
		return r.forbidden("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", spec.NodeName, r.node)
	}
	self := r.view.Get(r.nodes, api.Key{Name: r.node})
	if self == nil {
		return unsettled("while retrieving node %q named in the PodCertificateRequest: %v", r.node, apierrors.NewNotFound(r.nodes.GroupResource(), r.node))
	}
	podName, account := r.Namespace+"/"+spec.PodName, r.Namespace+"/"+spec.ServiceAccountName
	if uid := self.GetUID(); uid != spec.NodeUID {
		return unsettled("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node (%q)", podName, spec.NodeUID, uid)
	}
	pod, _ := r.view.Get(r.pods, api.Key{Namespace: r.Namespace, Name: spec.PodName}).(*corev1.Pod)
	switch {
	case pod == nil:
		return unsettled("while retrieving pod %q named in the PodCertificateRequest: %v", podName, apierrors.NewNotFound(r.pods.GroupResource(), spec.PodName))
	case spec.PodUID != pod.UID:
		return unsettled("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", podName, spec.PodUID, pod.UID)
	case pod.Spec.NodeName != r.node:
		return r.forbidden("pod %q is not running on node %q named in the PodCertificateRequest", podName, r.node)
	case isMirror(pod):
		return r.forbidden("pod %q is a mirror pod", podName)
	case spec.ServiceAccountName != pod.Spec.ServiceAccountName:
		return r.forbidden("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)", podName, spec.ServiceAccountName, pod.Spec.ServiceAccountName)
	}
	as := r.view.Get(r.accounts, api.Key{Namespace: r.Namespace, Name: spec.ServiceAccountName})
	if as == nil {
		return unsettled("while retrieving service account %q named in the PodCertificateRequest: %v", account, apierrors.NewNotFound(r.accounts.GroupResource(), spec.ServiceAccountName))
	}
	if uid := as.GetUID(); uid != spec.ServiceAccountUID {
		return unsettled("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account (%q)", podName, spec.ServiceAccountUID, uid)
	}
	return r.signerOf(ctx, pod, spec)
}

func isMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// unsettled is an error of no particular reason, status 500.
func unsettled(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: fmt.Sprintf(format, args...),
	}}
}

// signerOf allows the signers that a volume of the pod names, and those that the
// node may ask for anyway.
func (r *request) signerOf(ctx context.Context, pod *corev1.Pod, spec *certificatesv1.PodCertificateRequestSpec) error {
	for _, volume := range pod.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.PodCertificate != nil && source.PodCertificate.SignerName == spec.SignerName {
				return nil
			}
		}
	}
	decision, _, err := r.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User:       r.User,
		Verb:       "request-serviceaccounts-podcertificate-signer",
		Namespace:  r.Namespace,
		APIGroup:   certificatesv1.GroupName,
		APIVersion: "v1",
		// Rules cannot name resources with slashes.
		Resource:        strings.ReplaceAll(spec.SignerName, "/", ":"),
		Name:            spec.ServiceAccountName,
		ResourceRequest: true,
	})
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return r.forbidden("error authorizing %s to request podcertificaterequests for signer %q: %v", r.User.GetName(), spec.SignerName, err)
	}
	return r.forbidden("pod %q does not mount a podCertificate projected volume for signer %q", r.Namespace+"/"+spec.PodName, spec.SignerName)
}
