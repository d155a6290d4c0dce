package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) projectedVolume(at *field.Path, s *corev1.ProjectedVolumeSource) {
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	p := &projection{c: c, at: at, taken: sets.New[string]()}
	for i := range s.Sources {
		p.source(at.Child("sources").Index(i), &s.Sources[i])
	}
}

// projection is one volume put together from several sources, which may not
// write the same file. Clashes are reported at the volume.
type projection struct {
	c     *checker
	at    *field.Path
	taken sets.Set[string]
}

// claim takes a file for a source; blame is the value shown if it is taken.
func (p *projection) claim(file, blame string) {
	if p.taken.Has(file) {
		p.c.invalid(p.at, blame, "conflicting duplicate paths")
	}
	p.taken.Insert(file)
}

func (p *projection) source(at *field.Path, s *corev1.VolumeProjection) {
	c, count := p.c, 0
	if s.Secret != nil {
		count++
		p.keys(at.Child("secret"), s.Secret.Name, s.Secret.Items)
	}
	if s.ConfigMap != nil {
		count++
		p.keys(at.Child("configMap"), s.ConfigMap.Name, s.ConfigMap.Items)
	}
	if s.DownwardAPI != nil {
		count++
		for i := range s.DownwardAPI.Items {
			f := &s.DownwardAPI.Items[i]
			c.downwardFile(at.Child("downwardAPI"), f)
			if f.Path != "" {
				p.claim(f.Path, f.Path)
			}
		}
	}
	if s.ServiceAccountToken != nil {
		count++
		p.token(at.Child("serviceAccountToken"), s.ServiceAccountToken)
	}
	if s.ClusterTrustBundle != nil {
		count++
		p.trustBundle(at.Child("clusterTrustBundle"), s.ClusterTrustBundle)
	}
	if s.PodCertificate != nil {
		count++
		p.certificate(at.Child("podCertificate"), s.PodCertificate)
	}
	if count > 1 {
		c.forbidden(at, "may not specify more than 1 volume type per source")
	}
}

func (p *projection) keys(at *field.Path, name string, items []corev1.KeyToPath) {
	p.c.nonEmpty(at.Child("name"), name)
	p.c.keysToPaths(at.Child("items"), items)
	for _, item := range items {
		if item.Path != "" {
			p.claim(item.Path, name)
		}
	}
}

// Bounds of the lifetime of a projected token, in seconds.
const (
	minTokenLifetime = 10 * 60
	maxTokenLifetime = 1 << 32
)

func (p *projection) token(at *field.Path, s *corev1.ServiceAccountTokenProjection) {
	c := p.c
	lifetime := deref(s.ExpirationSeconds)
	if lifetime < minTokenLifetime {
		c.invalid(at.Child("expirationSeconds"), lifetime, "may not specify a duration less than 10 minutes")
	}
	if lifetime > maxTokenLifetime {
		c.invalid(at.Child("expirationSeconds"), lifetime, "may not specify a duration larger than 2^32 seconds")
	}
	// Upstream reports the path of a token at the volume.
	path := p.at.Child("path")
	if c.nonEmpty(path, s.Path) && !c.tokenPaths {
		c.plainRelativePath(path, s.Path)
	}
}

func (p *projection) trustBundle(at *field.Path, s *corev1.ClusterTrustBundleProjection) {
	c := p.c
	switch {
	case s.Name != nil && s.SignerName != nil:
		c.invalid(at, s, "only one of name and signerName may be used")
	case s.Name != nil:
		if *s.Name == "" {
			c.required(at.Child("name"), "must be a valid object name")
		}
		for _, reason := range trustBundleNameFlaws(*s.Name) {
			c.invalid(at.Child("name"), *s.Name, fmt.Sprintf("not a valid clustertrustbundlename: %v", reason))
		}
		if s.LabelSelector != nil {
			c.invalid(at.Child("labelSelector"), s.LabelSelector, "labelSelector must be unset if name is specified")
		}
	case s.SignerName != nil:
		if *s.SignerName == "" {
			c.required(at.Child("signerName"), "must be a valid signer name")
		}
		c.signerName(at.Child("signerName"), *s.SignerName)
		c.add(metavalidation.ValidateLabelSelector(s.LabelSelector, metavalidation.LabelSelectorValidationOptions{}, at.Child("labelSelector"))...)
	default:
		c.required(at, "either name or signerName must be specified")
	}
	c.nonEmpty(at.Child("path"), s.Path)
	c.plainRelativePath(at.Child("path"), s.Path)
	p.claim(s.Path, s.Path)
}

