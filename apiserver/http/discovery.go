package http

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
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
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/aggregation"
	"hansa.dev/hansa/apiserver/request/codec"
)

// discovery tells what is served, in the old form (a list for each
// group-version) and in the aggregated one. Immutable: when other kinds are served,
// another one is built for the first who asks.
type discovery struct {
	until    <-chan struct{} // closed when it is out of date
	others   *aggregation.State
	groups   []string // "" first, in order of preference
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

// discovered is what there is to discover now.
func (s *Server) discovered() *discovery {
	d := s.discovery.Load()
	if d != nil && !d.over() {
		return d
	}
	s.discovering.Lock()
	defer s.discovering.Unlock()
	if d = s.discovery.Load(); d == nil || d.over() {
		d = newDiscovery(s.Registry, s.Aggregation.State(), s.Address)
		s.discovery.Store(d)
	}
	return d
}

func (d *discovery) over() bool { return over(d.until) || over(d.others.Ended()) }

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func newDiscovery(registry *api.Registry, others *aggregation.State, address string) *discovery {
	d := &discovery{until: registry.Changed(), others: others, versions: map[string][]schema.GroupVersion{}, docs: map[string]discoveryDoc{}}
	resources := map[schema.GroupVersion][]*api.Served{}
	remotes := others.Remotes()
	for gv := range remotes {
		d.versions[gv.Group] = append(d.versions[gv.Group], gv)
	}
	for _, served := range registry.Served() {
		gv := served.Version.GroupVersion
		if remotes[gv] != nil {
			continue
		}
		if resources[gv] == nil {
			d.versions[gv.Group] = append(d.versions[gv.Group], gv)
		}
		resources[gv] = append(resources[gv], served)
	}
	for group, list := range d.versions {
		slices.SortFunc(list, func(a, b schema.GroupVersion) int {
			if d := others.Priority(b).Version - others.Priority(a).Version; d != 0 {
				return int(d)
			}
			return -version.CompareKubeAwareVersionStrings(a.Version, b.Version)
		})
		d.groups = append(d.groups, group)
	}
	for _, list := range resources {
		sort.Slice(list, func(i, j int) bool { return list[i].Plural < list[j].Plural })
	}
	d.sort(func(group string) string { return d.first(group) })
	d.buildLegacy(resources, address)
	d.sort(func(group string) string { return group })
	d.buildAggregated(resources)
	return d
}

// sort brings the groups into the order in which clients should look for a kind
// that several have: by the highest priority of their versions, and where that is
// the same by a key.
func (d *discovery) sort(key func(group string) string) {
	slices.SortFunc(d.groups, func(a, b string) int {
		if d := d.priority(b) - d.priority(a); d != 0 {
			return int(d)
		}
		return strings.Compare(key(a), key(b))
	})
}

func (d *discovery) priority(group string) (most int32) {
	for _, gv := range d.versions[group] {
		most = max(most, d.others.Priority(gv).Group)
	}
	return most
}

// first is the name of the APIService that brings a group to its place, by which
// the old form of discovery orders groups of the same priority.
func (d *discovery) first(group string) string {
	name := ""
	for _, gv := range d.versions[group] {
		if s := kinds.APIServiceName(gv); d.others.Priority(gv).Group == d.priority(group) && (name == "" || s < name) {
			name = s
		}
	}
	return name
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
			StorageVersionHash: storageVersionHash(s.Resource),
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

// storageVersionHash tells a client that a resource is stored in another version
// than before. It is empty for what is not stored.
func storageVersionHash(r *api.Resource) string {
	if r.Prefix == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(r.Storage.Group + "/" + r.Storage.Version + "/" + r.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
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
			if remote := d.others.Remotes()[gv]; remote != nil {
				if entry := remote.Entry(); entry != nil { // else it is being asked
					group.Versions = append(group.Versions, *entry)
				}
				continue
			}
			v := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
			for _, s := range resources[gv] {
				v.Resources = append(v.Resources, aggregatedResource(s))
			}
			group.Versions = append(group.Versions, v)
		}
		switch {
		case len(group.Versions) == 0:
		case name == "":
			core = append(core, group)
		default:
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
	for gv := range d.others.Remotes() {
		out = append(out, versionPath(gv))
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
	gvk := metav1.Unversioned.WithKind(doc.kind)
	if doc.kind == "APIVersions" {
		gvk.Version = "" // it is older than versions
	}
	s.writeValue(w, r, http.StatusOK, doc.obj, gvk, out)
}

func (s *Server) sendAggregated(w http.ResponseWriter, r *http.Request, doc aggregatedDoc, body []byte, version string) {
	if unchanged(w, r, doc.etag) {
		return
	}
	contentType := string(codec.JSON) + ";g=" + apidiscoveryv2.GroupName + ";v=" + version + ";as=APIGroupDiscoveryList"
	auditOf(w).Answer(nil, func() ([]byte, error) { return body, nil })
	s.write(w, r, http.StatusOK, contentType, false, func(b []byte) ([]byte, error) { return append(b, body...), nil })
}
