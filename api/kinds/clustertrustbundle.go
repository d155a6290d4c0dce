package kinds

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func clusterTrustBundle() *api.Resource {
	signer := certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"]
	row := stored[certificatesv1.ClusterTrustBundle, *certificatesv1.ClusterTrustBundle, certificatesv1.ClusterTrustBundleList](certificatesv1.SchemeGroupVersion, &api.Resource{
		Plural:   "clustertrustbundles",
		Singular: "clustertrustbundle",
		Kind:     "ClusterTrustBundle",
		Prefix:   "clustertrustbundles",
		// The name depends on the signer: Validate checks it.
		NameRule: func(string, bool) []string { return nil },
		Validate: validates(func(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
			return append(validateBundleSigner(b), validateTrustAnchors(b.Spec.TrustBundle, field.NewPath("spec", "trustBundle"))...)
		}),
		ValidateUpdate: validatesUpdate(func(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
			errs := validateBundleSigner(b)
			// What Go's parser no longer likes may stay.
			if b.Spec.TrustBundle != old.Spec.TrustBundle {
				errs = append(errs, validateTrustAnchors(b.Spec.TrustBundle, field.NewPath("spec", "trustBundle"))...)
			}
			return append(errs, unchanged(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
		}),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{nameColumn(), column("SignerName", "string", signer)},
			Row: cells(func(b *certificatesv1.ClusterTrustBundle, _ time.Time) []any {
				return []any{b.Name, orDefault(b.Spec.SignerName, unset)}
			}),
		},
		FieldLabels: []string{"spec.signerName"},
		Fields: selects(func(b *certificatesv1.ClusterTrustBundle) fields.Set {
			return fields.Set{"spec.signerName": b.Spec.SignerName}
		}),
	})
	return storedAs[certificatesv1beta1.ClusterTrustBundle, certificatesv1.ClusterTrustBundle](certificatesv1beta1.SchemeGroupVersion, row)
}

// validateBundleSigner ties the name to the signer.
func validateBundleSigner(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata")
	if b.GenerateName != "" {
		errs = append(errs, invalidEach(path.Child("generateName"), b.GenerateName, bundleName(b.Spec.SignerName, b.GenerateName, true))...)
	}
	if b.Name != "" {
		errs = append(errs, invalidEach(path.Child("name"), b.Name, bundleName(b.Spec.SignerName, b.Name, false))...)
	}
	if b.Spec.SignerName != "" {
		errs = append(errs, pod.ValidateSignerName(b.Spec.SignerName, field.NewPath("spec", "signerName"))...)
	}
	return errs
}

func bundleName(signer, name string, prefix bool) []string {
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return apivalidation.NameIsDNSSubdomain(name, prefix)
	}
	required := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, ok := strings.CutPrefix(name, required)
	if !ok {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, required)}
	}
	return apivalidation.NameIsDNSSubdomain(rest, prefix)
}

const maxTrustBundle = 1 << 20

func validateTrustAnchors(text string, path *field.Path) field.ErrorList {
	if len(text) > maxTrustBundle {
		return field.ErrorList{field.TooLong(path, "", maxTrustBundle)}
	}
	flaw := func(format string, args ...any) *field.Error {
		return field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...))
	}
	var errs field.ErrorList
	var anchors []string
	places := map[string][]int{}
	rest := []byte(text)
	for i := 0; ; i++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if why := anchorFlaw(block); why != "" {
			errs = append(errs, flaw("entry %d %s", i, why))
			continue
		}
		anchor := string(block.Bytes)
		if places[anchor] == nil {
			anchors = append(anchors, anchor)
		}
		places[anchor] = append(places[anchor], i)
	}
	if len(errs) > 0 {
		return errs // the rest would follow from these
	}
	if len(anchors) == 0 {
		errs = append(errs, flaw("at least one trust anchor must be provided"))
	}
	for _, anchor := range anchors {
		if at := places[anchor]; len(at) > 1 {
			errs = append(errs, flaw("duplicate trust anchor (indices %v)", at))
		}
	}
	return errs
}

func anchorFlaw(block *pem.Block) string {
	if block.Type != certificateBlock {
		return "has bad block type: " + block.Type
	}
	if len(block.Headers) != 0 {
		return "has PEM block headers"
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "does not parse as X.509"
	case !certificate.IsCA:
		return "does not have the CA bit set"
	case !certificate.BasicConstraintsValid:
		return "has invalid basic constraints"
	}
	return ""
}
