package dependency

import (
	"regexp"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"

	"hansa.dev/hansa/api"
)

// The conditions that can be waited for.
const (
	ready     = "Ready"
	available = "Available"
	complete  = "Complete"
	failed    = "Failed"
	bound     = "Bound"
	exists    = "Exists"
)

// conditionName is what the type of a condition looks like, with or without a
// domain before it.
var conditionName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)

// known are the conditions of built-in kinds, the first being the one that is meant
// where none is written. Of all others only the existence can be waited for.
var known = map[string][]string{
	"deployments.apps":       {ready, available, exists},
	"statefulsets.apps":      {ready, exists},
	"daemonsets.apps":        {ready, exists},
	"replicasets.apps":       {ready, exists},
	"replicationcontrollers": {ready, exists},
	"services":               {ready, exists},
	"pods":                   {ready, complete, failed, exists},
	"jobs.batch":             {complete, failed, exists},
	"cronjobs.batch":         {complete, exists},
	"persistentvolumeclaims": {bound, exists},
}

// conditionsOf are the conditions of a kind, of which the first is the default; open
// says that its objects may have others in status.conditions.
func conditionsOf(r *api.Resource) (names []string, open bool) {
	switch list := known[r.GroupResource().String()]; {
	case list != nil:
		return list, r.Group == "" && r.Plural == "pods"
	case r.View != nil:
		return []string{ready, exists}, true
	}
	return []string{exists}, false
}

// find is the kind of a word, as kubectl understands it: KIND or KIND.GROUP, the
// first being a kind, a plural, a singular or a short name in any case.
func find(reg *api.Registry, word string) *api.Resource {
	name, group, grouped := strings.Cut(strings.ToLower(word), ".")
	for _, by := range []func(r *api.Resource) bool{
		func(r *api.Resource) bool {
			return r.Plural == name || r.Singular == name || strings.EqualFold(r.Kind, name)
		},
		func(r *api.Resource) bool {
			for _, s := range r.ShortNames {
				if s == name {
					return true
				}
			}
			return false
		},
	} {
		for _, r := range reg.Resources() {
			if r.Prefix != "" && (!grouped || r.Group == group) && by(r) {
				return r
			}
		}
	}
	return nil
}

// KindName is how a target names its kind; find finds it again.
func KindName(r *api.Resource) string {
	singular := r.Singular
	if singular == "" {
		singular = strings.ToLower(r.Kind)
	}
	if strings.Contains(r.Group, ".") {
		return singular + "." + r.Group
	}
	return singular
}

// row is the kind of a target, or nil when it is not served.
func (t Target) row(reg *api.Registry) *api.Resource { return find(reg, t.Kind) }

// Object is what a target leads to now; nil when there is no such object.
func (t Target) Object(reg *api.Registry, view View) (*api.Resource, api.Object) {
	r := t.row(reg)
	if r == nil {
		return nil, nil
	}
	return r, view.Get(r, api.Key{Namespace: t.Namespace, Name: t.Name})
}

func nameRule(r *api.Resource, name string) string {
	rule := r.NameRule
	if rule == nil {
		rule = apivalidation.NameIsDNSSubdomain
	}
	return strings.Join(rule(name, false), "; ")
}
