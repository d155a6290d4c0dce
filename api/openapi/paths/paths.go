// Package paths says for every row what can be done at which URL, as OpenAPI has
// it: for the documents that `make generate` writes, and at run time for those of
// kinds that are defined.
package paths

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"

	"hansa.dev/hansa/api"
)

// Path is one URL with what can be done there.
type Path struct {
	URL        string
	Group      string // the v3 document it belongs to: "api/v1", "apis/apps/v1"
	params     []parameter
	operations []operation
}

// operation is one HTTP method of a path.
type operation struct {
	method      string // GET, POST, …
	id          string
	description string
	action      string // x-kubernetes-action
	gvk         *schema.GroupVersionKind
	tag         string
	params      []parameter
	body        string // schema names
	answer      string // or plainText
	consumes    []string
	produces    []string
	status      []int
}

// plainText is the answer of what is no object.
const plainText = "string"

// Group is the paths of one v3 document.
type Group struct {
	Name  string
	Paths []Path
}

// Grouped sorts paths into documents.
func Grouped(paths []Path) []Group {
	index := map[string]int{}
	var groups []Group
	for _, p := range paths {
		if p.Group == "" {
			continue
		}
		i, ok := index[p.Group]
		if !ok {
			i = len(groups)
			index[p.Group] = i
			groups = append(groups, Group{Name: p.Group})
		}
		groups[i].Paths = append(groups[i].Paths, p)
	}
	return groups
}

// Models are the names of all schemas that paths mention.
func Models(paths []Path) map[string]bool {
	set := map[string]bool{}
	for _, p := range paths {
		for _, o := range p.operations {
			for _, m := range []string{o.body, o.answer} {
				if m != "" && m != plainText {
					set[m] = true
				}
			}
		}
	}
	return set
}

// All is everything that discovery shows, and discovery itself.
func All(reg *api.Registry) []Path {
	paths := []Path{
		{URL: "/version/", Group: "version", operations: []operation{{method: "GET", id: "getCodeVersion", tag: "version", description: "get the version information for this server", answer: modelName(apiversion.Info{}), produces: produces[:1], status: []int{200}}}},
		{URL: "/api/", Group: "api", operations: []operation{{method: "GET", id: "getCoreAPIVersions", tag: "core", description: "get available API versions", answer: modelName(metav1.APIVersions{}), produces: produces, status: []int{200}}}},
		{URL: "/apis/", Group: "apis", operations: []operation{{method: "GET", id: "getAPIVersions", tag: "apis", description: "get available API versions", answer: modelName(metav1.APIGroupList{}), produces: produces, status: []int{200}}}},
		{URL: "/openid/v1/jwks/", Group: "openid/v1/jwks", operations: []operation{{method: "GET", id: "getServiceAccountIssuerOpenIDKeyset", tag: "openid", description: "get the public keys of the issuer of service accounts", answer: plainText, produces: []string{"application/jwk-set+json"}, status: []int{200}}}},
		{URL: "/.well-known/openid-configuration/", Group: ".well-known/openid-configuration", operations: []operation{{method: "GET", id: "getServiceAccountIssuerOpenIDConfiguration", tag: "WellKnown", description: "get the OIDC discovery document of the issuer of service accounts", answer: plainText, produces: produces[:1], status: []int{200}}}},
	}
	var served []*api.Served
	for _, r := range reg.Resources() {
		for i := range r.Versions {
			served = append(served, &api.Served{Resource: r, Version: &r.Versions[i]})
		}
	}
	return append(paths, Of(served, func(string) bool { return false })...)
}

