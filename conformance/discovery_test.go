package conformance

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
)

// servedResource is one entry of legacy discovery.
type servedResource struct {
	metav1.APIResource
	groupVersion string
}

var discovered []servedResource

// resources lists everything served, subresources too, by legacy discovery.
func resources(t *testing.T) []servedResource {
	t.Helper()
	if discovered != nil {
		return discovered
	}
	paths := []string{"/api/v1"}
	var groupList metav1.APIGroupList
	admin.want(t, http.StatusOK, call{path: "/apis", accept: "application/json"}, &groupList)
	for _, g := range groupList.Groups {
		for _, v := range g.Versions {
			paths = append(paths, "/apis/"+v.GroupVersion)
		}
	}
	var all []servedResource
	for _, path := range paths {
		var list metav1.APIResourceList
		admin.want(t, http.StatusOK, call{path: path}, &list)
		for _, r := range list.APIResources {
			all = append(all, servedResource{r, list.GroupVersion})
		}
	}
	discovered = all
	return all
}

// The API server serves the kinds that SCOPE.md lists, and no others.
func TestServedKinds(t *testing.T) {
	var got []string
	for _, r := range resources(t) {
		if !strings.Contains(r.Name, "/") {
			got = append(got, r.groupVersion+" "+r.Kind)
		}
	}
	slices.Sort(got)
	want := scopeOf(t).served
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("served differs from SCOPE.md (-want +got):\n%s", diff)
	}
	for _, path := range []string{"/apis/apiextensions.k8s.io/v1beta1", "/apis/admissionregistration.k8s.io/v1beta1", "/apis/apps/v1/petsets", "/apis/apps/v1beta1", "/apis/storage.k8s.io/v1beta1"} {
		if a := admin.do(t, call{path: path}); a.code != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.code)
		}
	}
}

// "Discovery API": aggregated documents and the legacy ones say the same, every
// group has a preferred version that has resources.
func TestAggregatedDiscoveryAgreesWithLegacy(t *testing.T) {
	legacy := map[string]bool{}
	for _, r := range resources(t) {
		verbs := slices.Sorted(slices.Values(r.Verbs))
		legacy[r.groupVersion+" "+r.Name+" "+strings.Join(verbs, ",")] = true
		// A metrics server gives its resources no singular names.
		singular := r.SingularName != "" || strings.Contains(r.Name, "/") || strings.HasPrefix(r.groupVersion, "metrics.k8s.io/")
		if r.Kind == "" || len(r.Verbs) == 0 || !singular {
			t.Errorf("%s %s is described as %+v", r.groupVersion, r.Name, r.APIResource)
		}
	}
	count := 0
	for _, path := range []string{"/api", "/apis"} {
		var list apidiscoveryv2.APIGroupDiscoveryList
		a := admin.want(t, http.StatusOK, call{path: path, accept: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"}, &list)
		if got := a.header.Get("Content-Type"); got != "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" {
			t.Errorf("content type is %s", got)
		}
		if list.Kind != "APIGroupDiscoveryList" || list.APIVersion != "apidiscovery.k8s.io/v2" {
			t.Errorf("document is %s of %s", list.Kind, list.APIVersion)
		}
		for _, g := range list.Items {
			for _, v := range g.Versions {
				gv := strings.TrimPrefix(g.Name+"/"+v.Version, "/")
				if v.Freshness != apidiscoveryv2.DiscoveryFreshnessCurrent || len(v.Resources) == 0 {
					t.Errorf("%s is %s with %d resources", gv, v.Freshness, len(v.Resources))
				}
				for _, r := range v.Resources {
					names := []string{gv + " " + r.Resource + " " + strings.Join(slices.Sorted(slices.Values(r.Verbs)), ",")}
					for _, s := range r.Subresources {
						names = append(names, gv+" "+r.Resource+"/"+s.Subresource+" "+strings.Join(slices.Sorted(slices.Values(s.Verbs)), ","))
					}
					for _, name := range names {
						if count++; !legacy[name] {
							t.Errorf("legacy discovery has no %s", name)
						}
					}
				}
			}
		}
	}
	if count != len(legacy) {
		t.Errorf("%d resources are aggregated, %d in legacy discovery", count, len(legacy))
	}
}

// What is said of the kinds is what Kubernetes says of them (api/discovery of its
// source).
func TestDiscoveryIsThatOfKubernetes(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "discovery.golden"))
	if err != nil {
		t.Fatal(err)
	}
	// Definitions are stored as v1 and not as v1beta1, by whose hash they are known
	// there.
	want := strings.Replace(string(data), "hash=jfWCUB31mvA=", "hash=M5uH+AlWATY=", 1)
	var got strings.Builder
	var all metav1.APIGroupList
	admin.want(t, http.StatusOK, call{path: "/apis", accept: "application/json"}, &all)
	for _, g := range all.Groups {
		if !notOfKubernetes(g.Name) {
			var versions []string
			for _, v := range g.Versions {
				versions = append(versions, v.GroupVersion)
			}
			fmt.Fprintf(&got, "%s: %s preferred=%s\n", g.Name, strings.Join(versions, " "), g.PreferredVersion.GroupVersion)
		}
	}
	kinds := slices.Clone(resources(t))
	slices.SortStableFunc(kinds, func(a, b servedResource) int { return strings.Compare(a.groupVersion, b.groupVersion) })
	for _, r := range kinds {
		if group, _, _ := strings.Cut(r.groupVersion, "/"); !notOfKubernetes(group) {
			fmt.Fprintln(&got, r.describe())
		}
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("discovery (-Kubernetes +ours):\n%s", diff)
	}
}

