package kinds

import (
	"fmt"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func ingressClass() *api.Resource {
	return stored[networkingv1.IngressClass, *networkingv1.IngressClass, networkingv1.IngressClassList](networkingv1.SchemeGroupVersion, &api.Resource{
		Plural:        "ingressclasses",
		Singular:      "ingressclass",
		Kind:          "IngressClass",
		Prefix:        "ingressclasses",
		ChecksBase:    true,
		Inert:         "nothing routes traffic by the ingresses of a class",
		Default:       on(defaultIngressClass),
		PrepareCreate: on(func(c *networkingv1.IngressClass) { c.Generation = 1 }),
		PrepareUpdate: onUpdate(func(c, old *networkingv1.IngressClass) {
			defaultIngressClass(c)
			countChange(c, old, c.Spec, old.Spec)
		}),
		Validate: validates(validateIngressClass),
		ValidateUpdate: validatesUpdate(func(c, old *networkingv1.IngressClass) field.ErrorList {
			return append(unchanged(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller")), validateIngressClass(c)...)
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Controller", "string", "Controller that is responsible for handling this class"),
				column("Parameters", "string", "A reference to a resource with additional parameters"),
				ageColumn(),
			},
			Row: cells(func(c *networkingv1.IngressClass, now time.Time) []any {
				name := c.Name
				if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
					name += " (default)"
				}
				return []any{name, c.Spec.Controller, classParametersCell(c.Spec.Parameters), age(c.CreationTimestamp, now)}
			}),
		},
	})
}

func defaultIngressClass(c *networkingv1.IngressClass) {
	if p := c.Spec.Parameters; p != nil && p.Scope == nil {
		p.Scope = ptr.To(networkingv1.IngressClassParametersReferenceScopeCluster)
	}
}

const maxIngressController = 250

func validateIngressClass(c *networkingv1.IngressClass) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec", "controller")
	if len(c.Spec.Controller) > maxIngressController {
		errs = append(errs, field.TooLong(at, "", maxIngressController))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(at, c.Spec.Controller)...)
	if c.Spec.Parameters != nil {
		errs = append(errs, validateClassParameters(c.Spec.Parameters, field.NewPath("spec", "parameters"))...)
	}
	return errs
}

func validateClassParameters(p *networkingv1.IngressClassParametersReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.APIGroup != nil {
		errs = append(errs, invalidEach(path.Child("apiGroup"), *p.APIGroup, validation.IsDNS1123Subdomain(*p.APIGroup))...)
	}
	for _, part := range []struct{ name, value string }{{"kind", p.Kind}, {"name", p.Name}} {
		flaws := requiredSegment(part.value, path.Child(part.name), "")
		if part.value == "" {
			flaws.MarkBeta()
		}
		errs = append(errs, flaws...)
	}
	if p.Scope == nil {
		return append(errs, field.Required(path.Child("scope"), ""))
	}
	namespace := path.Child("namespace")
	scopes := []string{networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace}
	why := fmt.Sprintf("`parameters.scope` is set to '%s'", *p.Scope)
	switch {
	case !slices.Contains(scopes, *p.Scope):
		errs = append(errs, field.NotSupported(path.Child("scope"), *p.Scope, scopes))
	case *p.Scope == networkingv1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(namespace, why))
		}
	case p.Namespace == nil:
		errs = append(errs, field.Required(namespace, why))
	default:
		errs = append(errs, invalidEach(namespace, *p.Namespace, apivalidation.ValidateNamespaceName(*p.Namespace, false))...)
	}
	return errs
}

func classParametersCell(p *networkingv1.IngressClassParametersReference) string {
	if p == nil {
		return unset
	}
	kind := p.Kind
	if p.APIGroup != nil {
		kind += "." + *p.APIGroup
	}
	return kind + "/" + p.Name
}
