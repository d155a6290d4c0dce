package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// How long a request is kept: after its verdict, and without one (or without
// the certificate that the verdict promised).
const (
	keepSettled = time.Hour
	keepPending = 24 * time.Hour
)

// plan is what is to be done about one request: at most one of its parts is
// set.
type plan struct {
	// remove: it is of no more use.
	remove bool
	// fail is the condition that says why it cannot be signed.
	fail *certificatesv1.CertificateSigningRequestCondition
	// sign is the certificate to be signed for the request's key.
	sign *x509.Certificate
	// ask are the permissions that approve it, the first that its author has.
	ask []permission
	// request is what sign and ask are about.
	request *x509.CertificateRequest
}

// permission is a subresource of certificatesigningrequests: whoever may create
// it has such requests approved.
type permission struct {
	subresource string
	message     string // of the condition Approved
}

// decide plans for a request at a time. after is when it is to be looked at
// again if nothing changes it earlier: it is removed one day in any case.
func decide(r *certificatesv1.CertificateSigningRequest, now time.Time) (p plan, after time.Duration, err error) {
	left, ends := remaining(r, now)
	if r.DeletionTimestamp != nil {
		return plan{}, 0, nil
	}
	if ends && left <= 0 {
		return plan{remove: true}, 0, nil
	}
	if has(r, certificatesv1.CertificateDenied) || hasTrue(r, certificatesv1.CertificateFailed) || len(r.Status.Certificate) > 0 {
		return plan{}, left, nil
	}
	s, ours := signers[r.Spec.SignerName]
	approved := has(r, certificatesv1.CertificateApproved)
	if !ours || !approved && s.approve == nil {
		return plan{}, left, nil
	}
	if p.request, err = parse(r.Spec.Request); err != nil {
		return plan{}, 0, fmt.Errorf("unable to parse csr %q: %w", r.Name, err)
	}
	if !approved {
		p.ask = s.approve(r, p.request)
		return p, left, nil
	}
	if err := s.check(p.request, r.Spec.Usages); err != nil {
		p.fail = &certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: err.Error(),
			LastUpdateTime: metav1.NewTime(now),
		}
		return p, left, nil
	}
	p.sign, err = certificate(p.request, r.Spec.Usages, r.Spec.ExpirationSeconds, now)
	if err != nil {
		return plan{}, 0, fmt.Errorf("error auto signing csr: %w", err)
	}
	return p, left, nil
}

// patience is when to ask again whether the author of a request has a permission,
// which may be granted late: after as long as the request has waited already.
func patience(r *certificatesv1.CertificateSigningRequest, now time.Time) time.Duration {
	return min(max(now.Sub(r.CreationTimestamp.Time), time.Second), 1000*time.Second)
}

func parse(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return request, request.CheckSignature()
}

func has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

// hasTrue is has for a condition that may be written with a status or, by those
// of an old version, without one.
func hasTrue(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
		return c.Type == kind && (c.Status == "" || c.Status == corev1.ConditionTrue)
	})
}

// remaining is how long a request is kept yet, if it is not kept for ever.
func remaining(r *certificatesv1.CertificateSigningRequest, now time.Time) (left time.Duration, ends bool) {
	until := func(from time.Time, keep time.Duration) {
		if from.IsZero() {
			return
		}
		// It goes when it is older than that, not when it is as old.
		if d := from.Add(keep).Sub(now) + 1; !ends || d < left {
			left, ends = d, true
		}
	}
	issued := len(r.Status.Certificate) > 0
	if len(r.Status.Conditions) == 0 {
		until(r.CreationTimestamp.Time, keepPending)
	}
	for _, c := range r.Status.Conditions {
		switch {
		case c.Type == certificatesv1.CertificateDenied, c.Type == certificatesv1.CertificateFailed:
			until(c.LastUpdateTime.Time, keepSettled)
		case c.Type == certificatesv1.CertificateApproved && issued:
			until(c.LastUpdateTime.Time, keepSettled)
			until(expiry(r.Status.Certificate), 0)
		case c.Type == certificatesv1.CertificateApproved:
			until(c.LastUpdateTime.Time, keepPending)
		}
	}
	return left, ends
}

// expiry is when the first certificate of a PEM text ends, or zero.
func expiry(text []byte) time.Time {
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}
	}
	certificates, err := x509.ParseCertificates(block.Bytes)
	if err != nil || len(certificates) == 0 {
		return time.Time{}
	}
	return certificates[0].NotAfter
}
