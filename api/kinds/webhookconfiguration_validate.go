package kinds

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// reviewVersions are the versions of AdmissionReview that the server speaks.
var reviewVersions = []string{"v1", "v1beta1"}

var (
	failurePolicies = []admissionregistrationv1.FailurePolicyType{admissionregistrationv1.Fail, admissionregistrationv1.Ignore}
	matchPolicies   = []admissionregistrationv1.MatchPolicyType{admissionregistrationv1.Equivalent, admissionregistrationv1.Exact}
	reinvocations   = []admissionregistrationv1.ReinvocationPolicyType{admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy}
	harmless        = []admissionregistrationv1.SideEffectClass{admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun}
	sideEffects     = []admissionregistrationv1.SideEffectClass{
		admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.SideEffectClassNoneOnDryRun,
		admissionregistrationv1.SideEffectClassSome, admissionregistrationv1.SideEffectClassUnknown,
	}
)

// webhookRules is what is demanded of webhooks: all of new ones, and of changed
// ones what those before them kept to already.
type webhookRules struct {
	sideEffects    []admissionregistrationv1.SideEffectClass
	knownReviews   bool
	uniqueNames    bool
	selectors      metav1validation.LabelSelectorValidationOptions
	sameConditions bool // they are not compiled again
	expressions    *expressions
}

func webhookRulesFor(now []admissionregistrationv1.MutatingWebhook, before *[]admissionregistrationv1.MutatingWebhook) webhookRules {
	r := webhookRules{sideEffects: harmless, knownReviews: true, uniqueNames: true, expressions: newExpressions(false)}
	if before == nil {
		return r
	}
	names := map[string]bool{}
	r.sameConditions = len(now) == len(*before)
	for i := range *before {
		w := &(*before)[i]
		if w.SideEffects == nil || !slices.Contains(harmless, *w.SideEffects) {
			r.sideEffects = sideEffects
		}
		if len(w.AdmissionReviewVersions) > 0 && !slices.ContainsFunc(w.AdmissionReviewVersions, isReviewVersion) {
			r.knownReviews = false
		}
		if names[w.Name] {
			r.uniqueNames = false
		}
		names[w.Name] = true
		if len(validateWebhookSelectors(w, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0 {
			r.selectors.AllowInvalidLabelValueInSelector = true
		}
		r.expressions.keepConditions(w.MatchConditions)
		if r.sameConditions && !equality.Semantic.DeepEqual(now[i].MatchConditions, w.MatchConditions) {
			r.sameConditions = false
		}
	}
	return r
}

func isReviewVersion(v string) bool { return slices.Contains(reviewVersions, v) }

// validateWebhooks checks all webhooks of a configuration; before are those of
// the object that it replaces, nil if it is new.
func validateWebhooks(webhooks []admissionregistrationv1.MutatingWebhook, before *[]admissionregistrationv1.MutatingWebhook) field.ErrorList {
	var errs field.ErrorList
	rules := webhookRulesFor(webhooks, before)
	names := map[string]bool{}
	for i := range webhooks {
		w, path := &webhooks[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, rules.validate(w, path)...)
		errs = append(errs, rules.validateReviewVersions(w.AdmissionReviewVersions, path.Child("admissionReviewVersions"))...)
		if rules.uniqueNames && w.Name != "" {
			if names[w.Name] {
				errs = append(errs, field.Duplicate(path.Child("name"), w.Name))
			}
			names[w.Name] = true
		}
	}
	return errs
}

func (r *webhookRules) validate(w *admissionregistrationv1.MutatingWebhook, path *field.Path) field.ErrorList {
	errs := validation.IsFullyQualifiedName(path.Child("name"), w.Name)
	for i := range w.Rules {
		errs = append(errs, validateAdmissionRule(&w.Rules[i], path.Child("rules").Index(i))...)
	}
	if p := w.FailurePolicy; p != nil {
		errs = append(errs, supported(*p, path.Child("failurePolicy"), failurePolicies...)...)
	}
	if p := w.MatchPolicy; p != nil {
		errs = append(errs, supported(*p, path.Child("matchPolicy"), matchPolicies...)...)
	}
	if s := w.SideEffects; s != nil {
		errs = append(errs, supported(*s, path.Child("sideEffects"), r.sideEffects...)...)
	} else {
		errs = append(errs, field.Required(path.Child("sideEffects"), "must specify one of "+join(r.sideEffects)))
	}
	if s := w.TimeoutSeconds; s != nil && (*s < 1 || *s > 30) {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), *s, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, validateWebhookSelectors(w, r.selectors, path)...)
	if p := w.ReinvocationPolicy; p != nil {
		errs = append(errs, supported(*p, path.Child("reinvocationPolicy"), reinvocations...)...)
	}
	errs = append(errs, validateClientConfig(&w.ClientConfig, path.Child("clientConfig"))...)
	if !r.sameConditions {
		errs = append(errs, r.expressions.validateConditions(w.MatchConditions, path.Child("matchConditions"))...)
	}
	return errs
}

func join[T ~string](values []T) string {
	all := make([]string, 0, len(values))
	for _, v := range values {
		all = append(all, string(v))
	}
	return strings.Join(all, ", ")
}

func validateWebhookSelectors(w *admissionregistrationv1.MutatingWebhook, opts metav1validation.LabelSelectorValidationOptions, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if w.NamespaceSelector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(w.NamespaceSelector, opts, path.Child("namespaceSelector"))...)
	}
	if w.ObjectSelector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(w.ObjectSelector, opts, path.Child("objectSelector"))...)
	}
	return errs
}

