package certificates

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// signer is one of Kubernetes' own signers (documentation: "Certificates and
// Certificate Signing Requests", "Signers").
type signer struct {
	// check says why the signer would not sign.
	check func(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error
	// approve gives the permissions of which one approves a request; nil: people
	// approve it.
	approve func(r *certificatesv1.CertificateSigningRequest, request *x509.CertificateRequest) []permission
}

// legacyUnknown signed requests of a beta version that named no signer. None can
// be made any more; those that are there are still signed.
const legacyUnknown = "kubernetes.io/legacy-unknown"

var signers = map[string]signer{
	certificatesv1.KubeAPIServerClientSignerName:        {check: checkClient},
	certificatesv1.KubeAPIServerClientKubeletSignerName: {check: checkNodeClient, approve: approveNode},
	certificatesv1.KubeletServingSignerName:             {check: checkNodeServer},
	legacyUnknown:                                       {check: func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error { return nil }},
}

// approveNode recognizes the request of a node for the certificate by which the
// API server knows it: of the node itself, which renews it, or of whoever brings
// nodes into the cluster.
func approveNode(r *certificatesv1.CertificateSigningRequest, request *x509.CertificateRequest) []permission {
	if checkNodeClient(request, r.Spec.Usages) != nil {
		return nil
	}
	joins := permission{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."}
	if r.Spec.Username != request.Subject.CommonName {
		return []permission{joins}
	}
	return []permission{{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."}, joins}
}

// checkClient is the rule of kubernetes.io/kube-apiserver-client.
func checkClient(_ *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth:
		default:
			return fmt.Errorf("invalid usage for client certificate: %s", u)
		}
	}
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) {
		return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return nil
}

var (
	errOrganization = errors.New("subject organization is not system:nodes")
	errCommonName   = errors.New("subject common name does not begin with system:node:")
)

// checkNodeClient is the rule of kubernetes.io/kube-apiserver-client-kubelet.
func checkNodeClient(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(request.Subject.Organization, []string{"system:nodes"}):
		return errOrganization
	case len(request.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(request.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed")
	case len(request.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(request.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	case !strings.HasPrefix(request.Subject.CommonName, "system:node:"):
		return errCommonName
	}
	return checkUsages(usages, certificatesv1.UsageClientAuth)
}

// checkNodeServer is the rule of kubernetes.io/kubelet-serving.
func checkNodeServer(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch {
	case !slices.Equal(request.Subject.Organization, []string{"system:nodes"}):
		return errOrganization
	case len(request.DNSNames) == 0 && len(request.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(request.EmailAddresses) > 0:
		return errors.New("Email subjectAltNames are not allowed")
	case len(request.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	if err := checkUsages(usages, certificatesv1.UsageServerAuth); err != nil {
		return err
	}
	if !strings.HasPrefix(request.Subject.CommonName, "system:node:") {
		return errCommonName
	}
	return nil
}

// checkUsages wants the use, digital signatures, and nothing else but the key
// encipherment that only keys of RSA can do.
func checkUsages(usages []certificatesv1.KeyUsage, use certificatesv1.KeyUsage) error {
	want := []certificatesv1.KeyUsage{use, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	slices.Sort(want)
	have := slices.Compact(slices.Sorted(slices.Values(usages)))
	without := slices.DeleteFunc(slices.Clone(want), func(u certificatesv1.KeyUsage) bool { return u == certificatesv1.UsageKeyEncipherment })
	if slices.Equal(have, want) || slices.Equal(have, without) {
		return nil
	}
	return fmt.Errorf("usages did not match %v", want)
}

// Lifetimes of certificates.
const (
	longest  = 365 * 24 * time.Hour
	shortest = 10 * time.Minute
	// Each begins a little in the past, for clocks that differ, and a long one
	// ends as much earlier.
	backdate = 5 * time.Minute
	long     = 8 * time.Hour
)

// certificate is what is to be signed for a request.
func certificate(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage, seconds *int32, now time.Time) (*x509.Certificate, error) {
	life := longest
	if seconds != nil {
		life = min(max(time.Duration(*seconds)*time.Second, shortest), longest)
	}
	c := &x509.Certificate{
		Subject:        request.Subject,
		DNSNames:       request.DNSNames,
		IPAddresses:    request.IPAddresses,
		EmailAddresses: request.EmailAddresses,
		URIs:           request.URIs,
		NotBefore:      now.Add(-backdate),
		NotAfter:       now.Add(life),
	}
	if life >= long {
		c.NotAfter = c.NotAfter.Add(-backdate)
	}
	extended := map[x509.ExtKeyUsage]bool{}
	for _, u := range usages {
		bit, plain := keyUsages[u]
		use, known := extKeyUsages[u]
		switch {
		case plain:
			c.KeyUsage |= bit
		case known:
			extended[use] = true
		default:
			return nil, fmt.Errorf("unrecognized usage values: %q", []certificatesv1.KeyUsage{u})
		}
	}
	c.ExtKeyUsage = slices.Sorted(maps.Keys(extended))
	return c, nil
}

var keyUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning:           x509.KeyUsageDigitalSignature,
	certificatesv1.UsageDigitalSignature:  x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment,
	certificatesv1.UsageKeyEncipherment:   x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement:      x509.KeyUsageKeyAgreement,
	certificatesv1.UsageDataEncipherment:  x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign:          x509.KeyUsageCertSign,
	certificatesv1.UsageCRLSign:           x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly:      x509.KeyUsageEncipherOnly,
	certificatesv1.UsageDecipherOnly:      x509.KeyUsageDecipherOnly,
}

var extKeyUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny:             x509.ExtKeyUsageAny,
	certificatesv1.UsageServerAuth:      x509.ExtKeyUsageServerAuth,
	certificatesv1.UsageClientAuth:      x509.ExtKeyUsageClientAuth,
	certificatesv1.UsageCodeSigning:     x509.ExtKeyUsageCodeSigning,
	certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageSMIME:           x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageIPsecEndSystem:  x509.ExtKeyUsageIPSECEndSystem,
	certificatesv1.UsageIPsecTunnel:     x509.ExtKeyUsageIPSECTunnel,
	certificatesv1.UsageIPsecUser:       x509.ExtKeyUsageIPSECUser,
	certificatesv1.UsageTimestamping:    x509.ExtKeyUsageTimeStamping,
	certificatesv1.UsageOCSPSigning:     x509.ExtKeyUsageOCSPSigning,
	certificatesv1.UsageMicrosoftSGC:    x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	certificatesv1.UsageNetscapeSGC:     x509.ExtKeyUsageNetscapeServerGatedCrypto,
}
