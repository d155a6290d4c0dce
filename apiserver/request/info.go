package request

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/internal/results"
)

// Info says who asks for what. It belongs to the request.
type Info struct {
	User user.Info
	// Verb is that of authorization: get, list, watch, create, update, patch,
	// delete or deletecollection.
	Verb        string
	Served      *api.Served
	Subresource string
	Namespace   string // "" for cluster-scoped kinds and for all namespaces
	Name        string // "" for lists, and for creates that name the object in the body
	// Path is the URL path, for authorizers and logs; "" when there is none.
	Path string
	// UserAgent names the field manager of writers who do not say one.
	UserAgent string
	// FieldSelector and LabelSelector, as the client wrote them, let an
	// authorizer narrow a list; they do not select by themselves.
	FieldSelector, LabelSelector string
	// Audit notes the parts of the request as they become known. Nil: nobody
	// wants them.
	Audit *audit.Record
	// Warn adds a sentence to the answer. Nil: nobody listens.
	Warn func(text string)
}

// Body is what a write brings: bytes, read once the request is known to be
// allowed, or an object, which belongs to the handler afterwards.
type Body struct {
	Read   func() ([]byte, codec.MediaType, error)
	Object runtime.Object
}

func (i *Info) warn(text string) {
	if i.Warn != nil {
		i.Warn(text)
	}
}

func (i *Info) row() *api.Resource { return i.Served.Resource }

func (i *Info) sub() *api.Subresource { return i.row().Subresources[i.Subresource] }

func (i *Info) resource() schema.GroupResource {
	return schema.GroupResource{Group: i.Served.Version.Group, Resource: i.Served.Plural}
}

// kind is what the object is called where its contents are refused: the hub's
// kind, while resource is of the group that was asked. Events have two.
func (i *Info) kind() schema.GroupKind {
	return schema.GroupKind{Group: i.row().Group, Kind: i.Served.Kind}
}

func (i *Info) ref() api.Ref {
	return api.Ref{Resource: i.row(), Namespace: i.storedNamespace(), Name: i.Name}
}

// storedNamespace is the namespace that the object itself is in: a namespace is
// addressed as if it were in itself, and is not.
func (i *Info) storedNamespace() string {
	if !i.row().Namespaced {
		return ""
	}
	return i.Namespace
}

// Form is what a body of this request and its answer are: the subresource's own
// kind, or the resource's.
func (i *Info) Form() codec.Form {
	if sub := i.sub(); sub != nil && sub.New != nil {
		gvk := sub.Kind
		if gvk.Empty() {
			gvk = i.Served.Version.WithKind(i.Served.Kind)
		}
		return codec.Form{GroupVersionKind: gvk, New: sub.New}
	}
	return codec.FormOf(i.Served)
}

// IsTree says whether the body and its answer are decoded JSON that no Go type
// describes.
func (i *Info) IsTree() bool {
	sub := i.sub()
	return i.Served.Version.Decode != nil && (sub == nil || sub.New == nil)
}

// Attributes are those that the request as a whole is authorized by. They belong
// to the caller.
func (i *Info) Attributes() *authorizer.AttributesRecord { return i.attributes(i.Verb) }

func (i *Info) attributes(verb string) *authorizer.AttributesRecord {
	a := &authorizer.AttributesRecord{
		User:            i.User,
		Verb:            verb,
		Namespace:       i.Namespace,
		APIGroup:        i.Served.Version.Group,
		APIVersion:      i.Served.Version.Version,
		Resource:        i.Served.Plural,
		Subresource:     i.Subresource,
		Name:            i.Name,
		ResourceRequest: true,
		Path:            i.Path,
	}
	Select(a, i.FieldSelector, i.LabelSelector)
	return a
}

// Select adds the selectors by which a request narrows what it asks for; either
// may be "".
func Select(a *authorizer.AttributesRecord, byField, byLabel string) {
	if byField != "" {
		if s, err := fields.ParseSelector(byField); err != nil {
			a.FieldSelectorParsingErr = err
		} else {
			a.FieldSelectorRequirements = s.Requirements()
		}
	}
	if byLabel != "" {
		if s, err := labels.Parse(byLabel); err != nil {
			a.LabelSelectorParsingErr = err
		} else {
			a.LabelSelectorRequirements, _ = s.Requirements()
		}
	}
}

