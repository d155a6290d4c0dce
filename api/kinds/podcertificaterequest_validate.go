package kinds

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/pod"
)

// Limits of requests and of what is issued, in bytes and seconds.
const (
	maxUID              = 128
	maxStubRequest      = 10 << 10
	maxCertificateChain = 100 << 10

	shortestPodCertificate       = 60 * 60
	longestPodCertificate        = 91 * 24 * 60 * 60
	longestKubernetesCertificate = 24 * 60 * 60

	// refreshMargin is how far from both ends of a certificate's life the time
	// of its refresh must be.
	refreshMargin = 10 * time.Minute
)

// podVerdicts are the conditions that end a request, one of them at most.
var podVerdicts = []string{
	certificatesv1.PodCertificateRequestConditionTypeIssued,
	certificatesv1.PodCertificateRequestConditionTypeDenied,
	certificatesv1.PodCertificateRequestConditionTypeFailed,
}

func validatePodCertificateRequest(r *certificatesv1.PodCertificateRequest) field.ErrorList {
	spec, path := &r.Spec, field.NewPath("spec")
	errs := pod.ValidateSignerName(spec.SignerName, path.Child("signerName"))
	annotations := path.Child("unverifiedUserAnnotations")
	for key := range spec.UnverifiedUserAnnotations {
		errs = append(errs, validation.IsDomainPrefixedKey(annotations, strings.ToLower(key))...)
	}
	if apivalidation.ValidateAnnotationsSize(spec.UnverifiedUserAnnotations) != nil {
		errs = append(errs, field.TooLong(annotations, "", apivalidation.TotalAnnotationSizeLimitB))
	}
	for _, part := range []struct{ name, value, uid string }{
		{"pod", spec.PodName, string(spec.PodUID)},
		{"serviceAccount", spec.ServiceAccountName, string(spec.ServiceAccountUID)},
		{"node", string(spec.NodeName), string(spec.NodeUID)},
	} {
		errs = append(errs, invalidEach(path.Child(part.name+"Name"), part.value, apivalidation.NameIsDNSSubdomain(part.value, false))...)
		at := path.Child(part.name + "UID")
		if part.uid == "" {
			errs = append(errs, field.Invalid(at, part.uid, "must not be empty"))
		}
		if len(part.uid) > maxUID {
			errs = append(errs, field.TooLong(at, part.uid, maxUID))
		}
	}
	longest := int32(longestPodCertificate)
	if pod.IsKubernetesSigner(spec.SignerName) {
		longest = longestKubernetesCertificate
	}
	if s := *spec.MaxExpirationSeconds; s < shortestPodCertificate || s > longest {
		errs = append(errs, field.Invalid(path.Child("maxExpirationSeconds"), s, fmt.Sprintf("must be in the range [%d, %d]", shortestPodCertificate, longest)))
	}
	if len(spec.StubPKCS10Request) == 0 {
		// The second possibility is one of a beta.
		return append(errs, field.Invalid(path, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set"))
	}
	return append(errs, validateStubRequest(spec.StubPKCS10Request, path.Child("stubPKCS10Request"))...)
}

// validateStubRequest wants a good key and proof of having it; what else the
// request says is not looked at.
func validateStubRequest(der []byte, path *field.Path) field.ErrorList {
	if len(der) > maxStubRequest {
		return field.ErrorList{field.TooLong(path, der, maxStubRequest)}
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "must be a valid PKCS#10 CSR")}
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if !slices.Contains([]elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}, key.Curve) {
			return field.ErrorList{field.Invalid(path, "curve "+key.Curve.Params().Name, "elliptic public keys must use curve P256, P384, or P521")}
		}
	case *rsa.PublicKey:
		if bits := key.Size() * 8; bits != 3072 && bits != 4096 {
			return field.ErrorList{field.Invalid(path, fmt.Sprintf("%d-bit modulus", bits), "RSA keys must have modulus size 3072 or 4096")}
		}
	default:
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")}
	}
	if request.CheckSignature() != nil {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, "invalid signature")}
	}
	return nil
}

// podVerdict is the condition that ended a request, or "".
func podVerdict(r *certificatesv1.PodCertificateRequest) string {
	for _, c := range r.Status.Conditions {
		if c.Status == metav1.ConditionTrue && slices.Contains(podVerdicts, c.Type) {
			return c.Type
		}
	}
	return ""
}

// validatePodCertificateStatus says what is wrong with a status that replaces that
// of old at the time now, in Kubernetes' order: much of it is the first flaw only.
// Without a time (the zero one) nothing is held against it.
func validatePodCertificateStatus(r, old *certificatesv1.PodCertificateRequest, now time.Time) field.ErrorList {
	path := field.NewPath("status")
	if errs := validatePodVerdicts(r.Status.Conditions, path); len(errs) > 0 {
		return errs // the rest depends on the conditions
	}
	want, why := old.Status, `status is immutable unless transitioning to "Issued", "Denied", or "Failed"`
	switch verdict := podVerdict(r); {
	case podVerdict(old) != "":
		why = "immutable after PodCertificateRequest is issued, denied, or failed"
	case verdict == certificatesv1.PodCertificateRequestConditionTypeIssued:
		return validateIssued(r, path, now)
	case verdict != "":
		want = certificatesv1.PodCertificateRequestStatus{Conditions: r.Status.Conditions}
		why = "non-condition status fields must be empty when denying or failing the PodCertificateRequest"
	}
	if !equality.Semantic.DeepEqual(r.Status, want) {
		return field.ErrorList{field.Invalid(path, field.OmitValueType{}, why)}
	}
	return nil
}

