package http_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// The words of each refusal are those that a client shows to people: the router of
// built-in groups has one sentence for each status and names nothing, what nobody
// knows is a text (k8s.io/apiserver/pkg/server/handler.go, and the order in which
// the aggregator, the built-in groups and definitions look at a path).
func TestRefusedPathsAndMethods(t *testing.T) {
	const (
		text     = "404 page not found"
		resource = `404 {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}`
		method   = `405 {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server does not allow this method on the requested resource","reason":"MethodNotAllowed","details":{},"code":405}`
		watching = `405 {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"watch is not supported on resources of kind \"componentstatuses\"","reason":"MethodNotAllowed","details":{"kind":"componentstatuses"},"code":405}`
		serves   = "200"
	)
	c := newCluster(t, nil)
	c.createConfigMap("have")
	for request, want := range map[string]string{
		// of no group that there is
		"GET /nonsense": text, "POST /nonsense": text, "GET /apis/x": text, "GET /apis/x/v1": text, "GET /apis/x/v1/y": text, "POST /apis/x/v1/y": text,
		"GET /openapi/v4": text, "GET /healthz/nonsense": text, "GET /index.htm": text,
		// of a group
		"GET /api/v2": resource, "GET /api/v2/pods": resource, "GET /apis/apps/v2": resource, "GET /apis/apps/v2/deployments": resource, "GET /apis/apps/v1/nonsense": resource,
		"GET /api/v1/nonsense": resource, "DELETE /api/v1/nonsense/x": resource, "GET /version/x": resource,
		// of another scope, by a name that does not go with it, of no such subresource
		"GET /api/v1/pods/p": resource, "GET /api/v1/namespaces/default/nodes": resource, "GET /api/v1/namespaces/default/nodes/n": resource,
		"GET " + configMaps + "/have/nonsense": resource, "GET " + configMaps + "/have/status": resource, "GET /api/v1/namespaces/default/pods/p/log/x": resource,
		"GET /api/v1/bindings": resource, "GET /apis/authentication.k8s.io/v1/tokenreviews/x": resource, "POST /apis/authorization.k8s.io/v1/localsubjectaccessreviews": resource,
		"GET /api/v1/watch/componentstatuses": resource, "GET /api/v1/watch/pods/p": resource, "GET /api/v1/watch/namespaces/default/pods/p/status": resource,
		// What a role in one namespace allows is no door to another.
		"GET /api/v1/namespaces/other/namespaces": resource, "GET /api/v1/namespaces/other/namespaces/default": resource, "DELETE /api/v1/namespaces/other/namespaces/default": resource,
		"PUT /api/v1/namespaces/other/namespaces/default/finalize": resource,
		// without the verb
		"POST " + configMaps + "/have": method, "PUT " + configMaps: method, "PATCH " + configMaps: method, "POST /api/v1/configmaps": method, "DELETE /api/v1/configmaps": method,
		"DELETE /api/v1/namespaces": method, "GET /apis/authentication.k8s.io/v1/tokenreviews": method, "GET /api/v1/namespaces/default/bindings": method, "POST /api/v1/componentstatuses": method,
		"DELETE /apis/apps/v1/namespaces/default/deployments/d/status": method, "POST /apis/apps/v1/namespaces/default/deployments/d/scale": method, "GET /api/v1/namespaces/default/pods/p/binding": method,
		"PUT /api/v1/namespaces/default/pods/p/eviction": method, "POST /api/v1/watch/pods": method, "FETCH /api/v1/pods": method, "GET /api/v1/componentstatuses?watch=1": watching,
		"HEAD /api/v1/pods": "405", "HEAD " + configMaps + "/have": "405", "HEAD /api/v1/nonsense": "404", "HEAD /api": "405", "HEAD /api/v1": "405", "HEAD /apis/apps/v1": "405", "HEAD /version": "405",
		"POST /api": method, "POST /api/v1": method, "DELETE /apis/apps/v1": method, "PUT /version": method,
		// by who is not of the router
		"HEAD /apis": serves, "HEAD /apis/apps": serves, "HEAD /livez/ping": serves, "HEAD /openapi/v2": serves,
		"POST /healthz": "200 ok", "DELETE /livez/ping": "200 ok",
	} {
		verb, path, _ := strings.Cut(request, " ")
		a := c.do(call{method: verb, path: path, body: map[string]string{"POST": "{}", "PUT": "{}", "PATCH": "{}"}[verb]})
		got := strings.TrimSpace(string(a.body))
		if got != text {
			got = strings.TrimSpace(strconv.Itoa(a.code) + " " + got)
		}
		if got != want {
			t.Errorf("%s\n  is   %s\n  want %s", request, got, want)
		}
	}
}

// Who may not ask is told just that, whatever there would be to refuse.
func TestRefusedBeforeAuthorized(t *testing.T) {
	c := newCluster(t, nil)
	for _, in := range []call{
		{path: "/apis/apps/v1/nonsense"}, {method: "POST", path: configMaps + "/x", body: "{}"}, {method: "HEAD", path: "/api/v1/pods"},
		{path: "/api/v1/namespaces/other/namespaces/default"}, {path: "/apis/apps/v9"},
	} {
		in.token = "u"
		if a := c.do(in); a.code != http.StatusForbidden {
			t.Errorf("%s %s: %d", in.method, in.path, a.code)
		}
	}
}

// A refusal comes in the form that the client takes, in JSON if there is none.
func TestFormOfRefusal(t *testing.T) {
	c := newCluster(t, nil)
	for accept, want := range map[string]string{
		"": "application/json", "application/yaml": "application/yaml", "application/vnd.kubernetes.protobuf": "application/vnd.kubernetes.protobuf", "text/html": "application/json",
	} {
		a := c.do(call{path: "/api/v1/nonsense", accept: accept})
		if got := a.header.Get("Content-Type"); a.code != http.StatusNotFound || got != want {
			t.Errorf("for %q: %d in %s, want %s", accept, a.code, got, want)
		}
	}
}