func (r *webhookRules) validateReviewVersions(versions []string, path *field.Path) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, "must specify one of "+strings.Join(reviewVersions, ", "))}
	}
	var errs field.ErrorList
	for i, v := range versions {
		if slices.Contains(versions[:i], v) {
			errs = append(errs, field.Invalid(path.Index(i), v, "duplicate version"))
			continue
		}
		errs = append(errs, invalidEach(path.Index(i), v, validation.IsDNS1035Label(v))...)
	}
	if r.knownReviews && !slices.ContainsFunc(versions, isReviewVersion) {
		errs = append(errs, field.Invalid(path, versions, "must include at least one of "+strings.Join(reviewVersions, ", ")))
	}
	return errs
}

func validateClientConfig(c *admissionregistrationv1.WebhookClientConfig, path *field.Path) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(path, "exactly one of url or service is required")}
	case c.URL != nil:
		return validateWebhookURL(*c.URL, path.Child("url"))
	}
	return validateWebhookService(c.Service, path.Child("service"))
}

func validateWebhookURL(text string, path *field.Path) field.ErrorList {
	const form = "; desired format: https://host[/path]"
	u, err := url.Parse(text)
	if err != nil {
		return field.ErrorList{field.Required(path, "url must be a valid URL: "+err.Error()+form)}
	}
	var errs field.ErrorList
	if u.Scheme != "https" {
		errs = append(errs, field.Invalid(path, u.Scheme, "'https' is the only allowed URL scheme"+form))
	}
	if u.Host == "" {
		errs = append(errs, field.Invalid(path, u.Host, "host must be specified"+form))
	}
	if u.User != nil {
		errs = append(errs, field.Invalid(path, u.User.String(), "user information is not permitted in the URL"))
	}
	if u.Fragment != "" {
		errs = append(errs, field.Invalid(path, u.Fragment, "fragments are not permitted in the URL"))
	}
	if u.RawQuery != "" {
		errs = append(errs, field.Invalid(path, u.RawQuery, "query parameters are not permitted in the URL"))
	}
	return errs
}

func validateWebhookService(s *admissionregistrationv1.ServiceReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	if s.Namespace == "" {
		errs = append(errs, field.Required(path.Child("namespace"), ""))
	}
	port := ptr.Deref(s.Port, servicePort)
	if msgs := validation.IsValidPortNum(int(port)); len(msgs) > 0 {
		errs = append(errs, field.Invalid(path.Child("port"), port, "port is not valid: "+strings.Join(msgs, ", ")))
	}
	return append(errs, validateWebhookPath(ptr.Deref(s.Path, ""), path.Child("path"))...)
}

func validateWebhookPath(text string, path *field.Path) field.ErrorList {
	if text == "" || text == "/" {
		return nil
	}
	if text == "//" {
		return field.ErrorList{field.Invalid(path, text, "segment[0] may not be empty")}
	}
	var errs field.ErrorList
	if !strings.HasPrefix(text, "/") {
		errs = append(errs, field.Invalid(path, text, "must start with a '/'"))
	}
	for i, step := range strings.Split(strings.TrimSuffix(text[1:], "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(path, text, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, msg := range validation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(path, text, fmt.Sprintf("segment[%d]: %v", i, msg)))
		}
	}
	return errs
}
