package kinds

import (
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

// The reviews are questions to the server. They have no name; their metadata
// must be empty, which Validate checks for those kinds where Kubernetes does.

func tokenReview() *api.Resource {
	return request[authenticationv1.TokenReview](authenticationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "tokenreviews",
		Singular: "tokenreview",
		Kind:     "TokenReview",
	})
}

func selfSubjectReview() *api.Resource {
	return request[authenticationv1.SelfSubjectReview](authenticationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "selfsubjectreviews",
		Singular: "selfsubjectreview",
		Kind:     "SelfSubjectReview",
	})
}

func selfSubjectRulesReview() *api.Resource {
	return request[authorizationv1.SelfSubjectRulesReview](authorizationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "selfsubjectrulesreviews",
		Singular: "selfsubjectrulesreview",
		Kind:     "SelfSubjectRulesReview",
	})
}

func subjectAccessReview() *api.Resource {
	return request[authorizationv1.SubjectAccessReview](authorizationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "subjectaccessreviews",
		Singular: "subjectaccessreview",
		Kind:     "SubjectAccessReview",
		Validate: validates(func(r *authorizationv1.SubjectAccessReview) field.ErrorList {
			return append(validateAccessSpec(&r.Spec), emptyMeta(&r.ObjectMeta, "")...)
		}),
	})
}

func selfSubjectAccessReview() *api.Resource {
	return request[authorizationv1.SelfSubjectAccessReview](authorizationv1.SchemeGroupVersion, &api.Resource{
		Plural:   "selfsubjectaccessreviews",
		Singular: "selfsubjectaccessreview",
		Kind:     "SelfSubjectAccessReview",
		Validate: validates(func(r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
			errs := append(validateOneOf(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes), validateAttributes(r.Spec.ResourceAttributes)...)
			return append(errs, emptyMeta(&r.ObjectMeta, "")...)
		}),
	})
}

func localSubjectAccessReview() *api.Resource {
	return request[authorizationv1.LocalSubjectAccessReview](authorizationv1.SchemeGroupVersion, &api.Resource{
		Plural:     "localsubjectaccessreviews",
		Singular:   "localsubjectaccessreview",
		Kind:       "LocalSubjectAccessReview",
		Namespaced: true,
		Validate:   validates(validateLocalReview),
	})
}

func validateLocalReview(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	errs := validateAccessSpec(&r.Spec)
	errs = append(errs, emptyMeta(&r.ObjectMeta, r.Namespace)...)
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if a := r.Spec.NonResourceAttributes; a != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), *a, "disallowed on this kind of request"))
	}
	return errs
}

func validateAccessSpec(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateOneOf(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), spec.User, "at least one of user or group must be specified"))
	}
	return append(errs, validateAttributes(spec.ResourceAttributes)...)
}

// validateOneOf shows the attributes of a path in either case.
func validateOneOf(resource *authorizationv1.ResourceAttributes, nonResource *authorizationv1.NonResourceAttributes) field.ErrorList {
	if (resource == nil) != (nonResource == nil) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec"), nonResource, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
}

func validateAttributes(resource *authorizationv1.ResourceAttributes) field.ErrorList {
	if resource == nil {
		return nil
	}
	var errs field.ErrorList
	path := field.NewPath("spec")
	if s := resource.FieldSelector; s != nil {
		at := path.Child("resourceAttributes", "fieldSelector")
		errs = append(errs, validateSelectorSource(s.RawSelector, len(s.Requirements), at)...)
		for i, r := range s.Requirements {
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(r, metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	if s := resource.LabelSelector; s != nil {
		at := path.Child("resourceAttributes", "labelSelector")
		errs = append(errs, validateSelectorSource(s.RawSelector, len(s.Requirements), at)...)
		for i, r := range s.Requirements {
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(r, metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// validateSelectorSource demands either a raw selector or requirements.
func validateSelectorSource(raw string, requirements int, path *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements != 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", path))}
	}
	return nil
}

// emptyMeta demands metadata with nothing but the namespace (and what the
// server or the machinery of managed fields adds).
func emptyMeta(meta *metav1.ObjectMeta, namespace string) field.ErrorList {
	rest := meta.DeepCopy()
	rest.ManagedFields = nil
	if equality.Semantic.DeepEqual(*rest, metav1.ObjectMeta{Namespace: namespace}) {
		return nil
	}
	msg := "must be empty"
	if namespace != "" {
		msg = "must be empty except for namespace"
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), *meta, msg)}
}
