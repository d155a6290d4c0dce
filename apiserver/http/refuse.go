package http

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
)

// Who refuses a path or a method in Kubernetes depends on where it is: what is of
// a built-in group goes by a router that has one sentence for each status, objects
// of definitions by a handler that names the resource, and whatever nobody knows
// gets a text.
var (
	// errNoPath is answered by the text.
	errNoPath = errors.New("404 page not found")
	// errNoResource and errMethod are the router's.
	errNoResource error = apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false)
	errMethod     error = apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
)

// refused says why there is nothing to be done for a request, nil when there is.
func (c *call) refused() error {
	served := c.info.Served
	switch {
	case served == nil && c.Registry.BuiltIn(c.target.group):
		return errNoResource
	case served == nil:
		return errNoPath
	case served.Version.Decode != nil:
		return c.refusedCustom()
	}
	verbs, verb := c.verbs(), c.info.Verb
	takes := slices.Contains(verbs, verb)
	switch head := c.r.Method == http.MethodHead; {
	case takes && !head && c.offers(verb):
		return c.refusedForm()
	case verbs == nil, c.target.sub == "" && !slices.ContainsFunc(verbs, c.offers):
		return errNoResource
	case c.target.sub == "proxy" && (head || c.r.Method == http.MethodOptions) && c.connector(c.info) != nil:
		return nil
	case takes && !head && verb == "watch":
		return apierrors.NewMethodNotSupported(c.groupResource(), verb)
	}
	return errMethod
}

// refusedForm is the router's refusal of what a client takes or sends. It looks for
// the names as they are, so that application/* is none.
func (c *call) refusedForm() error {
	sub := c.info.Served.Subresources[c.target.sub]
	if sub != nil && sub.Connect && c.connector(c.info) != nil {
		return nil
	}
	if c.info.Verb == "patch" && !names(c.r.Header.Get("Content-Type"), request.PatchTypes) {
		return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "", "415: Unsupported Media Type", 0, false)
	}
	streams := ""
	if c.info.Verb == "list" || c.info.Verb == "watch" {
		streams = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, application/cbor-seq"
	}
	return refusedMedia(c.r.Header.Get("Accept"), codec.MediaTypes, streams)
}

// refusedMedia says that a client takes nothing of what there is, streams beside it.
func refusedMedia(accept string, there []codec.MediaType, streams string) error {
	if accept == "" || names(accept, there) || names(accept, []string{"*/*"}) {
		return nil
	}
	return apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "",
		"406: Not Acceptable\n\nAvailable representations: "+joinMedia(there, "")+streams, 0, false)
}

// names says whether a header with media types has one of those.
func names[T ~string](header string, media []T) bool {
	for more := header != ""; more; {
		var clause string
		clause, header, more = strings.Cut(header, ",")
		clause, _, _ = strings.Cut(clause, ";")
		if slices.Contains(media, T(strings.Trim(clause, " "))) {
			return true
		}
	}
	return false
}

var (
	listVerbs       = []string{"list", "watch"}
	collectionVerbs = []string{"list", "watch", "create", "deletecollection"}
	itemVerbs       = []string{"get", "update", "patch", "delete"}
	watchVerbs      = []string{"watch"}
)

// verbs are those that a path of a built-in kind may have: none when it is not one
// of the kind at all, since its scope or a subresource is another.
func (c *call) verbs() []string {
	row, t := c.info.Served.Resource, &c.target
	within := t.within(row)
	switch {
	case t.rest != "" && (t.sub == "" || t.rest != "/" && t.sub != "proxy"),
		within && !row.Namespaced, !within && row.Namespaced && t.name != "":
		return nil
	case t.sub != "":
		sub := row.Subresources[t.sub]
		if sub == nil || t.watch {
			return nil
		}
		return sub.Verbs
	case t.watch:
		return watchVerbs
	case t.name != "":
		return itemVerbs
	case row.Namespaced && !within:
		return listVerbs
	}
	return collectionVerbs
}

