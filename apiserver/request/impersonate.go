package request

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Impersonate answers whom a request is made as: u, who must be allowed to
// impersonate every part of the identity as. Groups that follow from the name
// need no leave.
func (h *Handler) Impersonate(ctx context.Context, u user.Info, as *user.DefaultInfo) (user.Info, error) {
	if as.Name == "" {
		return nil, apierrors.NewBadRequest("groups, UID or extra fields can be impersonated together with a user only")
	}
	for _, a := range impersonations(u, as) {
		if err := h.authorize(ctx, a); err != nil {
			return nil, err
		}
	}
	out := *as
	if namespace, _, err := serviceaccount.SplitUsername(as.Name); err == nil && len(as.Groups) == 0 {
		out.Groups = serviceaccount.MakeGroupNames(namespace)
	}
	everybody := user.AllAuthenticated
	if as.Name == user.Anonymous {
		everybody = user.AllUnauthenticated
	}
	for _, g := range out.Groups {
		if g == user.AllAuthenticated || g == user.AllUnauthenticated {
			return &out, nil
		}
	}
	out.Groups = append(out.Groups[:len(out.Groups):len(out.Groups)], everybody)
	return &out, nil
}

// impersonations are the questions to the authorizer, one for each part.
func impersonations(u user.Info, as *user.DefaultInfo) []*authorizer.AttributesRecord {
	const authentication = "authentication.k8s.io"
	ask := func(group, resource, name string) *authorizer.AttributesRecord {
		return &authorizer.AttributesRecord{
			User: u, Verb: "impersonate", APIGroup: group, APIVersion: "v1", Resource: resource, Name: name, ResourceRequest: true,
		}
	}
	var all []*authorizer.AttributesRecord
	if namespace, name, err := serviceaccount.SplitUsername(as.Name); err == nil {
		a := ask("", "serviceaccounts", name)
		a.Namespace = namespace
		all = append(all, a)
	} else {
		all = append(all, ask("", "users", as.Name))
	}
	if as.UID != "" {
		all = append(all, ask(authentication, "uids", as.UID))
	}
	for _, g := range as.Groups {
		all = append(all, ask("", "groups", g))
	}
	for key, values := range as.Extra {
		for _, v := range values {
			a := ask(authentication, "userextras", v)
			a.Subresource = key
			all = append(all, a)
		}
	}
	return all
}