// notOfKubernetes says of a group that kube-apiserver does not serve it: metrics,
// and custom resources.
func notOfKubernetes(group string) bool {
	return group == "metrics.k8s.io" || strings.HasSuffix(group, ".dev") || strings.HasSuffix(group, "example.com")
}

// describe is the entry as the golden file has it.
func (r servedResource) describe() string {
	words := []string{r.groupVersion, r.Name + ":", r.Kind}
	if r.Version != "" {
		words[2] = strings.TrimPrefix(r.Group+"/"+r.Version, "/") + " " + r.Kind
	}
	if r.SingularName != "" {
		words = append(words, r.SingularName)
	}
	scope := "cluster"
	if r.Namespaced {
		scope = "namespaced"
	}
	words = append(words, scope)
	for _, list := range []struct {
		name  string
		items []string
	}{{"short", r.ShortNames}, {"categories", r.Categories}, {"verbs", r.Verbs}} {
		if len(list.items) > 0 {
			words = append(words, list.name+"="+strings.Join(list.items, ","))
		}
	}
	if r.StorageVersionHash != "" {
		words = append(words, "hash="+r.StorageVersionHash)
	}
	return strings.Join(words, " ")
}

// Discovery, aggregated and plain, is cached by its ETag.
func TestDiscoveryETag(t *testing.T) {
	const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	for path, accept := range map[string]string{
		"/api": aggregated, "/apis": aggregated,
		"/api?": "application/json", "/apis?": "application/json", "/apis/apps": "application/json",
		"/api/v1": "application/json", "/apis/apps/v1": "application/vnd.kubernetes.protobuf",
	} {
		first := admin.want(t, http.StatusOK, call{path: path, accept: accept}, nil)
		tag := first.header.Get("ETag")
		if tag == "" || !strings.Contains(strings.Join(first.header.Values("Vary"), ","), "Accept") {
			t.Fatalf("%s: ETag %q, Vary %q", path, tag, first.header.Values("Vary"))
		}
		again := admin.do(t, call{path: path, accept: accept, header: map[string]string{"If-None-Match": tag}})
		if again.code != http.StatusNotModified || len(again.body) != 0 || again.header.Get("ETag") != tag {
			t.Errorf("%s with the tag: %d, %d bytes", path, again.code, len(again.body))
		}
		if other := admin.do(t, call{path: path, accept: accept, header: map[string]string{"If-None-Match": `"other"`}}); other.code != http.StatusOK {
			t.Errorf("%s with another tag: %d", path, other.code)
		}
	}
}

// Every form of discovery: legacy lists, single groups, protobuf, what clients
// ask for that prefer what is not served.
func TestDiscoveryForms(t *testing.T) {
	var versions metav1.APIVersions
	admin.want(t, http.StatusOK, call{path: "/api", accept: "application/json"}, &versions)
	if !slices.Equal(versions.Versions, []string{"v1"}) || len(versions.ServerAddressByClientCIDRs) != 1 || versions.Kind != "APIVersions" {
		t.Errorf("/api is %+v", versions)
	}
	var group metav1.APIGroup
	admin.want(t, http.StatusOK, call{path: "/apis/apps"}, &group)
	if group.Kind != "APIGroup" || group.Name != "apps" || group.PreferredVersion.GroupVersion != "apps/v1" {
		t.Errorf("/apis/apps is %+v", group)
	}
	var all metav1.APIGroupList
	admin.want(t, http.StatusOK, call{path: "/apis", accept: "application/json"}, &all)
	for _, g := range all.Groups {
		if !slices.Contains(g.Versions, g.PreferredVersion) || g.PreferredVersion.GroupVersion != g.Name+"/"+g.PreferredVersion.Version {
			t.Errorf("%s prefers %v of %v", g.Name, g.PreferredVersion, g.Versions)
		}
		var one metav1.APIGroup
		admin.want(t, http.StatusOK, call{path: "/apis/" + g.Name}, &one)
		one.TypeMeta = g.TypeMeta
		if diff := cmp.Diff(g, one); diff != "" {
			t.Errorf("/apis/%s differs from its entry of /apis (-entry +own):\n%s", g.Name, diff)
		}
	}
	if len(all.Groups) < 20 {
		t.Errorf("only %d groups", len(all.Groups))
	}
	for _, accept := range []string{
		"application/vnd.kubernetes.protobuf",
		"application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json",
		"application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
		"application/yaml", "*/*", "",
	} {
		if a := admin.do(t, call{path: "/apis", accept: accept}); a.code != http.StatusOK {
			t.Errorf("%s: %d", accept, a.code)
		}
	}
	admin.do(t, call{path: "/apis", accept: "text/html"}).refused(t, http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "only the following media types are accepted")
	client, err := discovery.NewDiscoveryClientForConfig(admin.config)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil || len(lists) != 24 {
		t.Errorf("client-go discovers %d group-versions: %v", len(lists), err)
	}
	info, err := client.ServerVersion()
	if err != nil || info.Major != "1" || info.Minor != "37" || !strings.HasPrefix(info.GitVersion, "v1.37.2+hansa.") {
		t.Errorf("version is %+v, %v", info, err)
	}
}
