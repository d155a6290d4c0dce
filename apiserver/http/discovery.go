package http

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// discovery tells what is served, in the old form (a list for each
// group-version) and in the aggregated one. Immutable: when other kinds are served,
// another one is built for the first who asks.
type discovery struct {
	until    <-chan struct{} // closed when it is out of date
	groups   []string        // "" first, in order of preference
	versions map[string][]schema.GroupVersion
	docs     map[string]discoveryDoc // by path
	// aggregated are the two documents at /api and /apis.
	aggregated map[string]aggregatedDoc
}

type discoveryDoc struct {
	kind string
	obj  runtime.Object
	etag string // weak: one for all encodings
}

type aggregatedDoc struct {
	body map[string][]byte // by version of apidiscovery.k8s.io
	etag string
}

// groupOrder is the order in which clients should look for a kind that several
// groups have; groups not named come last, by name.
var groupOrder = []string{"", "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io",
	"autoscaling", "batch", "certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
	"admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io", "discovery.k8s.io"}

func groupRank(group string) int {
	if i := slices.Index(groupOrder, group); i >= 0 {
		return i
	}
	return len(groupOrder)
}

// discovered is what there is to discover now.
func (s *Server) discovered() *discovery {
	d := s.discovery.Load()
	if d != nil && !over(d.until) {
		return d
	}
	s.discovering.Lock()
	defer s.discovering.Unlock()
	if d = s.discovery.Load(); d == nil || over(d.until) {
		d = newDiscovery(s.Registry, s.Address)
		s.discovery.Store(d)
	}
	return d
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func newDiscovery(registry *api.Registry, address string) *discovery {
	d := &discovery{until: registry.Changed(), versions: map[string][]schema.GroupVersion{}, docs: map[string]discoveryDoc{}}
	resources := map[schema.GroupVersion][]*api.Served{}
	defined := map[string]bool{}
	for _, served := range registry.Served() {
		gv := served.Version.GroupVersion
		if resources[gv] == nil {
			d.versions[gv.Group] = append(d.versions[gv.Group], gv)
		}
		resources[gv] = append(resources[gv], served)
		defined[gv.Group] = defined[gv.Group] || served.View != nil
	}
	for group := range defined {
		if defined[group] {
			// Definitions come in no order; those of built-in kinds do.
			slices.SortStableFunc(d.versions[group], func(a, b schema.GroupVersion) int {
				return -version.CompareKubeAwareVersionStrings(a.Version, b.Version)
			})
		}
	}
	for group := range d.versions {
		d.groups = append(d.groups, group)
	}
	sort.Slice(d.groups, func(i, j int) bool {
		a, b := groupRank(d.groups[i]), groupRank(d.groups[j])
		return a < b || a == b && d.groups[i] < d.groups[j]
	})
	for _, list := range resources {
		sort.Slice(list, func(i, j int) bool { return list[i].Plural < list[j].Plural })
	}
	d.buildLegacy(resources, address)
	d.buildAggregated(resources)
	return d
}

func (d *discovery) buildLegacy(resources map[schema.GroupVersion][]*api.Served, address string) {
	groups := &metav1.APIGroupList{Groups: []metav1.APIGroup{}}
	for _, name := range d.groups {
		if name == "" {
			core := &metav1.APIVersions{ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: address}}}
			for _, gv := range d.versions[name] {
				core.Versions = append(core.Versions, gv.Version)
			}
			d.docs["/api"] = discoveryDoc{kind: "APIVersions", obj: core}
			continue
		}
		group := metav1.APIGroup{Name: name}
		for _, gv := range d.versions[name] {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
		}
		group.PreferredVersion = group.Versions[0]
		groups.Groups = append(groups.Groups, group)
		single := group
		d.docs["/apis/"+name] = discoveryDoc{kind: "APIGroup", obj: &single}
	}
	d.docs["/apis"] = discoveryDoc{kind: "APIGroupList", obj: groups}
	for gv, list := range resources {
		d.docs[versionPath(gv)] = discoveryDoc{kind: "APIResourceList", obj: legacyResources(gv, list)}
	}
	d.tag()
}

func versionPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.String()
}

