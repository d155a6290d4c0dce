package aggregation

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/request"
)

// Reader reads from remote servers, as somebody who is authorized for it.
type Reader struct {
	Server     *Server
	As         user.Info
	Authorizer authorizer.Authorizer
}

// readTimeout is how long a remote may take to answer a Reader.
const readTimeout = 30 * time.Second

// Serves says whether another server answers for a group-version.
func (r *Reader) Serves(gv schema.GroupVersion) bool { return r.Server.Remote(gv) != nil }

// Get asks for a path within a namespace: RESOURCE[/NAME[/SUBRESOURCE]]. Errors
// are API status errors.
func (r *Reader) Get(ctx context.Context, gv schema.GroupVersion, namespace string, path []string, query url.Values) ([]byte, error) {
	a := &authorizer.AttributesRecord{
		User: r.As, Verb: "list", Namespace: namespace, APIGroup: gv.Group, APIVersion: gv.Version, Resource: path[0], ResourceRequest: true,
		Path: "/apis/" + gv.String() + "/namespaces/" + namespace + "/" + strings.Join(path, "/"),
	}
	if len(path) > 1 {
		a.Verb, a.Name = "get", path[1]
	}
	if len(path) > 2 {
		a.Subresource = path[2]
	}
	gr := gv.WithResource(path[0]).GroupResource()
	remote := r.Server.Remote(gv)
	switch {
	case remote == nil:
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, "get", gr, a.Name, "", 0, true)
	case !remote.Available():
		return nil, apierrors.NewServiceUnavailable("the server is currently unable to handle the request")
	}
	if err := request.Ask(ctx, r.Authorizer, a); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	got, err := remote.do(ctx, http.MethodGet, identity{name: r.As.GetName(), groups: r.As.GetGroups()}, a.Path, query.Encode(), "application/json", "")
	if err != nil {
		return nil, err
	}
	if got.code >= http.StatusOK && got.code < http.StatusMultipleChoices {
		return got.body, nil
	}
	var status metav1.Status
	if json.Unmarshal(got.body, &status) == nil && status.Kind == "Status" && status.Message != "" {
		return nil, &apierrors.StatusError{ErrStatus: status}
	}
	return nil, apierrors.NewGenericServerResponse(got.code, "get", gr, a.Name, strings.TrimSpace(string(got.body[:min(len(got.body), 1024)])), 0, true)
}
