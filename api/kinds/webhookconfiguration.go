package kinds

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// servicePort is the port of a webhook's service that does not say one.
const servicePort = 443

// webhookTimeout is how long a webhook that does not say it may take, in seconds.
const webhookTimeout = 10

func mutatingWebhookConfiguration() *api.Resource {
	gv := admissionregistrationv1.SchemeGroupVersion
	return stored[admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.MutatingWebhookConfiguration, admissionregistrationv1.MutatingWebhookConfigurationList](gv, &api.Resource{
		Plural:        "mutatingwebhookconfigurations",
		Singular:      "mutatingwebhookconfiguration",
		Kind:          "MutatingWebhookConfiguration",
		Categories:    []string{"api-extensions"},
		Prefix:        "mutatingwebhookconfigurations",
		ChecksBase:    true,
		AnyFinalizer:  true,
		Default:       on(defaultMutatingWebhooks),
		PrepareCreate: on(func(c *admissionregistrationv1.MutatingWebhookConfiguration) { c.Generation = 1 }),
		PrepareUpdate: onUpdate(func(c, old *admissionregistrationv1.MutatingWebhookConfiguration) {
			defaultMutatingWebhooks(c)
			countWebhooks(c, old, c.Webhooks, old.Webhooks)
		}),
		Validate: validates(func(c *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
			return append(validateWebhooks(c.Webhooks, nil), isNoStaticName(c.Name)...)
		}),
		ValidateUpdate: validatesUpdate(func(c, old *admissionregistrationv1.MutatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(c.Webhooks, &old.Webhooks)
		}),
		Warnings: warns(func(c, old *admissionregistrationv1.MutatingWebhookConfiguration) []string {
			return webhookWarnings(c.Name, old != nil, c.Webhooks)
		}),
		Table: webhookTable(func(obj api.Object) int {
			return len(obj.(*admissionregistrationv1.MutatingWebhookConfiguration).Webhooks)
		}),
	})
}

func validatingWebhookConfiguration() *api.Resource {
	gv := admissionregistrationv1.SchemeGroupVersion
	return stored[admissionregistrationv1.ValidatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration, admissionregistrationv1.ValidatingWebhookConfigurationList](gv, &api.Resource{
		Plural:        "validatingwebhookconfigurations",
		Singular:      "validatingwebhookconfiguration",
		Kind:          "ValidatingWebhookConfiguration",
		Categories:    []string{"api-extensions"},
		Prefix:        "validatingwebhookconfigurations",
		ChecksBase:    true,
		AnyFinalizer:  true,
		Default:       on(defaultValidatingWebhooks),
		PrepareCreate: on(func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Generation = 1 }),
		PrepareUpdate: onUpdate(func(c, old *admissionregistrationv1.ValidatingWebhookConfiguration) {
			defaultValidatingWebhooks(c)
			countWebhooks(c, old, c.Webhooks, old.Webhooks)
		}),
		Validate: validates(func(c *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
			return append(validateWebhooks(allAsMutating(c.Webhooks), nil), isNoStaticName(c.Name)...)
		}),
		ValidateUpdate: validatesUpdate(func(c, old *admissionregistrationv1.ValidatingWebhookConfiguration) field.ErrorList {
			return validateWebhooks(allAsMutating(c.Webhooks), ptr.To(allAsMutating(old.Webhooks)))
		}),
		Warnings: warns(func(c, old *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
			return webhookWarnings(c.Name, old != nil, allAsMutating(c.Webhooks))
		}),
		Table: webhookTable(func(obj api.Object) int {
			return len(obj.(*admissionregistrationv1.ValidatingWebhookConfiguration).Webhooks)
		}),
	})
}

// asMutating is a validating webhook as the other type, which has one field more.
// It shares memory with w.
func asMutating(w *admissionregistrationv1.ValidatingWebhook) admissionregistrationv1.MutatingWebhook {
	return admissionregistrationv1.MutatingWebhook{
		Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy,
		MatchPolicy: w.MatchPolicy, NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector,
		SideEffects: w.SideEffects, TimeoutSeconds: w.TimeoutSeconds,
		AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
	}
}

func asValidating(w *admissionregistrationv1.MutatingWebhook) admissionregistrationv1.ValidatingWebhook {
	return admissionregistrationv1.ValidatingWebhook{
		Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy,
		MatchPolicy: w.MatchPolicy, NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector,
		SideEffects: w.SideEffects, TimeoutSeconds: w.TimeoutSeconds,
		AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
	}
}

