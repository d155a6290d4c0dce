// Package certificates guards what is done in the name of signers, by four
// plugins: who approves, who signs and who publishes the anchors of a signer must
// be allowed to for that signer, and no client certificate is for system:masters.
package certificates

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
	"hansa.dev/hansa/apiserver/auth/signer"
)

// validator is one plugin.
type validator func(ctx context.Context, a *admission.Attributes) error

// Validate implements admission.Validator.
func (v validator) Validate(ctx context.Context, a *admission.Attributes) error { return v(ctx, a) }

// Plugins are the four by their names. z decides about signers.
func Plugins(z authorizer.UnconditionalAuthorizer) map[string]any {
	p := signers{z}
	return map[string]any{
		"CertificateApproval":           on(admission.Update, "certificatesigningrequests", "approval", p.approve),
		"CertificateSigning":            on(admission.Update, "certificatesigningrequests", "status", p.sign),
		"CertificateSubjectRestriction": on(admission.Create, "certificatesigningrequests", "", restrictSubject),
		"ClusterTrustBundleAttest": validator(func(ctx context.Context, a *admission.Attributes) error {
			if a.Resource.Group != certificatesv1.GroupName || a.Resource.Plural != "clustertrustbundles" || a.Operation == admission.Delete {
				return nil
			}
			return p.attest(ctx, a)
		}),
	}
}

// on is a check of one operation.
func on(op admission.Operation, plural, subresource string, check validator) validator {
	return func(ctx context.Context, a *admission.Attributes) error {
		if a.Resource.Group != certificatesv1.GroupName || a.Resource.Plural != plural || a.Subresource != subresource || a.Operation != op {
			return nil
		}
		return check(ctx, a)
	}
}

// signers asks who may act for a signer.
type signers struct {
	authorizer authorizer.UnconditionalAuthorizer
}

// approve goes by the stored signer: a request cannot move to another.
func (p signers) approve(ctx context.Context, a *admission.Attributes) error {
	old, ok := a.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return refusal.Forbidden(a, "expected type CertificateSigningRequest, got: %T", a.Old)
	}
	if name := old.Spec.SignerName; !signer.Allows(ctx, p.authorizer, a.User, "approve", name) {
		return refusal.Forbidden(a, "user not permitted to approve requests with signerName %q", name)
	}
	return nil
}

func (p signers) sign(ctx context.Context, a *admission.Attributes) error {
	old, ok := a.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return refusal.Forbidden(a, "expected type CertificateSigningRequest, got: %T", a.Old)
	}
	obj, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return refusal.Forbidden(a, "expected type CertificateSigningRequest, got: %T", a.Object)
	}
	if bytes.Equal(old.Status.Certificate, obj.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, obj.Status.Conditions) {
		return nil
	}
	if name := old.Spec.SignerName; !signer.Allows(ctx, p.authorizer, a.User, "sign", name) {
		return refusal.Forbidden(a, "user not permitted to sign requests with signerName %q", name)
	}
	return nil
}

func restrictSubject(_ context.Context, a *admission.Attributes) error {
	obj, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return refusal.Forbidden(a, "expected type CertificateSigningRequest, got: %T", a.Object)
	}
	if obj.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	request, err := Parse(obj.Spec.Request)
	if err != nil {
		return refusal.Forbidden(a, "failed to parse CSR: %v", err)
	}
	if slices.Contains(request.Subject.Organization, user.SystemPrivilegedGroup) {
		return refusal.Forbidden(a, "use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup)
	}
	return nil
}

// Parse reads the request of a CertificateSigningRequest.
func Parse(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// attest goes by the new bundle: validation keeps the signer as it is.
func (p signers) attest(ctx context.Context, a *admission.Attributes) error {
	obj, ok := a.Object.(*certificatesv1.ClusterTrustBundle)
	if !ok {
		return refusal.Forbidden(a, "expected type ClusterTrustBundle, got: %T", a.Object)
	}
	name := obj.Spec.SignerName
	if name == "" || a.Operation == admission.Update && admission.OnlyCollectorFields(a) {
		return nil
	}
	if !signer.Allows(ctx, p.authorizer, a.User, "attest", name) {
		return refusal.Forbidden(a, "user not permitted to attest for signerName %q", name)
	}
	return nil
}
