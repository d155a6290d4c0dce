package aggregation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/request"
)

// Contents deletes what remote servers have in namespaces, as somebody who is
// authorized for each deletion.
type Contents struct {
	Server     *Server
	As         user.Info
	Authorizer authorizer.Authorizer
}

// Unknown are the remote group-versions whose servers do not say what they serve,
// in the words of clients that find out.
func (c *Contents) Unknown() []string {
	var out []string
	for gv, r := range c.Server.State().Remotes() {
		if e := r.Entry(); e == nil || e.Freshness != apidiscoveryv2.DiscoveryFreshnessCurrent {
			out = append(out, fmt.Sprintf("%[1]s: stale GroupVersion discovery: %[1]s", gv))
		}
	}
	slices.Sort(out)
	return out
}

// emptyTimeout is how long a remote may take to delete what it has of one kind.
const emptyTimeout = 30 * time.Second

// Empty deletes what remote servers have in a namespace, and counts what is left.
func (c *Contents) Empty(ctx context.Context, namespace string) (kinds, finalizers map[string]int, err error) {
	kinds, finalizers = map[string]int{}, map[string]int{}
	remotes := c.Server.State().Remotes()
	byName := func(a, b schema.GroupVersion) int { return strings.Compare(a.String(), b.String()) }
	var failed []error
	for _, gv := range slices.SortedFunc(maps.Keys(remotes), byName) {
		r := remotes[gv]
		if r.Entry() == nil {
			continue
		}
		for _, res := range r.Entry().Resources {
			if res.Scope != apidiscoveryv2.ScopeNamespace || !slices.Contains(res.Verbs, "delete") || !slices.Contains(res.Verbs, "list") {
				continue
			}
			list, err := c.clear(ctx, r, res, namespace)
			if err != nil {
				failed = append(failed, fmt.Errorf("empty %s of %s: %w", res.Resource, gv, err))
				continue
			}
			for _, o := range list.Items {
				kinds[res.Resource+"."+gv.Group]++
				for _, f := range o.Finalizers {
					finalizers[f]++
				}
			}
		}
	}
	return kinds, finalizers, errors.Join(failed...)
}

// clear deletes all objects of one resource, and answers with those left.
func (c *Contents) clear(ctx context.Context, r *Remote, res apidiscoveryv2.APIResourceDiscovery, namespace string) (*metav1.PartialObjectMetadataList, error) {
	ctx, cancel := context.WithTimeout(ctx, emptyTimeout)
	defer cancel()
	at := r.Discovery() + "/namespaces/" + namespace + "/" + res.Resource
	list, err := c.list(ctx, r, res, namespace, at)
	if err != nil || len(list.Items) == 0 {
		return list, err
	}
	if slices.Contains(res.Verbs, "deletecollection") {
		err = c.delete(ctx, r, "deletecollection", res, namespace, "", at)
	} else {
		for _, o := range list.Items {
			if err = c.delete(ctx, r, "delete", res, namespace, o.Name, at+"/"+o.Name); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return c.list(ctx, r, res, namespace, at)
}

func (c *Contents) list(ctx context.Context, r *Remote, res apidiscoveryv2.APIResourceDiscovery, namespace, at string) (*metav1.PartialObjectMetadataList, error) {
	got, err := c.do(ctx, r, http.MethodGet, "list", res, namespace, "", at)
	if err != nil {
		return nil, err
	}
	list := &metav1.PartialObjectMetadataList{}
	if err := json.Unmarshal(got.body, list); err != nil {
		return nil, fmt.Errorf("decode list: %w", err)
	}
	return list, nil
}

func (c *Contents) delete(ctx context.Context, r *Remote, verb string, res apidiscoveryv2.APIResourceDiscovery, namespace, name, at string) error {
	_, err := c.do(ctx, r, http.MethodDelete, verb, res, namespace, name, at)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// do asks the remote for something that is allowed. Refusals are API status
// errors.
func (c *Contents) do(ctx context.Context, r *Remote, method, verb string, res apidiscoveryv2.APIResourceDiscovery, namespace, name, at string) (*reply, error) {
	gv := r.GroupVersion()
	if err := request.Ask(ctx, c.Authorizer, &authorizer.AttributesRecord{
		User: c.As, Verb: verb, Namespace: namespace, APIGroup: gv.Group, APIVersion: gv.Version,
		Resource: res.Resource, Name: name, ResourceRequest: true, Path: at,
	}); err != nil {
		return nil, err
	}
	as := identity{name: c.As.GetName(), groups: c.As.GetGroups()}
	got, err := r.do(ctx, method, as, at, "", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json", "")
	if err != nil {
		return nil, err
	}
	if got.code < http.StatusOK || got.code >= http.StatusMultipleChoices {
		return nil, apierrors.NewGenericServerResponse(got.code, method, gv.WithResource(res.Resource).GroupResource(), name, strings.TrimSpace(string(got.body[:min(len(got.body), 1024)])), 0, true)
	}
	return got, nil
}