// Of is what can be done with some versions, and the discovery of their groups:
// known says which paths of that are there already. The paths are in order.
func Of(served []*api.Served, known func(url string) bool) (paths []Path) {
	seen := map[string]bool{}
	once := func(p Path) {
		if !seen[p.URL] && !known(p.URL) {
			seen[p.URL] = true
			paths = append(paths, p)
		}
	}
	for _, s := range served {
		r, v := s.Resource, s.Version
		if v.Group != "" {
			once(Path{URL: "/apis/" + v.Group + "/", Group: "apis/" + v.Group, operations: []operation{{method: "GET", id: "get" + camel(v.Group) + "APIGroup", tag: camelLow(v.Group), description: "get information of a group", answer: modelName(metav1.APIGroup{}), produces: produces, status: []int{200}}}})
		}
		root := Root(v.GroupVersion)
		once(Path{URL: "/" + root + "/", Group: root, operations: []operation{{method: "GET", id: "get" + name(v.GroupVersion) + "APIResources", tag: tag(v.GroupVersion), description: "get available resources", answer: modelName(metav1.APIResourceList{}), produces: produces, status: []int{200}}}})
		paths = append(paths, resourcePaths(r, v)...)
	}
	sort.SliceStable(paths, func(i, j int) bool { return paths[i].URL < paths[j].URL })
	return paths
}

// Root is the name of the v3 document of a group-version.
func Root(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

// resourcePaths are the collection (also over all namespaces), the object, and
// the subresources.
func resourcePaths(r *api.Resource, v *api.Version) []Path {
	root := "/" + Root(v.GroupVersion) + "/"
	b := opBuilder{r: r, v: v, scope: ""}
	var params []parameter
	base := root
	if r.Namespaced {
		b.scope = "Namespaced"
		base += "namespaces/{namespace}/"
		params = append(params, namespaceParam)
	}
	base += r.Plural
	group := Root(v.GroupVersion)

	var paths []Path
	collection := Path{URL: base, Group: group, params: append(params, prettyParam)}
	for _, verb := range []string{"list", "create", "deletecollection"} {
		if r.Offers(verb) {
			collection.operations = append(collection.operations, b.collection(verb))
		}
	}
	paths = append(paths, collection)
	if r.Namespaced && r.Offers("list") {
		all := b
		all.scope = ""
		o := all.collection("list")
		o.id += "ForAllNamespaces"
		paths = append(paths, Path{URL: root + r.Plural, Group: group, params: []parameter{prettyParam}, operations: []operation{o}})
	}
	if r.Offers("watch") && v.Decode == nil { // as in Kubernetes, which describes none of definitions
		paths = append(paths, b.watches()...)
	}
	itemParams := append(append([]parameter{}, params...), nameParam(r.Kind), prettyParam)
	item := Path{URL: base + "/{name}", Group: group, params: itemParams}
	for _, verb := range []string{"get", "update", "delete", "patch"} {
		if r.Offers(verb) {
			item.operations = append(item.operations, b.item(verb, ""))
		}
	}
	if len(item.operations) > 0 {
		paths = append(paths, item)
	}
	for sub, way := range r.Subresources {
		p := Path{URL: base + "/{name}/" + sub, Group: group, params: itemParams}
		if connects(way, sub) {
			p.params = append(append(append([]parameter{}, params...), nameParam(way.Kind.Kind)), optionParams[sub]...)
		}
		for _, verb := range []string{"create", "get", "update", "delete", "patch"} {
			if offers(way, verb) {
				p.operations = append(p.operations, b.item(verb, sub))
			}
		}
		if sub == "proxy" { // discovery has no verbs for these
			p.operations = append(p.operations, b.connect("HEAD", sub), b.connect("OPTIONS", sub))
		}
		paths = append(paths, p)
		if sub == "proxy" {
			p.URL += "/{path}"
			p.params = append(append([]parameter{}, p.params...), parameter{name: "path", in: "path", kind: "string", required: true, description: "path to the resource"})
			p.operations = append([]operation{}, p.operations...)
			for i := range p.operations {
				p.operations[i].id += "WithPath"
			}
			paths = append(paths, p)
		}
	}
	return paths
}

// connects says that a subresource takes whatever comes, and leads elsewhere.
func connects(s *api.Subresource, sub string) bool {
	return s.Connect && !s.Kind.Empty() && optionParams[sub] != nil
}

func offers(s *api.Subresource, verb string) bool {
	for _, v := range s.Verbs {
		if v == verb {
			return true
		}
	}
	return false
}

// opBuilder makes the operations of one version of one resource.
type opBuilder struct {
	r     *api.Resource
	v     *api.Version
	scope string // "Namespaced" in operation ids
}

func (b opBuilder) gvk() *schema.GroupVersionKind {
	gvk := b.v.WithKind(b.r.Kind)
	return &gvk
}

func (b opBuilder) model() string { return Model(b.r, b.v, b.r.Kind) }

func (b opBuilder) list() string {
	if b.v.Decode == nil {
		return modelName(b.v.NewList())
	}
	return Model(b.r, b.v, b.r.ListKind)
}

// Model is the name of the schema of a kind, "io.k8s.api.core.v1.Pod": that of its
// Go type, or where there is none of its group backwards.
func Model(r *api.Resource, v *api.Version, kind string) string {
	if v.Decode == nil {
		return modelName(v.New())
	}
	parts := strings.Split(r.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, v.GroupVersion.Version, kind), ".")
}

