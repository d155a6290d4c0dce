//go:build generate

package main

import (
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"

	"hansa.dev/hansa/api"
)

// path is one URL with what can be done there.
type path struct {
	url        string
	group      string // the v3 document it belongs to: "api/v1", "apis/apps/v1"
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
	answer      string
	consumes    []string
	status      []int
}

type group struct {
	name  string
	paths []path
}

func groupPaths(paths []path) []group {
	index := map[string]int{}
	var groups []group
	for _, p := range paths {
		if p.group == "" {
			continue
		}
		i, ok := index[p.group]
		if !ok {
			i = len(groups)
			index[p.group] = i
			groups = append(groups, group{name: p.group})
		}
		groups[i].paths = append(groups[i].paths, p)
	}
	return groups
}

// allPaths is everything that discovery shows, and discovery itself.
func allPaths(reg *api.Registry) []path {
	paths := []path{
		{url: "/version/", group: "version", operations: []operation{{method: "GET", id: "getCodeVersion", tag: "version", description: "get the version information for this server", answer: modelName(apiversion.Info{}), status: []int{200}}}},
		{url: "/api/", group: "api", operations: []operation{{method: "GET", id: "getCoreAPIVersions", tag: "core", description: "get available API versions", answer: modelName(metav1.APIVersions{}), status: []int{200}}}},
		{url: "/apis/", group: "apis", operations: []operation{{method: "GET", id: "getAPIVersions", tag: "apis", description: "get available API versions", answer: modelName(metav1.APIGroupList{}), status: []int{200}}}},
	}
	seen := map[string]bool{}
	for _, r := range reg.Resources() {
		for i := range r.Versions {
			v := &r.Versions[i]
			if g := "/apis/" + v.Group + "/"; v.Group != "" && !seen[g] {
				seen[g] = true
				paths = append(paths, path{url: g, group: "apis/" + v.Group, operations: []operation{{method: "GET", id: "get" + camel(v.Group) + "APIGroup", tag: camelLow(v.Group), description: "get information of a group", answer: modelName(metav1.APIGroup{}), status: []int{200}}}})
			}
			if root := rootOf(v.GroupVersion); !seen[root] {
				seen[root] = true
				paths = append(paths, path{url: "/" + root + "/", group: root, operations: []operation{{method: "GET", id: "get" + name(v.GroupVersion) + "APIResources", tag: tag(v.GroupVersion), description: "get available resources", answer: modelName(metav1.APIResourceList{}), status: []int{200}}}})
			}
			paths = append(paths, resourcePaths(r, v)...)
		}
	}
	sort.SliceStable(paths, func(i, j int) bool { return paths[i].url < paths[j].url })
	return paths
}

func rootOf(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

// resourcePaths are the collection (also over all namespaces), the object, and
// the subresources.
func resourcePaths(r *api.Resource, v *api.Version) []path {
	root := "/" + rootOf(v.GroupVersion) + "/"
	b := opBuilder{r: r, v: v, scope: ""}
	var params []parameter
	base := root
	if r.Namespaced {
		b.scope = "Namespaced"
		base += "namespaces/{namespace}/"
		params = append(params, namespaceParam)
	}
	base += r.Plural
	group := rootOf(v.GroupVersion)

	var paths []path
	collection := path{url: base, group: group, params: append(params, prettyParam)}
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
		paths = append(paths, path{url: root + r.Plural, group: group, params: []parameter{prettyParam}, operations: []operation{o}})
	}
	itemParams := append(append([]parameter{}, params...), nameParam(r.Kind), prettyParam)
	item := path{url: base + "/{name}", group: group, params: itemParams}
	for _, verb := range []string{"get", "update", "delete", "patch"} {
		if r.Offers(verb) {
			item.operations = append(item.operations, b.item(verb, ""))
		}
	}
	if len(item.operations) > 0 {
		paths = append(paths, item)
	}
	for sub := range r.Subresources {
		p := path{url: base + "/{name}/" + sub, group: group, params: itemParams}
		for _, verb := range []string{"create", "get", "update", "delete", "patch"} {
			if offers(r.Subresources[sub], verb) {
				p.operations = append(p.operations, b.item(verb, sub))
			}
		}
		paths = append(paths, p)
		if sub == "proxy" {
			p.url += "/{path}"
			p.params = append(append([]parameter{}, itemParams...), parameter{name: "path", in: "path", kind: "string", required: true, description: "path to the resource"})
			p.operations = append([]operation{}, p.operations...)
			for i := range p.operations {
				p.operations[i].id += "WithPath"
			}
			paths = append(paths, p)
		}
	}
	return paths
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

func (b opBuilder) model() string { return modelName(b.v.New()) }

func (b opBuilder) base(method, verb, action string) operation {
	return operation{
		method: method, action: action, gvk: b.gvk(), tag: tag(b.v.GroupVersion),
		id:     verb + name(b.v.GroupVersion) + b.scope + b.r.Kind,
		status: []int{200},
	}
}

func (b opBuilder) collection(verb string) operation {
	switch verb {
	case "list":
		o := b.base("GET", "list", "list")
		o.description = "list or watch objects of kind " + b.r.Kind
		o.params, o.answer = listParams, modelName(b.v.NewList())
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
	o.params, o.body, o.answer = append(append([]parameter{}, listParams...), deleteParams...), modelName(metav1.DeleteOptions{}), modelName(metav1.Status{})
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
		if s.New != nil {
			body = modelName(s.New())
		}
		if s.Connect && s.New == nil {
			body = ""
		}
	}
	var o operation
	switch verb {
	case "get":
		o = b.base("GET", "read", "get")
		o.description, o.answer = "read the specified "+of, body
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
	case "patch":
		o = b.base("PATCH", "patch", "patch")
		o.description = "partially update the specified " + of
		o.params, o.body, o.answer, o.status = append(append([]parameter{}, writeParams...), forceParam), modelName(metav1.Patch{}), body, []int{200, 201}
		o.consumes = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}
	}
	o.id += suffix
	o.gvk = gvk
	if s != nil && s.Connect && s.New == nil {
		o.action = "connect"
		o.id = "connect" + name(b.v.GroupVersion) + camel(strings.ToLower(o.method)) + b.scope + b.r.Kind + suffix
		o.description = "connect " + o.method + " requests to " + of
		o.body, o.answer, o.params = "", "", nil
	}
	return o
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
