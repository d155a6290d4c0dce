// Package quota says what objects count against the ResourceQuotas of their
// namespace: how much of what, under which scopes, and at which writes
// (documentation: "Resource Quotas"). It decides nothing: admission charges by
// it, and the loop counts by it.
package quota

import (
	"iter"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/sets"

	"hansa.dev/hansa/api"
)

// View is where the few kinds look up others whose measure depends on them.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Kind is how the objects of one resource are measured.
type Kind struct {
	// count and old are the names under which every object counts one.
	count, old corev1.ResourceName
	// named says of further names whether usage may have them.
	named func(name corev1.ResourceName) bool
	// usage is what an object has beyond that. now tells which pods should have
	// ended already.
	usage func(obj api.Object, now time.Time) corev1.ResourceList
	// scope says whether an object is in a scope; nil: in none.
	scope func(obj api.Object, s corev1.ScopedResourceSelectorRequirement) bool
	// lacks names what an object must say when these names are limited.
	lacks func(obj api.Object, limited []corev1.ResourceName) error
	// charged says which updates, "" or of a subresource, may count more than before.
	charged func(obj, old api.Object, subresource string) bool
	// freed says which updates may count less than before.
	freed func(obj, old api.Object) bool
}

// uncounted are resources that quotas never looked at.
var uncounted = sets.New("events", "events.events.k8s.io")

// older are the names that some resources had before all were counted.
var older = map[string]corev1.ResourceName{
	"configmaps":             corev1.ResourceConfigMaps,
	"persistentvolumeclaims": corev1.ResourcePersistentVolumeClaims,
	"replicationcontrollers": corev1.ResourceReplicationControllers,
	"resourcequotas":         corev1.ResourceQuotas,
	"secrets":                corev1.ResourceSecrets,
	"services":               corev1.ResourceServices,
}

// CountName is the name under which the objects of a resource are counted.
func CountName(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName("count/" + gr.String())
}

// Kinds knows how every resource is measured.
type Kinds struct {
	special map[string]*Kind
}

// NewKinds is over a view.
func NewKinds(reg *api.Registry, view View) *Kinds {
	d := &devices{
		view: view, pods: reg.Must("", "pods"),
		classes: reg.Must("resource.k8s.io", "deviceclasses"), claims: reg.Must("resource.k8s.io", "resourceclaims"),
	}
	k := &Kinds{special: map[string]*Kind{
		"pods":                           podKind(),
		"services":                       serviceKind(),
		"persistentvolumeclaims":         claimKind(),
		"resourceclaims.resource.k8s.io": d.kind(),
	}}
	for name, kind := range k.special {
		kind.count, kind.old = corev1.ResourceName("count/"+name), older[name]
	}
	return k
}

// Of is nil for what no quota counts: what has no namespace, is not stored, or is
// an event.
func (k *Kinds) Of(r *api.Resource) *Kind {
	if !r.Namespaced || r.Prefix == "" {
		return nil
	}
	name := r.GroupResource().String()
	if uncounted.Has(name) {
		return nil
	}
	if kind := k.special[name]; kind != nil {
		return kind
	}
	return &Kind{count: CountName(r.GroupResource()), old: older[name]}
}

// Has says whether objects of the kind can count under a name.
func (k *Kind) Has(name corev1.ResourceName) bool {
	return name == k.count || k.old != "" && name == k.old || k.named != nil && k.named(name)
}

// Among gives the names of a list under which objects of the kind can count.
func (k *Kind) Among(list corev1.ResourceList) []corev1.ResourceName {
	var names []corev1.ResourceName
	for name := range list {
		if k.Has(name) {
			names = append(names, name)
		}
	}
	return names
}

// Charges says whether a write may count more than what was there before; old is
// nil for a create.
func (k *Kind) Charges(obj, old api.Object, subresource string) bool {
	if old == nil {
		return subresource == ""
	}
	return k.charged != nil && k.charged(obj, old, subresource)
}

