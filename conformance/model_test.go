package conformance

import (
	"net/http"
	"testing"

	"hansa.dev/hansa/apiserver/http/modeltest"
)

// The program does as the model does, over etcd and with its loops at work.
func TestModel(t *testing.T) {
	ns := namespace(t)
	eventually(t, "pods have an account", func() bool { return !gone(t, "serviceaccounts", ns, "default") })
	modeltest.Test(t, modeltest.Server{
		URL:       admin.config.Host,
		Client:    admin.http,
		Namespace: ns,
		Node:      ghost(t),
		Loops:     true,
		Steps:     15,
	})
}

// So does the API alone, where nobody else writes to deployments.
func TestModelOfTheAPIAlone(t *testing.T) {
	t.Parallel()
	p := startPlane(t)
	root := p.as(t, "admin", "system:masters")
	root.want(t, http.StatusCreated, call{method: "POST", path: "/api/v1/nodes", body: "metadata: {name: ghost}"}, nil)
	modeltest.Test(t, modeltest.Server{
		URL:       root.config.Host,
		Client:    root.http,
		Namespace: "default",
		Node:      "ghost",
		Steps:     15,
	})
}