// Authorize answers whether the request is allowed: nil, or a 403 in
// Kubernetes' words.
func (h *Handler) Authorize(ctx context.Context, info *Info) error {
	return h.decideWhole(ctx, info.attributes(info.Verb), info.Audit)
}

// AuthorizePath is Authorize for paths that are not of a resource. verb is the
// lower-case HTTP method.
func (h *Handler) AuthorizePath(ctx context.Context, u user.Info, verb, path string, r *audit.Record) error {
	return h.decideWhole(ctx, &authorizer.AttributesRecord{User: u, Verb: verb, Path: path}, r)
}

// authorize asks for something beside the request as a whole.
func (h *Handler) authorize(ctx context.Context, a *authorizer.AttributesRecord) error {
	decision, reason, err := h.Authorizer.Authorize(ctx, a)
	return refusalOf(a, decision, reason, err)
}

// decideWhole is the answer about a request as a whole, which is noted and
// counted.
func (h *Handler) decideWhole(ctx context.Context, a *authorizer.AttributesRecord, r *audit.Record) error {
	began := h.Clock.Now()
	decision, reason, err := h.Authorizer.Authorize(ctx, a)
	h.authorizations.Add(resultOf(decision, err), h.Clock.Since(began))
	r.Decided(decision, reason, err)
	return refusalOf(a, decision, reason, err)
}

// newAuthorizations are the metrics of Kubernetes' authorization filter.
func newAuthorizations() *results.Counts {
	return results.New("authorization_attempts_total", "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
		"authorization_duration_seconds", "Authorization duration in seconds broken out by result.",
		"allowed", "denied", "no-opinion", "error")
}

func resultOf(decision authorizer.Decision, err error) string {
	switch {
	case decision == authorizer.DecisionAllow:
		return "allowed"
	case err != nil:
		return "error"
	case decision == authorizer.DecisionDeny:
		return "denied"
	}
	return "no-opinion"
}

func refusalOf(a *authorizer.AttributesRecord, decision authorizer.Decision, reason string, err error) error {
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return apierrors.NewInternalError(err)
	}
	return refusal(a, reason)
}

// Ask is what rules ask beside the request as a whole: nil, or a 403 in
// Kubernetes' words, also where the answer could not be found out.
func Ask(ctx context.Context, z authorizer.UnconditionalAuthorizer, a *authorizer.AttributesRecord) error {
	decision, reason, err := z.Authorize(ctx, a)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil && reason != "":
		reason = fmt.Sprintf("%v: %s", err, reason)
	case err != nil:
		reason = err.Error()
	}
	return refusal(a, reason)
}

func refusal(a *authorizer.AttributesRecord, reason string) error {
	text := noHTML.Replace(forbidden(a))
	if reason != "" {
		text += ": " + reason
	}
	gr := schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}
	return apierrors.NewForbidden(gr, a.Name, fmt.Errorf("%s", text))
}

// admission are the attributes of the request for admission, but for its
// objects. options stay the caller's.
func (i *Info) admission(op admission.Operation, options runtime.Object, dryRun bool) *admission.Attributes {
	return &admission.Attributes{
		Operation: op, Resource: i.row(), Served: i.Served, Kind: i.Form().GroupVersionKind, Subresource: i.Subresource,
		Namespace: i.Namespace, Name: i.Name, Options: options, User: i.User, DryRun: dryRun, Warn: i.warn,
	}
}

// noHTML keeps an error that shows part of a URL from being taken for a page.
var noHTML = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func forbidden(a *authorizer.AttributesRecord) string {
	name := ""
	if a.User != nil {
		name = a.User.GetName()
	}
	if !a.ResourceRequest {
		return fmt.Sprintf("User %q cannot %s path %q", name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	scope := "at the cluster scope"
	if a.Namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", name, a.Verb, resource, a.APIGroup, scope)
}

// manager names whoever the written fields will belong to: what the client
// says, or the program named first in its user agent.
func (i *Info) manager(said string) string {
	if said != "" {
		return said
	}
	program, _, _ := strings.Cut(i.UserAgent, "/")
	var b strings.Builder
	for _, r := range program {
		if !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > validation.FieldManagerMaxLength {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
