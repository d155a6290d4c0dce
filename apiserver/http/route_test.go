package http

import "testing"

// https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
func TestParsePath(t *testing.T) {
	for path, want := range map[string]target{
		"/":                               {},
		"/api/v1":                         {version: "v1"},
		"/apis/apps":                      {},
		"/apis/apps/v1":                   {group: "apps", version: "v1"},
		"/healthz":                        {},
		"/api/v1/pods":                    {resource: true, version: "v1", plural: "pods"},
		"/api/v1/nodes/n":                 {resource: true, version: "v1", plural: "nodes", name: "n"},
		"/api/v1/namespaces":              {resource: true, version: "v1", plural: "namespaces"},
		"/api/v1/namespaces/":             {resource: true, version: "v1", plural: "namespaces"},
		"/api/v1/namespaces/x":            {resource: true, version: "v1", namespace: "x", plural: "namespaces", name: "x"},
		"/api/v1/namespaces/x/finalize":   {resource: true, version: "v1", namespace: "x", plural: "namespaces", name: "x", sub: "finalize"},
		"/api/v1/namespaces/x/pods":       {resource: true, version: "v1", namespace: "x", plural: "pods"},
		"/api/v1/namespaces/x/pods/p/":    {resource: true, version: "v1", namespace: "x", plural: "pods", name: "p"},
		"/api/v1/namespaces/x/pods/p/log": {resource: true, version: "v1", namespace: "x", plural: "pods", name: "p", sub: "log"},
		"/api/v1/nodes/n/proxy/a/b/":      {resource: true, version: "v1", plural: "nodes", name: "n", sub: "proxy", rest: "/a/b/"},
		"/api/v1/watch/pods":              {resource: true, version: "v1", plural: "pods", watch: true},
		"/apis/apps/v1/watch/namespaces/x/deployments": {
			resource: true, group: "apps", version: "v1", namespace: "x", plural: "deployments", watch: true,
		},
	} {
		got := parsePath(path)
		// A version without a resource is one of the server's own paths.
		if !got.resource {
			got, want.group, want.version = target{}, "", ""
		}
		if got != want {
			t.Errorf("%s is %+v, want %+v", path, got, want)
		}
	}
}