func legacyResources(gv schema.GroupVersion, list []*api.Served) *metav1.APIResourceList {
	out := &metav1.APIResourceList{GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
	for _, s := range list {
		out.APIResources = append(out.APIResources, metav1.APIResource{
			Name: s.Plural, SingularName: s.Singular, Namespaced: s.Namespaced, Kind: s.Kind,
			Verbs: verbsOf(s.Resource), ShortNames: s.ShortNames, Categories: s.Categories,
		})
		for _, name := range subresourceNames(s.Resource) {
			sub := s.Subresources[name]
			gvk := subresourceKind(s, sub)
			r := metav1.APIResource{Name: s.Plural + "/" + name, Namespaced: s.Namespaced, Kind: gvk.Kind, Verbs: sub.Verbs}
			if gvk.GroupVersion() != gv {
				r.Group, r.Version = gvk.Group, gvk.Version
			}
			out.APIResources = append(out.APIResources, r)
		}
	}
	return out
}

func verbsOf(r *api.Resource) []string {
	if r.Verbs == nil {
		return api.AllVerbs
	}
	return r.Verbs
}

func subresourceNames(r *api.Resource) []string {
	names := make([]string, 0, len(r.Subresources))
	for name := range r.Subresources {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func subresourceKind(s *api.Served, sub *api.Subresource) schema.GroupVersionKind {
	if sub.Kind.Empty() {
		return s.Version.WithKind(s.Kind)
	}
	return sub.Kind
}

func (d *discovery) buildAggregated(resources map[schema.GroupVersion][]*api.Served) {
	core, rest := []apidiscoveryv2.APIGroupDiscovery{}, []apidiscoveryv2.APIGroupDiscovery{}
	for _, name := range d.groups {
		group := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, gv := range d.versions[name] {
			v := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
			for _, s := range resources[gv] {
				v.Resources = append(v.Resources, aggregatedResource(s))
			}
			group.Versions = append(group.Versions, v)
		}
		if name == "" {
			core = append(core, group)
		} else {
			rest = append(rest, group)
		}
	}
	d.aggregated = map[string]aggregatedDoc{"/api": aggregate(core), "/apis": aggregate(rest)}
}

func aggregatedResource(s *api.Served) apidiscoveryv2.APIResourceDiscovery {
	kind := func(gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
		return &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
	}
	r := apidiscoveryv2.APIResourceDiscovery{
		Resource: s.Plural, ResponseKind: kind(s.Version.WithKind(s.Kind)), Scope: apidiscoveryv2.ScopeCluster,
		SingularResource: s.Singular, Verbs: verbsOf(s.Resource), ShortNames: s.ShortNames, Categories: s.Categories,
	}
	if s.Namespaced {
		r.Scope = apidiscoveryv2.ScopeNamespace
	}
	for _, name := range subresourceNames(s.Resource) {
		sub := s.Subresources[name]
		r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: name, ResponseKind: kind(subresourceKind(s, sub)), Verbs: sub.Verbs,
		})
	}
	return r
}

// aggregate encodes a list of groups in the two versions that clients ask for,
// which have the same fields.
func aggregate(groups []apidiscoveryv2.APIGroupDiscovery) aggregatedDoc {
	doc := aggregatedDoc{body: map[string][]byte{}}
	for _, version := range []string{"v2", "v2beta1"} {
		list := &apidiscoveryv2.APIGroupDiscoveryList{Items: groups}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: apidiscoveryv2.GroupName, Version: version, Kind: "APIGroupDiscoveryList"})
		data, err := json.Marshal(list)
		if err != nil {
			panic(fmt.Sprintf("apiserver/http: encode discovery: %v", err)) // plain data
		}
		doc.body[version] = append(data, '\n')
	}
	doc.etag = fmt.Sprintf("\"%X\"", sha512.Sum512(doc.body["v2"]))
	return doc
}

// tag gives every plain document its ETag.
func (d *discovery) tag() {
	for path, doc := range d.docs {
		data, err := json.Marshal(doc.obj)
		if err != nil {
			panic(fmt.Sprintf("apiserver/http: encode discovery: %v", err)) // plain data
		}
		doc.etag = fmt.Sprintf("W/\"%X\"", sha512.Sum512(data))
		d.docs[path] = doc
	}
}

// unchanged says whether the client has what the tag names, and answers so.
func unchanged(w http.ResponseWriter, r *http.Request, etag string) bool {
	w.Header().Set("Etag", etag)
	if !slices.Contains(strings.Split(r.Header.Get("If-None-Match"), ", "), etag) {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

func (d *discovery) has(path string) bool {
	_, ok := d.docs[path]
	return ok
}

// paths are those of all documents.
func (d *discovery) paths() []string {
	var out []string
	for path := range d.docs {
		out = append(out, path)
	}
	return out
}

func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request, path string) {
	w.Header().Add("Vary", "Accept")
	d := s.discovered()
	if doc, ok := d.aggregated[path]; ok {
		for _, a := range s.accepts.parse(r.Header.Get("Accept")) {
			if a.as.Kind == "" {
				break
			}
			body := doc.body[a.as.Version]
			if a.as.Group == apidiscoveryv2.GroupName && a.as.Kind == "APIGroupDiscoveryList" && body != nil && a.media == codec.JSON {
				s.sendAggregated(w, r, doc, body, a.as.Version)
				return
			}
		}
	}
	doc, ok := d.docs[path]
	if !ok {
		notFound(w) // since it was looked for
		return
	}
	out, err := s.negotiate(r, offer{media: codec.MediaTypes})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if unchanged(w, r, doc.etag) {
		return
	}
	s.writeValue(w, r, http.StatusOK, doc.obj, metav1.Unversioned.WithKind(doc.kind), out)
}

func (s *Server) sendAggregated(w http.ResponseWriter, r *http.Request, doc aggregatedDoc, body []byte, version string) {
	if unchanged(w, r, doc.etag) {
		return
	}
	contentType := string(codec.JSON) + ";g=" + apidiscoveryv2.GroupName + ";v=" + version + ";as=APIGroupDiscoveryList"
	auditOf(w).Answer(nil, func() ([]byte, error) { return body, nil })
	s.write(w, r, http.StatusOK, contentType, false, func(b []byte) ([]byte, error) { return append(b, body...), nil })
}