// modelName is the name of a Go type's schema.
func modelName(obj any) string {
	if n, ok := obj.(interface{ OpenAPIModelName() string }); ok {
		return n.OpenAPIModelName()
	}
	panic(fmt.Sprintf("no OpenAPI model for %T", obj))
}

func (b opBuilder) base(method, verb, action string) operation {
	o := operation{
		method: method, action: action, gvk: b.gvk(), tag: tag(b.v.GroupVersion),
		id:       verb + name(b.v.GroupVersion) + b.scope + b.r.Kind,
		produces: produces,
		status:   []int{200},
	}
	switch {
	case b.v.Decode != nil:
		o.produces = customProduces
	case action == "list", action == "watch", action == "watchlist":
		o.produces = slices.Concat(produces, watchProduces)
	}
	return o
}

func (b opBuilder) collection(verb string) operation {
	switch verb {
	case "list":
		o := b.base("GET", "list", "list")
		o.description = "list or watch objects of kind " + b.r.Kind
		o.params, o.answer = listParams, b.list()
		return o
	case "create":
		o := b.base("POST", "create", "post")
		o.description = "create " + article(b.r.Kind)
		o.params, o.body, o.answer, o.status = writeParams, b.model(), b.model(), []int{200, 201, 202}
		return o
	}
	o := b.base("DELETE", "delete", "deletecollection")
	o.id = "delete" + name(b.v.GroupVersion) + "Collection" + b.scope + b.r.Kind
	o.description = "delete collection of " + b.r.Kind
	o.params, o.body, o.answer = append(slices.Clone(collectionParams), deleteParams...), modelName(metav1.DeleteOptions{}), modelName(metav1.Status{})
	return o
}