// Frees says whether an update may count less than what was there before.
func (k *Kind) Frees(obj, old api.Object) bool { return k.freed != nil && k.freed(obj, old) }

// Usage is what an object counts.
func (k *Kind) Usage(obj api.Object, now time.Time) corev1.ResourceList {
	usage := corev1.ResourceList{k.count: one()}
	if k.old != "" {
		usage[k.old] = one()
	}
	if k.usage != nil {
		Add(usage, k.usage(obj, now))
	}
	return usage
}

// Lacks is an error that names what an object must say when these names are
// limited.
func (k *Kind) Lacks(obj api.Object, limited []corev1.ResourceName) error {
	if k.lacks == nil {
		return nil
	}
	return k.lacks(obj, limited)
}

// InScope says whether an object is in one scope.
func (k *Kind) InScope(obj api.Object, s corev1.ScopedResourceSelectorRequirement) bool {
	return k.scope != nil && k.scope(obj, s)
}

// InScopes says whether an object is in all scopes of a quota; without any every
// object is.
func (k *Kind) InScopes(obj api.Object, spec *corev1.ResourceQuotaSpec) bool {
	for _, s := range Scopes(spec) {
		if !k.InScope(obj, s) {
			return false
		}
	}
	return true
}

// Scopes are those of a quota, however they are written.
func Scopes(spec *corev1.ResourceQuotaSpec) []corev1.ScopedResourceSelectorRequirement {
	var all []corev1.ScopedResourceSelectorRequirement
	for _, scope := range spec.Scopes {
		all = append(all, corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists})
	}
	if spec.ScopeSelector != nil {
		all = append(all, spec.ScopeSelector.MatchExpressions...)
	}
	return all
}

var operators = map[corev1.ScopeSelectorOperator]selection.Operator{
	corev1.ScopeSelectorOpIn:           selection.In,
	corev1.ScopeSelectorOpNotIn:        selection.NotIn,
	corev1.ScopeSelectorOpExists:       selection.Exists,
	corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist,
}

// selects says whether a scope selects one of these values, or, of none, nothing.
func selects(s corev1.ScopedResourceSelectorRequirement, values ...string) bool {
	r, err := labels.NewRequirement(string(s.ScopeName), operators[s.Operator], s.Values)
	if err != nil {
		return false // validation keeps such quotas out
	}
	if len(values) == 0 {
		return r.Matches(labels.Set{})
	}
	for _, v := range values {
		if r.Matches(labels.Set{string(s.ScopeName): v}) {
			return true
		}
	}
	return false
}

func one() resource.Quantity { return number(1) }

func number(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

// Add adds a list to another in place; quantities are not shared.
func Add(to, list corev1.ResourceList) {
	for name, q := range list {
		sum, ok := to[name]
		if !ok {
			to[name] = q.DeepCopy()
			continue
		}
		sum = sum.DeepCopy()
		sum.Add(q)
		to[name] = sum
	}
}

// More is by how much a list has more than another, without what it has not.
func More(list, than corev1.ResourceList) corev1.ResourceList {
	more := corev1.ResourceList{}
	for name, q := range list {
		q = q.DeepCopy()
		if less, ok := than[name]; ok {
			q.Sub(less)
		}
		if q.Sign() > 0 {
			more[name] = q
		}
	}
	return more
}

// Mask is the part of a list whose names another has.
func Mask(list, names corev1.ResourceList) corev1.ResourceList {
	part := corev1.ResourceList{}
	for name, q := range list {
		if _, ok := names[name]; ok {
			part[name] = q
		}
	}
	return part
}

// Equal says whether two lists have the same amounts.
func Equal(a, b corev1.ResourceList) bool {
	if len(a) != len(b) {
		return false
	}
	for name, q := range a {
		other, ok := b[name]
		if !ok || q.Cmp(other) != 0 {
			return false
		}
	}
	return true
}

func hasPrefix(name corev1.ResourceName, prefix string) bool {
	return strings.HasPrefix(string(name), prefix)
}
