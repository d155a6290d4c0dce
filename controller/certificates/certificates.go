// Package certificates answers the CertificateSigningRequests of Kubernetes' own
// signers: it approves those of nodes that may have them, signs what was
// approved, and clears away what has served its purpose.
package certificates

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Authority signs certificates. It gives them their serial number, ends them
// when it ends itself, and makes no authority of them.
type Authority interface {
	Sign(certificate *x509.Certificate, key crypto.PublicKey) (der []byte, err error)
}

// Loop is the certificate controller.
type Loop struct {
	client            client.Interface
	authority         Authority
	requests, reviews *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, authority Authority) *Loop {
	return &Loop{
		client: c, authority: authority,
		requests: c.Registry().Must("certificates.k8s.io", "certificatesigningrequests"),
		reviews:  c.Registry().Must("authorization.k8s.io", "subjectaccessreviews"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "certificate-controller" }

// Sources are the requests.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{{Resource: l.requests}}
}

// Step takes one request further.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	r, ok := l.client.View().Get(l.requests, key).(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return 0, nil
	}
	p, after, err := decide(r, now)
	switch {
	case err != nil:
		return 0, err
	case p.remove:
		return 0, l.remove(ctx, r)
	case p.fail != nil:
		return after, l.write(ctx, r, "status", func(s *certificatesv1.CertificateSigningRequestStatus) {
			s.Conditions = append(s.Conditions, *p.fail)
		})
	case p.sign != nil:
		der, err := l.authority.Sign(p.sign, p.request.PublicKey)
		if err != nil {
			return 0, fmt.Errorf("error auto signing csr: %w", err)
		}
		return after, l.write(ctx, r, "status", func(s *certificatesv1.CertificateSigningRequestStatus) {
			s.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		})
	case len(p.ask) > 0:
		approved, err := l.approve(ctx, r, p.ask, now)
		if !approved {
			after = min(after, patience(r, now))
		}
		return after, err
	}
	return after, nil
}

// approve approves a request if its author has one of the permissions.
func (l *Loop) approve(ctx context.Context, r *certificatesv1.CertificateSigningRequest, ask []permission, now time.Time) (bool, error) {
	for _, p := range ask {
		allowed, err := l.allowed(ctx, &r.Spec, p.subresource)
		if err != nil {
			return false, fmt.Errorf("review access of the author of csr %q: %w", r.Name, err)
		}
		if allowed {
			return true, l.write(ctx, r, "approval", func(s *certificatesv1.CertificateSigningRequestStatus) {
				s.Conditions = append(s.Conditions, certificatesv1.CertificateSigningRequestCondition{
					Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: p.message,
					LastUpdateTime: metav1.NewTime(now),
				})
			})
		}
	}
	return false, nil
}

// allowed asks whether the author of a request may create a subresource of
// requests.
func (l *Loop) allowed(ctx context.Context, author *certificatesv1.CertificateSigningRequestSpec, subresource string) (bool, error) {
	extra := make(map[string]authorizationv1.ExtraValue, len(author.Extra))
	for k, v := range author.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	answer, err := l.client.Ask(ctx, l.reviews, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: author.Username, UID: author.UID, Groups: author.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: "certificates.k8s.io", Version: "*", Resource: "certificatesigningrequests", Subresource: subresource, Verb: "create",
		},
	}})
	if err != nil {
		return false, err
	}
	return answer.(*authorizationv1.SubjectAccessReview).Status.Allowed, nil
}

// write changes a request's status as it was seen.
func (l *Loop) write(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string, change func(*certificatesv1.CertificateSigningRequestStatus)) error {
	r = r.DeepCopy()
	change(&r.Status)
	if _, err := l.client.Update(ctx, l.requests, r, subresource); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update %s of csr %q: %w", subresource, r.Name, err)
	}
	return nil
}

func (l *Loop) remove(ctx context.Context, r *certificatesv1.CertificateSigningRequest) error {
	err := l.client.Delete(ctx, api.RefTo(l.requests, r), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("unable to delete CSR %q: %w", r.Name, err)
	}
	return nil
}