// within says whether a path is one in a namespace. That of a namespace itself is
// in it for the authorizer only; another's would be a way around that.
func (t *target) within(row *api.Resource) bool {
	return t.namespace != "" && (row.Plural != "namespaces" || t.namespace != t.name)
}

// offers says whether one of the verbs of a path is there.
func (c *call) offers(verb string) bool {
	row := c.info.Served.Resource
	if c.target.sub == "" {
		return row.Offers(verb)
	}
	// Nobody may connect to it here, nor answer what is posted to it.
	return !row.Subresources[c.target.sub].Connect || c.connector(c.info) != nil ||
		c.Hooks[request.HookName(row.GroupResource(), c.target.sub)] != nil
}

// refusedCustom is refused for objects of definitions.
func (c *call) refusedCustom() error {
	row, t, verb := c.info.Served.Resource, &c.target, c.info.Verb
	within, everywhere := t.within(row), verb == "list" || verb == "watch"
	sub := row.Subresources[t.sub]
	switch {
	case within && !row.Namespaced, !within && row.Namespaced && (t.name != "" || !everywhere):
		return errNoPath
	case t.sub != "" && sub == nil:
		return apierrors.NewNotFound(c.groupResource(), t.name)
	case t.sub == "" && t.rest != "":
		return errNoPath
	case sub != nil && !slices.Contains(sub.Verbs, verb),
		sub == nil && !row.Offers(verb),
		verb == "create" && t.name != "":
		return apierrors.NewMethodNotSupported(c.groupResource(), verb)
	case (verb == "update" || verb == "patch") && t.name == "":
		return apierrors.NewBadRequest("name must be provided")
	}
	return nil
}

func (c *call) groupResource() schema.GroupResource { return gvr(c.target).GroupResource() }

// refuse answers that nothing is done; those who may not even ask are told that
// instead.
func (c *call) refuse(why error) {
	if err := c.mayAsk(); err != nil {
		why = err
	}
	if errors.Is(why, errNoPath) {
		notFound(c.w)
		return
	}
	c.fail(c.w, c.r, why)
}

// mayAsk authorizes a request by its path alone, whether there is a row for it or
// not.
func (c *call) mayAsk() error {
	probe := *c.info
	probe.Served = &api.Served{
		Resource: &api.Resource{Group: c.target.group, Plural: c.target.plural},
		Version:  &api.Version{GroupVersion: gvr(c.target).GroupVersion()},
	}
	return c.Authorize(c.r.Context(), &probe)
}

// routed are roots below which the router answers, besides those of groups.
var routed = []string{"/api", "/version", "/openid/v1/jwks", "/.well-known/openid-configuration"}

// refusedPath says how a path of the server's own is refused: one that is not
// there, a method that it does not take, or that there is nothing that the client
// takes.
func (s *Server) refusedPath(path, method, accept string, there bool) error {
	byRouter := slices.ContainsFunc(routed, func(root string) bool { return below(path, root) })
	if rest, ok := strings.CutPrefix(path, "/apis/"); ok && rest != "" {
		group, version, _ := strings.Cut(rest, "/")
		// What a group has is said by the aggregator, before the router.
		byRouter = group != "" && s.Registry.BuiltIn(group) && (!there || version != "")
	}
	switch {
	case !there && byRouter:
		return errNoResource
	case !there:
		return errNoPath
	case !byRouter: // which take any
		return nil
	case method != http.MethodGet:
		return errMethod
	}
	return refusedMedia(accept, producedAt(path), "")
}

// producedAt is what the router has at one of the paths of the server's own.
func producedAt(path string) []codec.MediaType {
	switch path = strings.TrimSuffix(path, "/"); {
	case path == "/openid/v1/jwks":
		return []codec.MediaType{"application/jwk-set+json"}
	case below(path, "/api"), strings.HasPrefix(path, "/apis/"):
		return codec.MediaTypes
	}
	return []codec.MediaType{codec.JSON}
}

// below says whether a path is a root or is below it.
func below(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/')
}
