package kinds

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func certificateSigningRequest() *api.Resource {
	gv := certificatesv1.SchemeGroupVersion
	spec := certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc()
	part := func(allowed csrPart) func(obj, old api.Object) field.ErrorList {
		return validatesUpdate(func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
			return validateCSRUpdate(r, old, allowed)
		})
	}
	return stored[certificatesv1.CertificateSigningRequest, *certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequestList](gv, &api.Resource{
		Plural:     "certificatesigningrequests",
		Singular:   "certificatesigningrequest",
		Kind:       "CertificateSigningRequest",
		ShortNames: []string{"csr"},
		Prefix:     "certificatesigningrequests",
		PrepareCreate: on(func(r *certificatesv1.CertificateSigningRequest) {
			SetRequester(r, "", "", nil, nil)
			r.Status = certificatesv1.CertificateSigningRequestStatus{}
		}),
		PrepareUpdate: onUpdate(func(r, old *certificatesv1.CertificateSigningRequest) {
			r.Spec, r.Status = *old.Spec.DeepCopy(), *old.Status.DeepCopy()
		}),
		Validate: validates(func(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
			return validateCSR(r, nil)
		}),
		ValidateUpdate:           part(csrPart{}),
		NameRule:                 func(string, bool) []string { return nil },
		ResetFields:              resets(gv, "spec", "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				ageColumn(),
				column("SignerName", "string", spec["signerName"]),
				column("Requestor", "string", spec["request"]),
				column("RequestedDuration", "string", spec["expirationSeconds"]),
				column("Condition", "string", certificatesv1beta1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"]),
			},
			Row: cells(csrCells),
		},
		FieldLabels: []string{"spec.signerName"},
		Fields: selects(func(r *certificatesv1.CertificateSigningRequest) fields.Set {
			return fields.Set{"spec.signerName": r.Spec.SignerName}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				Stamp:          stamps(stampCSR),
				PrepareUpdate:  onUpdate(prepareCSRStatus),
				ValidateUpdate: part(csrPart{certificate: true}),
				ResetFields:    resets(gv, "spec", "status.conditions"),
			},
			"approval": {
				Verbs: updateVerbs,
				Stamp: stamps(stampCSR),
				PrepareUpdate: onUpdate(func(r, old *certificatesv1.CertificateSigningRequest) {
					conditions := r.Status.Conditions
					r.Spec, r.Status = *old.Spec.DeepCopy(), *old.Status.DeepCopy()
					r.Status.Conditions = conditions
				}),
				ValidateUpdate: part(csrPart{approval: true}),
				ResetFields:    resets(gv, "spec", "status.certificate"),
			},
		},
	})
}

// SetRequester writes down who asks for a certificate, which signers rely on: it
// is for the server to say, after PrepareCreate, and not for the request.
func SetRequester(r *certificatesv1.CertificateSigningRequest, name, uid string, groups []string, extra map[string][]string) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = name, uid, groups, nil
	for key, values := range extra {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[key] = values
	}
}

// stampCSR says when conditions came, where their writer does not.
func stampCSR(r, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
}

// verdicts are the conditions that only an approver writes.
var verdicts = []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied}

// prepareCSRStatus leaves verdicts as they are, unless their number changed,
// which validation refuses.
func prepareCSRStatus(r, old *certificatesv1.CertificateSigningRequest) {
	r.Spec = *old.Spec.DeepCopy()
	for _, verdict := range verdicts {
		was, is := conditionsOf(old, verdict), conditionsOf(r, verdict)
		if len(was) != len(is) {
			continue
		}
		for i := range is {
			*is[i] = *was[i].DeepCopy()
		}
	}
}

func conditionsOf(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) []*certificatesv1.CertificateSigningRequestCondition {
	var found []*certificatesv1.CertificateSigningRequestCondition
	for i := range r.Status.Conditions {
		if r.Status.Conditions[i].Type == kind {
			found = append(found, &r.Status.Conditions[i])
		}
	}
	return found
}

func csrCells(r *certificatesv1.CertificateSigningRequest, now time.Time) []any {
	asked := unset
	if s := r.Spec.ExpirationSeconds; s != nil {
		asked = duration.HumanDuration(time.Duration(*s) * time.Second)
	}
	return []any{r.Name, age(r.CreationTimestamp, now), orDefault(r.Spec.SignerName, unset), r.Spec.Username, asked, csrState(r)}
}

func csrState(r *certificatesv1.CertificateSigningRequest) string {
	state := "Pending"
	switch {
	case len(conditionsOf(r, certificatesv1.CertificateDenied)) > 0:
		state = "Denied"
	case len(conditionsOf(r, certificatesv1.CertificateApproved)) > 0:
		state = "Approved"
	}
	if len(conditionsOf(r, certificatesv1.CertificateFailed)) > 0 {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}

// keyUsages are those that may be asked for, sorted as the refusal lists them.
var keyUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageAny, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
	certificatesv1.UsageContentCommitment, certificatesv1.UsageCRLSign, certificatesv1.UsageDataEncipherment,
	certificatesv1.UsageDecipherOnly, certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection,
	certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel,
	certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning,
	certificatesv1.UsageSMIME, certificatesv1.UsageServerAuth, certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
}

const (
	// legacySigner signed requests of a beta that named no signer.
	legacySigner = "kubernetes.io/legacy-unknown"

	shortestCertificate = 600 // seconds
)