func (b opBuilder) item(verb, sub string) operation {
	of := b.r.Kind
	suffix := ""
	body := ""
	if b.v.New != nil {
		body = b.model()
	}
	gvk := b.gvk()
	var s *api.Subresource
	if sub != "" {
		s = b.r.Subresources[sub]
		of = sub + " of the specified " + b.r.Kind
		suffix = camel(sub)
		if !s.Kind.Empty() {
			kind := s.Kind
			gvk = &kind
		}
		switch {
		case connects(s, sub):
			return b.connect(map[string]string{"get": "GET", "create": "POST", "update": "PUT", "delete": "DELETE", "patch": "PATCH"}[verb], sub)
		case optionParams[sub] != nil:
			body = plainText
		case s.New != nil:
			body = modelName(s.New())
		}
	}
	var o operation
	switch verb {
	case "get":
		o = b.base("GET", "read", "get")
		o.description, o.answer = "read the specified "+of, body
		if body == plainText {
			o.params, o.produces = optionParams[sub], slices.Concat([]string{"text/plain"}, produces)
		}
	case "create":
		o = b.base("POST", "create", "post")
		o.description = "create " + of
		o.params, o.body, o.answer, o.status = writeParams, body, body, []int{200, 201, 202}
	case "update":
		o = b.base("PUT", "replace", "put")
		o.description = "replace the specified " + of
		o.params, o.body, o.answer, o.status = writeParams, body, body, []int{200, 201}
	case "delete":
		o = b.base("DELETE", "delete", "delete")
		o.description = "delete " + article(of)
		o.params, o.body, o.answer, o.status = deleteParams, modelName(metav1.DeleteOptions{}), modelName(metav1.Status{}), []int{200, 202}
		if api.ShowsDeleted(b.r.GroupResource()) && sub == "" {
			o.answer = b.model()
		}
	case "patch":
		o = b.base("PATCH", "patch", "patch")
		o.description = "partially update the specified " + of
		o.params, o.body, o.answer, o.status = append(append([]parameter{}, writeParams...), forceParam), modelName(metav1.Patch{}), body, []int{200, 201}
		o.consumes = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor"}
		if b.v.Decode != nil {
			o.consumes = slices.Delete(o.consumes, 2, 3)
		}
	}
	o.id += suffix
	o.gvk = gvk
	return o
}

// connect is a method of a subresource that leads elsewhere.
func (b opBuilder) connect(method, sub string) operation {
	o := b.base(method, "connect", "connect")
	o.id = "connect" + name(b.v.GroupVersion) + camel(strings.ToLower(method)) + b.scope + b.r.Kind + camel(sub)
	o.description = "connect " + method + " requests to " + sub + " of " + b.r.Kind
	o.gvk = &b.r.Subresources[sub].Kind
	o.answer, o.produces = plainText, anything
	return o
}

// watches are the paths of old clients, which others ask for by a query: of all
// namespaces, of one, and of one object.
func (b opBuilder) watches() (paths []Path) {
	root, group := "/"+Root(b.v.GroupVersion)+"/watch/", Root(b.v.GroupVersion)
	add := func(url, scope, suffix, action, what string, params ...parameter) {
		o := b.base("GET", "watch", action)
		o.id = "watch" + name(b.v.GroupVersion) + scope + b.r.Kind + suffix
		o.description = "watch changes to " + what + b.r.Kind + "; deprecated: use the parameter watch of a list"
		o.answer = modelName(metav1.WatchEvent{})
		params = append(append(params, listParams...), prettyParam)
		paths = append(paths, Path{URL: url, Group: group, params: params, operations: []operation{o}})
	}
	collection := root + b.r.Plural
	var params []parameter
	if b.r.Namespaced {
		add(collection, "", "ListForAllNamespaces", "watchlist", "objects of kind ")
		collection, params = root+"namespaces/{namespace}/"+b.r.Plural, []parameter{namespaceParam}
	}
	add(collection, b.scope, "List", "watchlist", "objects of kind ", params...)
	add(collection+"/{name}", b.scope, "", "watch", "an object of kind ", append([]parameter{nameParam(b.r.Kind)}, params...)...)
	return paths
}

func article(kind string) string {
	if strings.ContainsAny(kind[:1], "AEIOU") {
		return "an " + kind
	}
	return "a " + kind
}

// name is a group-version in operation ids: "CoreV1", "RbacAuthorizationV1".
func name(gv schema.GroupVersion) string {
	group := gv.Group
	if group == "" {
		group = "core"
	}
	return camel(strings.TrimSuffix(group, ".k8s.io")) + camel(gv.Version)
}

func tag(gv schema.GroupVersion) string {
	n := name(gv)
	return strings.ToLower(n[:1]) + strings.TrimSuffix(n[1:], camel(gv.Version)) + "_" + gv.Version
}

func camel(s string) string {
	var b strings.Builder
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '-' || r == '/' }) {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return strings.TrimSuffix(b.String(), "K8sIo")
}

func camelLow(s string) string {
	c := camel(s)
	return strings.ToLower(c[:1]) + c[1:]
}