func allAsMutating(webhooks []admissionregistrationv1.ValidatingWebhook) []admissionregistrationv1.MutatingWebhook {
	all := make([]admissionregistrationv1.MutatingWebhook, 0, len(webhooks))
	for i := range webhooks {
		all = append(all, asMutating(&webhooks[i]))
	}
	return all
}

// countWebhooks makes a new generation of whatever is not the very same: Kubernetes
// tells an empty list or map from none here, and none comes back from storage.
func countWebhooks[T any](c, old api.Object, now, was []T) {
	if !reflect.DeepEqual(now, was) {
		c.SetGeneration(old.GetGeneration() + 1)
	}
}

// fill sets what is not set.
func fill[T any](at **T, value T) {
	if *at == nil {
		*at = &value
	}
}

func defaultMutatingWebhooks(c *admissionregistrationv1.MutatingWebhookConfiguration) {
	for i := range c.Webhooks {
		defaultWebhook(&c.Webhooks[i])
		fill(&c.Webhooks[i].ReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)
	}
}

func defaultValidatingWebhooks(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
	for i := range c.Webhooks {
		w := asMutating(&c.Webhooks[i])
		defaultWebhook(&w)
		c.Webhooks[i] = asValidating(&w)
	}
}

func defaultWebhook(w *admissionregistrationv1.MutatingWebhook) {
	fill(&w.FailurePolicy, admissionregistrationv1.Fail)
	fill(&w.MatchPolicy, admissionregistrationv1.Equivalent)
	fill(&w.NamespaceSelector, metav1.LabelSelector{})
	fill(&w.ObjectSelector, metav1.LabelSelector{})
	fill(&w.TimeoutSeconds, webhookTimeout)
	if w.ClientConfig.Service != nil {
		fill(&w.ClientConfig.Service.Port, servicePort)
	}
	for i := range w.Rules {
		fill(&w.Rules[i].Scope, admissionregistrationv1.AllScopes)
	}
}

func webhookTable(count func(api.Object) int) *api.Table {
	return &api.Table{
		Columns: []metav1.TableColumnDefinition{
			nameColumn(),
			column("Webhooks", "integer", "Webhooks indicates the number of webhooks registered in this configuration"),
			ageColumn(),
		},
		Row: func(obj api.Object, now time.Time) []any {
			return []any{obj.GetName(), int64(count(obj)), age(obj.GetCreationTimestamp(), now)}
		},
	}
}

// staticSuffix ends the names of what a server reads from its own files in
// Kubernetes.
const staticSuffix = ".static.k8s.io"

const staticName = `names ending with "` + staticSuffix + `" are reserved for static manifest-based configurations and cannot be managed via the API`

func isNoStaticName(name string) field.ErrorList {
	if !strings.HasSuffix(name, staticSuffix) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), name, staticName)}
}

// staticWarnings are for objects that have such a name already.
func staticWarnings(name string) []string {
	if !strings.HasSuffix(name, staticSuffix) {
		return nil
	}
	return []string{"metadata.name: " + staticName}
}

// NotAdmitted are resources without storage that neither webhooks nor policies
// are asked about: whoever could refuse them could lock everybody out.
func NotAdmitted() []schema.GroupResource {
	return []schema.GroupResource{
		{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		{Group: "authentication.k8s.io", Resource: "tokenreviews"},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
		{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	}
}

// webhookWarnings are about rules that name, without a wildcard, what is never
// asked about.
func webhookWarnings(name string, update bool, webhooks []admissionregistrationv1.MutatingWebhook) []string {
	var warnings []string
	if update {
		warnings = staticWarnings(name)
	}
	excluded := NotAdmitted()
	for i := range webhooks {
		for j, rule := range webhooks[i].Rules {
			if slices.Contains(rule.APIGroups, wildcard) || slices.Contains(rule.Resources, wildcard) {
				continue
			}
			var told []schema.GroupResource
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					gr := schema.GroupResource{Group: group, Resource: resource}
					if !slices.Contains(excluded, gr) || slices.Contains(told, gr) {
						continue
					}
					told = append(told, gr)
					warnings = append(warnings, fmt.Sprintf("webhooks[%d].rules[%d]: %s is excluded from admission webhooks; this rule will have no effect", i, j, gr))
				}
			}
		}
	}
	return warnings
}
