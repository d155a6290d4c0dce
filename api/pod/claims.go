package pod

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateClaimSpec says what is wrong with the spec of a new, defaulted claim
// for a volume, in a template as on its own.
func ValidateClaimSpec(s *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	c := &checker{}
	c.claimSpec(path, s)
	return c.errs
}

// ValidateClaimSpecUpdate is ValidateClaimSpec for the successor of old, some
// flaws of which are forgiven.
func ValidateClaimSpecUpdate(s, old *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	c := &checker{}
	strict := metavalidation.LabelSelectorValidationOptions{}
	c.claimSelector = len(metavalidation.ValidateLabelSelector(old.Selector, strict, nil)) > 0
	c.claimGroups = old.DataSource != nil && old.DataSource.APIGroup != nil || old.DataSourceRef != nil && old.DataSourceRef.APIGroup != nil
	c.claimSpec(path, s)
	return c.errs
}

// ClaimSpecWarnings are sentences about a valid claim that is probably not what
// was meant.
func ClaimSpecWarnings(s *corev1.PersistentVolumeClaimSpec, path *field.Path) []string {
	w := &warner{}
	w.claimSpec(path, s)
	return w.list
}

// ephemeralVolume checks the template of a claim that lives as long as its pod.
func (c *checker) ephemeralVolume(at *field.Path, s *corev1.EphemeralVolumeSource) {
	p := at.Child("volumeClaimTemplate")
	if s.VolumeClaimTemplate == nil {
		c.required(p, "")
		return
	}
	c.templateMeta(p.Child("metadata"), &s.VolumeClaimTemplate.ObjectMeta)
	c.claimSpec(p.Child("spec"), &s.VolumeClaimTemplate.Spec)
}

// ValidateTemplateMeta checks the metadata of objects to be made from a template
// outside of a pod.
func ValidateTemplateMeta(m *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	var c checker
	c.templateMeta(path, m)
	return c.errs
}

// templateMeta allows labels and annotations, and nothing else.
func (c *checker) templateMeta(at *field.Path, m *metav1.ObjectMeta) {
	c.add(apivalidation.ValidateAnnotations(m.Annotations, at.Child("annotations"))...)
	c.add(metavalidation.ValidateLabels(m.Labels, at.Child("labels"))...)
	v := reflect.ValueOf(*m)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name == "Annotations" || name == "Labels" || v.Field(i).IsZero() {
			continue
		}
		c.forbidden(at.Child(lowerFirst(name)), "cannot be set")
	}
}

// lowerFirst is how upstream turns a Go field into the path of an error
// ("UID" becomes "uID").
func lowerFirst(s string) string { return string(s[0]|0x20) + s[1:] }

func (c *checker) claimSpec(at *field.Path, s *corev1.PersistentVolumeClaimSpec) {
	modes := at.Child("accessModes")
	if len(s.AccessModes) == 0 {
		c.required(modes, "at least 1 access mode is required")
	}
	c.add(metavalidation.ValidateLabelSelector(s.Selector, metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.claimSelector}, at.Child("selector"))...)
	oncePod, other := false, false
	for _, m := range s.AccessModes {
		ok := oneOf(c, modes, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		oncePod = oncePod || m == corev1.ReadWriteOncePod
		other = other || ok && m != corev1.ReadWriteOncePod
	}
	if oncePod && other {
		c.forbidden(modes, "may not use ReadWriteOncePod with other access modes")
	}
	storage := at.Child("resources").Key(string(corev1.ResourceStorage))
	if size, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		c.required(storage, "")
	} else if size.Sign() <= 0 {
		c.invalid(storage, size.String(), "must be greater than zero")
	}
	if n := deref(s.StorageClassName); n != "" {
		c.reasons(at.Child("storageClassName"), n, apivalidation.NameIsDNSSubdomain(n, false))
	}
	optionalOneOf(c, at.Child("volumeMode"), s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	c.claimSources(at, s)
	if n := deref(s.VolumeAttributesClassName); n != "" {
		c.reasons(at.Child("volumeAttributesClassName"), n, apivalidation.NameIsDNSSubdomain(n, false))
	}
}

// claimSources checks what a claim is filled from: dataSource, its successor
// dataSourceRef, and that the two agree.
func (c *checker) claimSources(at *field.Path, s *corev1.PersistentVolumeClaimSpec) {
	src, ref := s.DataSource, s.DataSourceRef
	if src != nil {
		c.dataSource(at.Child("dataSource"), src.APIGroup, src.Kind, src.Name)
	}
	if ref == nil {
		return
	}
	p := at.Child("dataSourceRef")
	c.dataSource(p, ref.APIGroup, ref.Kind, ref.Name)
	if ns := deref(ref.Namespace); ns != "" {
		c.reasons(p.Child("namespace"), ns, apivalidation.ValidateNamespaceName(ns, false))
		if src != nil {
			c.invalid(at, at.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified")
		}
		return
	}
	if src != nil && (!reflect.DeepEqual(src.APIGroup, ref.APIGroup) || src.Kind != ref.Kind || src.Name != ref.Name) {
		c.invalid(at, at.Child("dataSource"), "must match dataSourceRef")
	}
}

func (c *checker) dataSource(at *field.Path, group *string, kind, name string) {
	c.nonEmpty(at.Child("name"), name)
	c.nonEmpty(at.Child("kind"), kind)
	g := deref(group)
	if g == "" && kind != "PersistentVolumeClaim" {
		c.invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
	if g != "" && !c.claimGroups {
		c.dnsSubdomain(at.Child("apiGroup"), g)
	}
}