func validatePodVerdicts(conditions []metav1.Condition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	known := 0
	for i, c := range conditions {
		// The dot before the index is in the path that Kubernetes reports.
		at := path.Child("conditions", fmt.Sprintf("[%d]", i))
		if !slices.Contains(podVerdicts, c.Type) {
			errs = append(errs, field.NotSupported(at.Child("type"), c.Type, podVerdicts))
			continue
		}
		if known++; known > 1 {
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
		}
		if c.Status != metav1.ConditionTrue {
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []metav1.ConditionStatus{metav1.ConditionTrue}))
		}
	}
	return append(errs, metav1validation.ValidateConditions(conditions, path.Child("conditions"))...)
}

// validateIssued holds what was issued against the request, and the times of the
// status against the certificate.
func validateIssued(r *certificatesv1.PodCertificateRequest, path *field.Path, now time.Time) field.ErrorList {
	at := path.Child("certificateChain")
	chain := r.Status.CertificateChain
	if len(chain) > maxCertificateChain {
		return field.ErrorList{field.TooLong(at, chain, maxCertificateChain)}
	}
	flaw := func(detail string) field.ErrorList { return field.ErrorList{field.Invalid(at, chain, detail)} }
	block, rest := pem.Decode([]byte(chain))
	if block == nil {
		return flaw("issued certificate chain must contain at least one certificate")
	}
	if block.Type != certificateBlock {
		return flaw("issued certificate chain must consist entirely of CERTIFICATE PEM blocks")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return flaw("leaf certificate does not parse as valid X.509")
	}
	names := validateLeafNames(leaf, at)
	request, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return append(names, field.Invalid(field.NewPath("spec", "stubPKCS10Request"), field.OmitValueType{}, "must be a valid PKCS#10 CSR"))
	}
	if key, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && !key.Equal(leaf.PublicKey) {
		return append(names, flaw("leaf certificate was not issued to the requested public key")...)
	}
	if errs := append(names, requireTimes(&r.Status, path)...); len(errs) > 0 {
		return errs
	}
	if err := timesFlaw(r, leaf, path, now); err != nil {
		return field.ErrorList{err}
	}
	for {
		if block, rest = pem.Decode(rest); block == nil {
			return nil
		}
		if block.Type != certificateBlock {
			return flaw("issued certificate chain must consist entirely of CERTFICATE PEM blocks") // as Kubernetes spells it
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return flaw("intermediate certificate does not parse as valid X.509")
		}
	}
}

func validateLeafNames(leaf *x509.Certificate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range leaf.DNSNames {
		if name == "" {
			errs = append(errs, field.Invalid(path, name, "leaf certificate should not contain empty DNSName"))
		}
		if strings.Contains(name, "..") {
			errs = append(errs, field.Invalid(path, name, "leaf certificate's DNSName should not contain '..'"))
		}
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") {
			errs = append(errs, field.Invalid(path, name, "leaf certificate's DNSName should not start or end with '.'"))
		}
	}
	for _, address := range leaf.EmailAddresses {
		if _, err := mail.ParseAddress(address); err != nil {
			errs = append(errs, field.Invalid(path, address, "leaf certificate should not contain invalid EmailAddress"))
		}
	}
	return errs
}

func requireTimes(s *certificatesv1.PodCertificateRequestStatus, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, t := range []struct {
		name   string
		value  *metav1.Time
		detail string
	}{
		{"notBefore", s.NotBefore, "must be present and consistent with the issued certificate"},
		{"notAfter", s.NotAfter, "must be present and consistent with the issued certificate"},
		{"beginRefreshAt", s.BeginRefreshAt, "must be present and in the range [notbefore+10min, notafter-10min]"},
	} {
		if t.value == nil {
			errs = append(errs, field.Required(path.Child(t.name), t.detail))
		}
	}
	return errs
}

// issueSkew is how far the start of a certificate may be from the time at which
// it is issued.
const issueSkew = 5 * time.Minute

// timesFlaw is the first thing that is wrong with the times.
func timesFlaw(r *certificatesv1.PodCertificateRequest, leaf *x509.Certificate, path *field.Path, now time.Time) *field.Error {
	start, end, refresh := r.Status.NotBefore.Time, r.Status.NotAfter.Time, r.Status.BeginRefreshAt.Time
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	longest := ptr.Deref(r.Spec.MaxExpirationSeconds, 0)
	chain, begin := path.Child("certificateChain"), path.Child("beginRefreshAt")
	switch {
	case !start.Equal(leaf.NotBefore):
		return field.Invalid(path.Child("notBefore"), start, "must be set to the NotBefore time encoded in the leaf certificate")
	case !now.IsZero() && start.Sub(now).Abs() >= issueSkew:
		return field.Invalid(path.Child("notBefore"), start,
			fmt.Sprintf("must be set to within %d minutes of kube-apiserver's current time", int(issueSkew.Minutes())))
	case !end.Equal(leaf.NotAfter):
		return field.Invalid(path.Child("notAfter"), end, "must be set to the NotAfter time encoded in the leaf certificate")
	case life < shortestPodCertificate*time.Second:
		return field.Invalid(chain, life, "leaf certificate lifetime must be >= 1 hour")
	case life > time.Duration(longest)*time.Second:
		return field.Invalid(chain, life, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%v)", longest))
	case refresh.Before(start.Add(refreshMargin)):
		return field.Invalid(begin, refresh, "must be at least 10 minutes after status.notBefore")
	case refresh.After(end.Add(-refreshMargin)):
		return field.Invalid(begin, refresh, "must be at least 10 minutes before status.notAfter")
	}
	return nil
}
