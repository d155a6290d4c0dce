package definition

import (
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api/kinds"
)

type (
	definition = apiextensionsv1.CustomResourceDefinition
	condition  = apiextensionsv1.CustomResourceDefinitionCondition
)

// plan gives the status that a definition should have, among the others of its
// group, or nil if it has it. served says that its kind is. It is established one
// step after its names are accepted: when whoever waits for that finds it served.
// look says whether its schemas have to be looked into.
func plan(d *definition, group []*definition, served, look bool, now metav1.Time) *definition {
	next := d.DeepCopy()
	set := func(c condition) { kinds.SetDefinitionCondition(next, c, now) }
	if waits(d) || apihelpers.FindCRDCondition(d, apiextensionsv1.NamesAccepted) == nil {
		names := name(next, group)
		set(names)
		if !apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established) {
			set(installing(names.Status == apiextensionsv1.ConditionTrue))
		}
	}
	if !look {
		// They are what they were.
	} else if c := structural(d); c != nil {
		set(*c)
	} else if apihelpers.FindCRDCondition(d, apiextensionsv1.NonStructuralSchema) != nil {
		apihelpers.RemoveCRDCondition(next, apiextensionsv1.NonStructuralSchema)
	}
	if c := approved(d); c != nil {
		set(*c)
	}
	if served && apihelpers.IsCRDConditionTrue(d, apiextensionsv1.NamesAccepted) && !apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established) {
		set(condition{
			Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue,
			Reason: "InitialNamesAccepted", Message: "the initial names have been accepted",
		})
	}
	if equality.Semantic.DeepEqual(next.Status, d.Status) {
		return nil
	}
	return next
}

func installing(accepted bool) condition {
	c := condition{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted"}
	if accepted {
		c.Reason, c.Message = "Installing", "the initial names have been accepted"
	}
	return c
}

// name accepts the names that are not another's in the group, and says how it
// went. d is changed.
func name(d *definition, group []*definition) condition {
	resources, kindNames := sets.New[string](), sets.New[string]()
	for _, other := range group {
		n := &other.Status.AcceptedNames
		resources.Insert(n.Plural, n.Singular).Insert(n.ShortNames...)
		kindNames.Insert(n.Kind, n.ListKind)
	}
	want, have := &d.Spec.Names, d.Status.AcceptedNames
	c := condition{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found"}
	take := func(into *string, want, have string, used sets.Set[string], reason string) {
		if err := free(want, have, used); err != nil {
			c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
			return
		}
		*into = want
	}
	got := &d.Status.AcceptedNames
	take(&got.Plural, want.Plural, have.Plural, resources, "PluralConflict")
	take(&got.Singular, want.Singular, have.Singular, resources, "SingularConflict")
	var conflicts []error
	for _, short := range want.ShortNames {
		if slices.Contains(have.ShortNames, short) {
			continue
		}
		if err := free(short, "", resources); err != nil {
			conflicts = append(conflicts, err)
		}
	}
	if err := utilerrors.NewAggregate(conflicts); err != nil {
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, "ShortNamesConflict", err.Error()
	} else {
		got.ShortNames = want.ShortNames
	}
	take(&got.Kind, want.Kind, have.Kind, kindNames, "KindConflict")
	take(&got.ListKind, want.ListKind, have.ListKind, kindNames, "ListKindConflict")
	got.Categories = want.Categories
	return c
}

func free(want, have string, used sets.Set[string]) error {
	if want != have && used.Has(want) {
		return fmt.Errorf("%q is already in use", want)
	}
	return nil
}

// structural tells of schemas that say too little to prune by, which only servers
// before v1 took; nil if there is none.
func structural(d *definition) *condition {
	var errs field.ErrorList
	if d.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i, v := range d.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		internal := &apiextensions.CustomResourceValidation{}
		err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, internal, nil)
		if err != nil {
			continue // it was valid when it was written
		}
		s, err := schema.NewStructural(internal.OpenAPIV3Schema)
		if err != nil {
			return &condition{
				Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionUnknown, Reason: "StructuralError",
				Message: fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err),
			}
		}
		errs = append(errs, schema.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	return &condition{
		Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue, Reason: "Violations", Message: errs.ToAggregate().Error(),
	}
}

// approved says for the groups of Kubernetes itself whether they know of the kind;
// nil for all others.
func approved(d *definition) *condition {
	if !apihelpers.IsProtectedCommunityGroup(d.Spec.Group) {
		return nil
	}
	c := &condition{Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse}
	var state apihelpers.APIApprovalState
	switch state, c.Message = apihelpers.GetAPIApprovalState(d.Annotations); state {
	case apihelpers.APIApprovalInvalid:
		c.Reason = "InvalidAnnotation"
	case apihelpers.APIApprovalMissing:
		c.Reason = "MissingAnnotation"
	case apihelpers.APIApproved:
		c.Status, c.Reason = apiextensionsv1.ConditionTrue, "ApprovedAnnotation"
	case apihelpers.APIApprovalBypassed:
		c.Reason = "UnapprovedAnnotation"
	default:
		c.Status, c.Reason = apiextensionsv1.ConditionUnknown, "UnknownAnnotation"
	}
	return c
}

// terminating is how far the deletion of what a definition defines has come.
func terminating(status apiextensionsv1.ConditionStatus, reason, message string) condition {
	return condition{Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message}
}