// trustBundleNameFlaws: a bundle of a signer is named after it, with the slash
// as a colon: example.com:signer:NAME. Others have no colon.
func trustBundleNameFlaws(name string) []string {
	i := strings.LastIndex(name, ":")
	if i < 0 {
		return apivalidation.NameIsDNSSubdomain(name, false)
	}
	signer, prefix := strings.ReplaceAll(name[:i], ":", "/"), strings.ReplaceAll(name[:i], "/", ":")+":"
	switch {
	case i == 0:
		return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
	case !strings.HasPrefix(name, prefix):
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, prefix)}
	}
	return apivalidation.NameIsDNSSubdomain(name[i+1:], false)
}

// Bounds of the lifetime of a pod certificate, in seconds. Kubernetes' own
// signers give at most a day.
const (
	minCertificateLifetime       = 3600
	maxCertificateLifetime       = 91 * 24 * 3600
	maxOwnSignerCertificateLimit = 24 * 3600
)

func (p *projection) certificate(at *field.Path, s *corev1.PodCertificateProjection) {
	c := p.c
	c.signerName(at.Child("signerName"), s.SignerName)
	for _, k := range sortedKeys(s.UserAnnotations) {
		c.add(validation.IsDomainPrefixedKey(at.Child("userAnnotations"), strings.ToLower(k))...)
	}
	if apivalidation.ValidateAnnotationsSize(s.UserAnnotations) != nil {
		c.add(field.TooLong(at.Child("userAnnotations"), "", apivalidation.TotalAnnotationSizeLimitB))
	}
	oneOf(c, at.Child("keyType"), s.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
	if seconds := s.MaxExpirationSeconds; seconds != nil {
		lifetime := at.Child("maxExpirationSeconds")
		if *seconds < minCertificateLifetime {
			c.invalid(lifetime, *seconds, fmt.Sprintf("if provided, maxExpirationSeconds must be >= %d", minCertificateLifetime))
		}
		limit := int32(maxCertificateLifetime)
		if IsKubernetesSigner(s.SignerName) {
			limit = maxOwnSignerCertificateLimit
		}
		if *seconds > limit {
			c.invalid(lifetime, *seconds, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", limit))
		}
	}
	some := false
	for _, f := range []struct{ name, path string }{
		{"credentialBundlePath", s.CredentialBundlePath},
		{"keyPath", s.KeyPath},
		{"certificateChainPath", s.CertificateChainPath},
	} {
		if f.path != "" {
			some = true
			c.plainRelativePath(at.Child(f.name), f.path)
			p.claim(f.path, f.path)
		}
	}
	if !some {
		c.required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	}
}

// IsKubernetesSigner says whether a signer's name is in a domain of Kubernetes.
func IsKubernetesSigner(name string) bool {
	host, _, _ := strings.Cut(name, "/")
	return host == "kubernetes.io" || strings.HasSuffix(host, ".kubernetes.io")
}

// Longest parts of a signer's name, in bytes: a domain, and a path that has
// room for "namespace.name".
const (
	maxSignerDomain = validation.DNS1123SubdomainMaxLength
	maxSignerName   = maxSignerDomain + 1 + validation.DNS1123LabelMaxLength + 1 + validation.DNS1123SubdomainMaxLength
)

// ValidateSignerName checks names like example.com/signer.
func ValidateSignerName(name string, path *field.Path) field.ErrorList {
	var c checker
	c.signerName(path, name)
	return c.errs
}

func (c *checker) signerName(at *field.Path, name string) {
	if !c.nonEmpty(at, name) {
		return
	}
	parts := strings.Split(name, "/")
	if len(parts) != 2 {
		c.invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	domain, path := parts[0], parts[1]
	if len(domain) > maxSignerDomain {
		c.add(field.TooLong(at, "", maxSignerDomain))
	}
	labels := c.firstBadLabel(at, domain, validation.IsDNS1123Label)
	if labels < 2 {
		c.invalid(at, domain, "should be a domain with at least two segments separated by dots")
	}
	c.firstBadLabel(at, path, validation.IsDNS1123Subdomain)
	if len(name) > maxSignerName {
		c.add(field.TooLong(at, "", maxSignerName))
	}
}

// firstBadLabel checks the labels of a dotted name up to the first bad one, and
// answers how many labels there are.
func (c *checker) firstBadLabel(at *field.Path, name string, flaws func(string) []string) int {
	labels := strings.Split(name, ".")
	for _, label := range labels {
		reasons := flaws(label)
		for _, r := range reasons {
			c.invalid(at, name, fmt.Sprintf("validating label %q: %s", label, r))
		}
		if len(reasons) > 0 {
			break
		}
	}
	return len(labels)
}