// validateCSR checks a request; what old has wrong already is forgiven. old is
// nil on create.
func validateCSR(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	errs := validateCSRSpec(&r.Spec, old, field.NewPath("spec"))
	errs = append(errs, validateCSRConditions(r, old, field.NewPath("status", "conditions"))...)
	forgiven := old != nil && (bytes.Equal(r.Status.Certificate, old.Status.Certificate) || certificateFlaw(old.Status.Certificate) != nil)
	if err := certificateFlaw(r.Status.Certificate); err != nil && !forgiven {
		errs = append(errs, field.Invalid(field.NewPath("status", "certificate"), "<certificate data>", err.Error()))
	}
	return errs
}

func validateCSRSpec(spec *certificatesv1.CertificateSigningRequestSpec, old *certificatesv1.CertificateSigningRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if err := requestFlaw(spec.Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), spec.Request, err.Error()))
	}
	usages := path.Child("usages")
	if len(spec.Usages) == 0 {
		errs = append(errs, field.Required(usages, ""))
	}
	if bad := unknownUsages(spec.Usages, usages); old == nil || len(unknownUsages(old.Spec.Usages, usages)) == 0 {
		errs = append(errs, bad...)
	}
	if bad := repeated(spec.Usages, usages.Index); old == nil || len(repeated(old.Spec.Usages, usages.Index)) == 0 {
		errs = append(errs, bad...)
	}
	signer := path.Child("signerName")
	if spec.SignerName == legacySigner && (old == nil || old.Spec.SignerName != legacySigner) {
		errs = append(errs, field.Invalid(signer, spec.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, pod.ValidateSignerName(spec.SignerName, signer)...)
	}
	if s := spec.ExpirationSeconds; s != nil && *s < shortestCertificate {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *s, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

func unknownUsages(usages []certificatesv1.KeyUsage, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, u := range usages {
		if !slices.Contains(keyUsages, u) {
			errs = append(errs, field.NotSupported(path.Index(i), u, keyUsages))
		}
	}
	return errs
}

// repeated reports what stands in a list for the second time; at is where.
func repeated[T comparable](list []T, at func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, v := range list {
		if slices.Contains(list[:i], v) {
			errs = append(errs, field.Duplicate(at(i), v))
		}
	}
	return errs
}

func requestFlaw(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return request.CheckSignature()
}

const certificateBlock = "CERTIFICATE"

func certificateFlaw(rest []byte) error {
	if len(rest) == 0 {
		return nil
	}
	for blocks := 0; ; blocks++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if blocks == 0 {
				return errors.New("must contain at least one CERTIFICATE PEM block")
			}
			return nil
		}
		if block.Type != certificateBlock {
			return fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) != 0 {
			return errors.New("no PEM block headers are permitted")
		}
		certificates, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return err
		}
		if len(certificates) == 0 {
			return errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
	}
}

func validateCSRConditions(r, old *certificatesv1.CertificateSigningRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	typesOf := func(r *certificatesv1.CertificateSigningRequest) (types []certificatesv1.RequestConditionType) {
		for _, c := range r.Status.Conditions {
			types = append(types, c.Type)
		}
		return types
	}
	at := func(i int) *field.Path { return path.Index(i).Child("type") }
	types, was := typesOf(r), []certificatesv1.RequestConditionType(nil)
	if old != nil {
		was = typesOf(old)
	}
	for i, c := range r.Status.Conditions {
		if c.Type == "" && !slices.Contains(was, "") {
			errs = append(errs, field.Required(at(i), ""))
		}
		allowed := []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown}
		if c.Type == certificatesv1.CertificateFailed || slices.Contains(verdicts, c.Type) {
			allowed = []corev1.ConditionStatus{corev1.ConditionTrue}
		}
		errs = append(errs, oneOf(c.Status, path.Index(i).Child("status"), allowed...)...)
	}
	if len(repeated(was, at)) == 0 {
		errs = append(errs, repeated(types, at)...)
	}
	torn := func(types []certificatesv1.RequestConditionType) bool {
		return slices.Contains(types, verdicts[0]) && slices.Contains(types, verdicts[1])
	}
	if torn(types) && !torn(was) {
		const approved, denied = `conditions[{"type": "Approved"}]`, `conditions[{"type": "Denied"}]`
		errs = append(errs, field.Invalid(path, "{"+approved+", "+denied+"}", "must specify at most one of: `"+approved+"`, `"+denied+"`"))
	}
	return errs
}

// csrPart says what an update may write beside metadata.
type csrPart struct{ approval, certificate bool }

func validateCSRUpdate(r, old *certificatesv1.CertificateSigningRequest, allowed csrPart) field.ErrorList {
	errs := validateCSR(r, old)
	conditions := field.NewPath("status", "conditions")
	for _, kind := range append(slices.Clone(verdicts), certificatesv1.CertificateFailed) {
		was, is := len(conditionsOf(old, kind)), len(conditionsOf(r, kind))
		if is < was {
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not remove a condition of type %q", kind)))
		}
		// Changes of a verdict need no check: what is not added was preserved.
		if is > was && slices.Contains(verdicts, kind) && !allowed.approval {
			errs = append(errs, field.Forbidden(conditions, fmt.Sprintf("updates may not add a condition of type %q", kind)))
		}
	}
	if !bytes.Equal(r.Status.Certificate, old.Status.Certificate) {
		path := field.NewPath("status", "certificate")
		if !allowed.certificate {
			errs = append(errs, field.Forbidden(path, "updates may not set certificate content"))
		} else if len(old.Status.Certificate) > 0 {
			errs = append(errs, field.Forbidden(path, "updates may not modify existing certificate content"))
		}
	}
	return errs
}
