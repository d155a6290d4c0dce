// Package api describes every kind that Hansa serves as data: names, scope,
// versions, defaults, validation, columns, indexes and subresources. It does no
// I/O, reads no clock and knows nothing of the wire or of etcd; the store, the
// API server, the clients and the loops all read the same rows.
//
// The rows themselves are in package api/kinds.
package api

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Object is any API object. One obtained from a read is frozen: it is shared
// with every other reader, so whoever wants to change it makes a DeepCopy first.
type Object interface {
	runtime.Object
	metav1.Object
}

// Ref names one object of one resource.
type Ref struct {
	Resource  *Resource
	Namespace string
	Name      string
}

// Key is Ref without its resource: what names an object among its own kind.
type Key = types.NamespacedName

// Key is the name of the referenced object within its resource.
func (r Ref) Key() Key { return Key{Namespace: r.Namespace, Name: r.Name} }

// String is the form used in errors and logs, e.g. "pods default/web-1".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Resource.Plural + " " + r.Name
	}
	return r.Resource.Plural + " " + r.Namespace + "/" + r.Name
}

// RefTo is the Ref of an object that has its name.
func RefTo(r *Resource, obj metav1.Object) Ref {
	return Ref{Resource: r, Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// Resource is the row of one kind. Rows are never written to once they are in a
// registry. A nil function means that the kind needs none.
//
// Every function that takes an Object gets the kind's hub type, the Go type
// made by New, whatever version the client speaks.
type Resource struct {
	Group    string // "" for core
	Plural   string // "configmaps": the resource's name on the wire
	Singular string // "configmap"
	Kind     string // "ConfigMap"

	// ListKind is the kind of lists; empty: Kind with "List" behind it.
	ListKind   string
	ShortNames []string
	Categories []string // "all"
	Namespaced bool

	// Verbs is what discovery and the router offer; nil means AllVerbs.
	Verbs []string

	// Versions are the served group-versions, the preferred one of each group
	// first. All are views of one stored object.
	Versions []Version

	// Storage is the group-version that is written to etcd, below Prefix:
	// /registry/PREFIX/[NAMESPACE/]NAME. A resource without a Prefix has no
	// storage (access reviews): its Create hook computes the answer.
	Storage schema.GroupVersion
	Prefix  string
	// StoredAs is the version of Storage where that is not served: a beta that
	// the last release stored, and still has to understand. Nil: Storage is one
	// of Versions. The registry finds it by its kind, not by its resource.
	StoredAs *Version

	New     func() Object
	NewList func() runtime.Object

	// Views are the other versions of a custom resource, each a row of its own
	// over the same objects: there every version has its own schema, columns and
	// subresources. The row that has them is the one that loops go by.
	Views []*Resource
	// View gives a stored object as this row's version has it: converted, pruned,
	// with defaults. Row functions of writes get such an object; those of reads
	// (Table, Fields, Get of a subresource) get stored ones. The result belongs to
	// the caller. Nil: what is stored is the hub already.
	View func(stored Object) (Object, error)
	// Seal brings a finished object of a row with a View into its stored form.
	Seal func(obj Object) error
	// Patch changes a copy of a view by a function of its tree, which has neither
	// kind nor metadata. With strict, fields that are unknown then are listed.
	Patch func(view Object, change func(tree map[string]any), strict bool) (obj Object, problems []error, err error)
	// Merge knows how the objects of a row with a View are merged.
	Merge func() Merger
	// Closed says why no more objects may come into being; empty for most.
	Closed string
	// Ended is closed when the row is served no more, since another has taken its
	// place or its definition is gone. Nil: it is served for good.
	Ended <-chan struct{}

	// Parse reads what is a number or the like in Kubernetes' own form of the kind
	// and text in the served one, and writes it as that would: "007" as "7". It
	// runs on whatever a client sends, before Default. What cannot be read is an
	// error of the body, not a cause of its refusal.
	Parse func(Object) error
	// Stamp fills in the times that the client leaves to the server, which are
	// now. It runs before Prepare…; old is nil on create.
	Stamp func(obj, old Object, now time.Time)
	// Default fills in what the client left out. Idempotent.
	Default func(Object)
	// DefaultTimes is the part of Default that needs to know the time. Unlike what
	// Stamp fills in, it belongs to whoever writes.
	DefaultTimes func(obj Object, now time.Time)
	// PrepareCreate and PrepareUpdate take away what the writer may not set
	// (status on the main resource, above all) and keep metadata.generation.
	// PrepareUpdate runs before Default and Validate.
	PrepareCreate func(obj Object)
	PrepareUpdate func(obj, old Object)
	// Canonicalize brings a valid object into its stored form.
	Canonicalize func(Object)
	// Validate covers everything of a new object except ObjectMeta, which is
	// checked for all kinds alike with NameRule.
	Validate func(Object) field.ErrorList
	// ValidateUpdate covers everything of a changed object, except ObjectMeta;
	// it calls Validate itself where the kind wants that.
	ValidateUpdate func(obj, old Object) field.ErrorList
	// Warnings are sentences for the client's Warning header. old is nil on
	// create.
	Warnings func(obj, old Object) []string
	// SentWarnings are sentences about a new object before it is prepared. They are
	// told of what is refused, too.
	SentWarnings func(Object) []string
	// Review, if set, gives what Validate and Warnings would of a new object, at
	// less than the price of both. What is invalid need not be warned of.
	Review func(Object) (warnings []string, errs field.ErrorList)
	// Inert says what is missing for objects of this kind to have an effect, as
	// the end of a sentence: "no controller acts on it". Whoever writes one is
	// warned of it. Empty for kinds that work.
	Inert string
	// NameRule answers with the reasons why a name is not allowed; prefix says
	// that it is a generateName. Nil means a DNS-1123 subdomain.
	NameRule func(name string, prefix bool) []string
	// AnyBase leaves a generateName unchecked: the name made of it is checked, and
	// told of as what is declared (see request.invalid).
	AnyBase bool
	// ChecksBase checks the generateName of a changed object, too: in Kubernetes
	// kinds do that whose update is validated as a new object is.
	ChecksBase bool
	// LateMeta checks metadata, by the rules for paths alone, once nothing else is
	// wrong with a new object.
	LateMeta bool
	// PlainNames makes a generateName the name itself, with nothing added.
	PlainNames bool
	// AnyFinalizer lets finalizers be without a domain, which Kubernetes forbids
	// for most kinds only.
	AnyFinalizer bool
	// ResetFields takes out the fields that a writer of the main resource does
	// not come to own in server-side apply, by group-version.
	ResetFields map[schema.GroupVersion]fieldpath.Filter
	// AllowCreateOnUpdate and AllowUnconditionalUpdate are as in Kubernetes:
	// may PUT create, and may PUT come without a resourceVersion.
	AllowCreateOnUpdate      bool
	AllowUnconditionalUpdate bool

	// Table gives the columns that `kubectl get` shows.
	Table *Table

	// Fields are the values that field selectors may use, beyond
	// metadata.name and metadata.namespace. FieldLabels lists their names.
	Fields      func(Object) fields.Set
	FieldLabels []string
	// NoNamespaceLabel is for namespaced kinds that metadata.namespace does not
	// select.
	NoNamespaceLabel bool
	// FieldRefusal says that a label is unknown, with a %-verb for it. Empty: in
	// the words of most kinds.
	FieldRefusal string

	// Indexes are the secondary indexes that the memory copy keeps.
	Indexes []Index

	// Common is the part of an object that many have in common; the memory copy
	// keeps equal ones once. Nil: none. It takes a hub that is the stored version.
	Common *Part

	// PrepareDelete sets an object on its way that is deleted for the first time,
	// before its finalizers are looked at.
	PrepareDelete func(obj Object, now time.Time)
	// GracePeriod answers, for kinds that are deleted gracefully (pods), the
	// seconds that obj is given when deleted with opts; zero deletes at once.
	// Nil: the kind is always deleted at once (but for its finalizers).
	GracePeriod func(obj Object, opts *metav1.DeleteOptions) int64
	// DefaultPropagation is what deletion does to dependants when the client
	// does not say: background when nil.
	DefaultPropagation *metav1.DeletionPropagation
	// TTL is how long after its last write an object is kept; zero: until it is
	// deleted.
	TTL time.Duration

	// Subresources by name: "status", "scale", "binding", "log", …
	Subresources map[string]*Subresource
}

// Merger is what managed fields have to know of kinds without a Go type.
type Merger interface {
	// Type is what the kind's merge schema says of its objects.
	Type() (typed.ParseableType, error)
	managedfields.TypeConverter
	runtime.ObjectConvertor
	runtime.ObjectDefaulter
	runtime.ObjectCreater
}

// Version is one served version of a kind. ToHub and FromHub are nil where the
// version is the hub itself.
type Version struct {
	schema.GroupVersion
	New     func() Object
	NewList func() runtime.Object
	// ToHub and FromHub convert; the result shares nothing with the argument
	// that a later write to either could reach.
	ToHub   func(Object) (Object, error)
	FromHub func(Object) (Object, error)
	// FromHubAll is FromHub for many objects, where it is better to do that at once.
	FromHubAll func([]Object) ([]Object, error)

	// Deprecated is a sentence for the Warning header of every answer in this
	// version; empty for most.
	Deprecated string
	// FieldLabels gives this version's names of the field labels that it calls
	// differently: its own name to the one in Resource.FieldLabels. When set,
	// it is complete: labels not in it are unknown to this version (metadata
	// apart). Nil: the resource's names.
	FieldLabels map[string]string
	// Decode makes an object of what a client sent, for kinds whose Go type does
	// not say what is in them. The tree belongs to it. With strict, unknown fields
	// are listed.
	Decode func(tree map[string]any, strict bool) (obj Object, problems []error, err error)
	// OpenAPI is the schema of a kind without a Go type; its references begin with
	// prefix. Revision is another text for another schema.
	OpenAPI  func(prefix string) (*spec.Schema, error)
	Revision string
	// Validate and ValidateUpdate are what writes by way of this version must
	// satisfy beyond the resource's own checks. They get hub objects.
	Validate       func(Object) field.ErrorList
	ValidateUpdate func(obj, old Object) field.ErrorList
}

// Subresource is one path below an object.
type Subresource struct {
	// Verbs offered by discovery, e.g. get, update, patch.
	Verbs []string
	// Kind (with group-version) of its body in discovery, when it differs from
	// the parent's: Scale, TokenRequest, Eviction, PodExecOptions.
	Kind schema.GroupVersionKind
	New  func() runtime.Object
	// Default fills in what a client left out of a body of its own kind.
	Default func(body runtime.Object)

	// Table shows the body as a row, when it is of a kind of its own. Nil: it is
	// shown as it is only.
	Table *Table

	// For a subresource that is a view of the same object (status, resize,
	// ephemeralcontainers, finalize): what an update of it may change, and how
	// the result is validated.
	PrepareUpdate  func(obj, old Object)
	ValidateUpdate func(obj, old Object) field.ErrorList
	// ValidateUpdateAt is ValidateUpdate of what depends on the time, in its place.
	ValidateUpdateAt func(obj, old Object, now time.Time) field.ErrorList
	// Stamp is as the resource's, which does not run for a view.
	Stamp func(obj, old Object, now time.Time)
	// Warnings are as those of the resource, for writes of this part of it.
	Warnings    func(obj, old Object) []string
	ResetFields map[schema.GroupVersion]fieldpath.Filter
	// ChecksBase is as that of the resource, for writes of this part of it.
	ChecksBase bool

	// For a subresource with a body of its own over the same object (scale,
	// binding): Get derives the body, Put applies one to a copy of the object,
	// at the time now; a resourceVersion or UID in the body becomes the copy's,
	// for the server to compare. The result is then prepared and validated as
	// any update of the object is, unless the subresource has PrepareUpdate or
	// ValidateUpdate of its own. Errors are API status errors.
	Get func(Object) (runtime.Object, error)
	// Base is the body that an update starts from. Nil: that of Get.
	Base func(Object) (runtime.Object, error)
	Put  func(obj Object, body runtime.Object, now time.Time) error
	// Replicas is where the number of replicas is that a Scale shows. Nil:
	// spec.replicas.
	Replicas []string

	// ValidateOptions says what is wrong with the options of a connection.
	ValidateOptions func(options runtime.Object) field.ErrorList
	// Connect marks one that is served by a handler of the server, found by
	// the subresource's name (log, exec, attach, portforward, proxy, token).
	Connect bool
}

// Before is the body of an object that is to be updated.
func (s *Subresource) Before(obj Object) (runtime.Object, error) {
	if s.Base != nil {
		return s.Base(obj)
	}
	return s.Get(obj)
}

// Index is a secondary index of the memory copy: the values under which an
// object is found. Values must not keep a reference to the object.
type Index struct {
	Name   string
	Values func(Object) []string
	// Has says whether value is among the Values of an object, for indexes that
	// can tell without making them all. Nil: look into Values.
	Has func(obj Object, value string) bool
}

// Part is a top-level field of a kind: the spec of pods, which all pods of a
// template have alike.
type Part struct {
	// Number is the field's in the kind's protobuf message.
	Number int
	// Of points to the part of an object.
	Of func(obj Object) interface{ Unmarshal([]byte) error }
}

// Names of the indexes that more than one part relies on.
const (
	IndexNode  = "node"  // pods by spec.nodeName
	IndexOwner = "owner" // every kind by owner UID; kept for all rows
	IndexLabel = "label" // every kind by each of its labels, "KEY=VALUE"; kept for all rows
	// IndexOrphan has what could be adopted, by namespace: pods, replica sets and
	// revisions without a controller.
	IndexOrphan = "orphan"
)

// AllVerbs is what a plain resource offers.
var AllVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// GVK is the kind in its storage version.
func (r *Resource) GVK() schema.GroupVersionKind { return r.Storage.WithKind(r.Kind) }

// GroupResource is the name used in authorization and in error texts.
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}

// Warn gives the sentences for the Warning header of a write to the resource
// itself. old is nil on create.
func (r *Resource) Warn(obj, old Object) []string {
	warnings := r.inert()
	if r.Warnings != nil {
		warnings = append(warnings, r.Warnings(obj, old)...)
	}
	return warnings
}

// Check is Validate and Warn of a new object.
func (r *Resource) Check(obj Object) (warnings []string, errs field.ErrorList) {
	switch {
	case r.Review != nil:
		warnings, errs = r.Review(obj)
	case r.Validate != nil:
		errs = r.Validate(obj)
		fallthrough
	default:
		if len(errs) == 0 && r.Warnings != nil {
			warnings = r.Warnings(obj, nil)
		}
	}
	return append(r.inert(), warnings...), errs
}

func (r *Resource) inert() []string {
	if r.Inert == "" {
		return nil
	}
	return []string{fmt.Sprintf("%s is stored without effect in this version of Hansa: %s", r.GroupResource(), r.Inert)}
}

// Offers says whether the resource itself has a verb.
func (r *Resource) Offers(verb string) bool {
	if r.Verbs == nil {
		return slices.Contains(AllVerbs, verb)
	}
	return slices.Contains(r.Verbs, verb)
}
