package aggregation

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// discoverTimeout is how long a remote may take to say what it serves.
const discoverTimeout = 5 * time.Second

const aggregatedMedia = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// discover asks what the remote serves of its group-version: by aggregated
// discovery, or in the old form of servers that do not have that.
func (r *Remote) discover(ctx context.Context) (*apidiscoveryv2.APIVersionDiscovery, error) {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	got, err := r.get(ctx, prober, "/apis", aggregatedMedia, "")
	switch {
	case err != nil:
		return nil, err
	case got.code == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("service of %s returned non-success response code: %d", r.service.Name, got.code)
	case got.code == http.StatusOK && isAggregated(got.header.Get("Content-Type")):
		return aggregatedEntry(got.body, r.GroupVersion())
	}
	if got, err = r.get(ctx, prober, r.Discovery(), "application/json", ""); err != nil {
		return nil, err
	}
	if got.code != http.StatusOK {
		return nil, fmt.Errorf("failed to download legacy discovery for %s: %d", r.Discovery(), got.code)
	}
	return legacyEntry(got.body, r.GroupVersion())
}

func isAggregated(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json" && params["g"] == apidiscoveryv2.GroupName && params["v"] == "v2" && params["as"] == "APIGroupDiscoveryList"
}

// aggregatedEntry finds one group-version in a document of aggregated discovery;
// one that is not there is empty.
func aggregatedEntry(body []byte, gv schema.GroupVersion) (*apidiscoveryv2.APIVersionDiscovery, error) {
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode discovery: %w", err)
	}
	for _, g := range list.Items {
		for i := range g.Versions {
			if v := &g.Versions[i]; g.Name == gv.Group && v.Version == gv.Version {
				complete(v)
				return v, nil
			}
		}
	}
	return &apidiscoveryv2.APIVersionDiscovery{Version: gv.Version}, nil
}

// complete fills in what old clients take for granted.
func complete(v *apidiscoveryv2.APIVersionDiscovery) {
	for i := range v.Resources {
		r := &v.Resources[i]
		if r.ResponseKind == nil {
			r.ResponseKind = &metav1.GroupVersionKind{}
		}
		for j := range r.Subresources {
			if r.Subresources[j].ResponseKind == nil {
				r.Subresources[j].ResponseKind = &metav1.GroupVersionKind{}
			}
		}
	}
}

// legacyEntry makes an entry of a list of resources in the old form.
func legacyEntry(body []byte, gv schema.GroupVersion) (*apidiscoveryv2.APIVersionDiscovery, error) {
	var list metav1.APIResourceList
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode discovery: %w", err)
	}
	entry := &apidiscoveryv2.APIVersionDiscovery{Version: gv.Version}
	at := map[string]int{} // place of a resource in the entry
	place := func(name string) *apidiscoveryv2.APIResourceDiscovery {
		i, ok := at[name]
		if !ok {
			i = len(entry.Resources)
			at[name] = i
			entry.Resources = append(entry.Resources, apidiscoveryv2.APIResourceDiscovery{Resource: name, ResponseKind: &metav1.GroupVersionKind{}})
		}
		return &entry.Resources[i]
	}
	for _, a := range list.APIResources {
		kind := &metav1.GroupVersionKind{Group: a.Group, Version: a.Version, Kind: a.Kind}
		if a.Group == "" && a.Version == "" {
			kind.Group, kind.Version = gv.Group, gv.Version
		}
		name, sub, isSub := strings.Cut(a.Name, "/")
		r := place(name)
		if isSub {
			r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: a.Verbs})
			if r.Scope == "" {
				r.Scope = scopeOf(a.Namespaced)
			}
			continue
		}
		r.ResponseKind, r.Scope, r.SingularResource = kind, scopeOf(a.Namespaced), a.SingularName
		r.Verbs, r.ShortNames, r.Categories = a.Verbs, a.ShortNames, a.Categories
	}
	return entry, nil
}

func scopeOf(namespaced bool) apidiscoveryv2.ResourceScope {
	if namespaced {
		return apidiscoveryv2.ScopeNamespace
	}
	return apidiscoveryv2.ScopeCluster
}
