package kinds

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func podCertificateRequest() *api.Resource {
	gv := certificatesv1.SchemeGroupVersion
	spec := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	row := stored[certificatesv1.PodCertificateRequest, *certificatesv1.PodCertificateRequest, certificatesv1.PodCertificateRequestList](gv, &api.Resource{
		Plural:     "podcertificaterequests",
		Singular:   "podcertificaterequest",
		Kind:       "PodCertificateRequest",
		Namespaced: true,
		Prefix:     "podcertificaterequests",
		Default: on(func(r *certificatesv1.PodCertificateRequest) {
			if r.Spec.MaxExpirationSeconds == nil {
				r.Spec.MaxExpirationSeconds = ptr.To[int32](longestKubernetesCertificate)
			}
		}),
		PrepareCreate: on(func(r *certificatesv1.PodCertificateRequest) { r.Status = certificatesv1.PodCertificateRequestStatus{} }),
		PrepareUpdate: onUpdate(func(r, old *certificatesv1.PodCertificateRequest) { r.Status = *old.Status.DeepCopy() }),
		Validate:      validates(validatePodCertificateRequest),
		ValidateUpdate: validatesUpdate(func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
			return unchanged(r.Spec, old.Spec, field.NewPath("spec"))
		}),
		ResetFields: resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("PodName", "string", spec["podName"]),
				column("ServiceAccountName", "string", spec["serviceAccountName"]),
				column("NodeName", "string", spec["nodeName"]),
				column("SignerName", "string", spec["signerName"]),
				column("State", "string", "Is the request Pending, Issued, Denied, or Failed?"),
				column("UnverifiedUserAnnotations", "string", spec["unverifiedUserAnnotations"]),
			},
			Row: cells(podCertificateCells),
		},
		FieldLabels:      []string{"spec.nodeName", "spec.podName", "spec.signerName"},
		NoNamespaceLabel: true,
		Fields: selects(func(r *certificatesv1.PodCertificateRequest) fields.Set {
			return fields.Set{"spec.nodeName": string(r.Spec.NodeName), "spec.podName": r.Spec.PodName, "spec.signerName": r.Spec.SignerName}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(r, old *certificatesv1.PodCertificateRequest) {
					r.Spec = *old.Spec.DeepCopy()
					keepMeta(r, old)
				}),
				ValidateUpdateAt: func(obj, old api.Object, now time.Time) field.ErrorList {
					return validatePodCertificateStatus(obj.(*certificatesv1.PodCertificateRequest), old.(*certificatesv1.PodCertificateRequest), now)
				},
				ResetFields: resets(gv, "metadata", "spec"),
			},
		},
	})
	return storedAs[certificatesv1beta1.PodCertificateRequest, certificatesv1.PodCertificateRequest](certificatesv1beta1.SchemeGroupVersion, row)
}

func podCertificateCells(r *certificatesv1.PodCertificateRequest, _ time.Time) []any {
	state := "Pending"
	for _, c := range r.Status.Conditions {
		for _, verdict := range podVerdicts {
			if c.Type == verdict {
				state = verdict
			}
		}
	}
	return []any{r.Name, r.Spec.PodName, r.Spec.ServiceAccountName, string(r.Spec.NodeName), r.Spec.SignerName, state,
		labels.FormatLabels(r.Spec.UnverifiedUserAnnotations)}
}
