package resourcequota

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api/quota"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// Parse reads the plugin's part of an AdmissionConfiguration (documentation:
// "Limit Priority Class consumption by default"); empty is nothing limited.
func Parse(file []byte) ([]Limited, error) {
	if len(file) == 0 {
		return nil, nil
	}
	var c struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Limited    []Limited `json:"limitedResources"`
	}
	if err := yaml.UnmarshalStrict(file, &c); err != nil {
		return nil, fmt.Errorf("configuration of ResourceQuota: %w", err)
	}
	switch (metav1.TypeMeta{APIVersion: c.APIVersion, Kind: c.Kind}) {
	case metav1.TypeMeta{APIVersion: "apiserver.config.k8s.io/v1", Kind: "ResourceQuotaConfiguration"},
		metav1.TypeMeta{APIVersion: "resourcequota.admission.k8s.io/v1beta1", Kind: "Configuration"}:
	default:
		return nil, fmt.Errorf("configuration of ResourceQuota: it is a %q of %q, want a ResourceQuotaConfiguration of apiserver.config.k8s.io/v1", c.Kind, c.APIVersion)
	}
	for i, l := range c.Limited {
		if l.Resource == "" {
			return nil, fmt.Errorf("configuration of ResourceQuota: limitedResources[%d].resource is missing", i)
		}
	}
	return c.Limited, nil
}

// Limited is what nobody may consume where no quota covers it.
type Limited struct {
	APIGroup string `json:"apiGroup,omitempty"`
	Resource string `json:"resource"`
	// MatchContains are parts of the names of what is consumed.
	MatchContains []string                                   `json:"matchContains,omitempty"`
	MatchScopes   []corev1.ScopedResourceSelectorRequirement `json:"matchScopes,omitempty"`
}

// covered refuses what is limited by configuration and in none of the quotas.
func (w *write) covered(quotas []*corev1.ResourceQuota) error {
	if len(w.p.limited) == 0 {
		return nil
	}
	var matching []*corev1.ResourceQuota
	scoped := map[corev1.ResourceQuotaScope]bool{}
	for _, q := range quotas {
		for _, s := range quota.Scopes(&q.Spec) {
			scoped[s.ScopeName] = scoped[s.ScopeName] || w.kind.InScope(w.obj, s)
		}
		if w.matches(q, w.obj) {
			matching = append(matching, q)
		}
	}
	old := w.a.Old
	if len(matching) > 0 && old != nil {
		old = w.old(matching[0])
	}
	grows := w.grows(old)
	if len(grows) == 0 {
		return nil
	}
	if names := w.uncovered(grows, matching); len(names) > 0 {
		return refusal.Forbidden(w.a, "insufficient quota to consume: %s", strings.Join(names, ","))
	}
	var open []corev1.ScopedResourceSelectorRequirement
	for _, l := range w.p.limited {
		for _, s := range l.MatchScopes {
			if w.kind.InScope(w.obj, s) && !scoped[s.ScopeName] {
				open = append(open, s)
			}
		}
	}
	if len(open) > 0 {
		return refusal.Unknown("insufficient quota to match these scopes: %v", open)
	}
	return nil
}

// uncovered are the names of what is limited and in no matching quota.
func (w *write) uncovered(grows corev1.ResourceList, matching []*corev1.ResourceQuota) []string {
	var names []string
	for _, l := range w.p.limited {
		if (schema.GroupResource{Group: l.APIGroup, Resource: l.Resource}) != w.a.Resource.GroupResource() {
			continue
		}
		for name := range grows {
			limited := slices.ContainsFunc(l.MatchContains, func(part string) bool { return strings.Contains(string(name), part) })
			covered := slices.ContainsFunc(matching, func(q *corev1.ResourceQuota) bool {
				_, ok := q.Status.Hard[name]
				return ok
			})
			if limited && !covered && !slices.Contains(names, string(name)) {
				names = append(names, string(name))
			}
		}
	}
	slices.Sort(names)
	return names
}
