package http_test

import (
	"context"
	"net/http"
	"testing"

	"hansa.dev/hansa/apiserver/http/modeltest"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
)

// withToken gives every request the credentials of the administrator.
type withToken struct{ http.RoundTripper }

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer admin")
	return w.RoundTripper.RoundTrip(r)
}

// Random operations leave what a simple model says.
func TestModel(t *testing.T) {
	c := newCluster(t, nil)
	door := direct.New(c.requests, requesttest.Admin, "batch")
	modeltest.Test(t, modeltest.Server{
		URL:       c.URL,
		Client:    &http.Client{Transport: withToken{c.Client().Transport}},
		Namespace: "default",
		Node:      "node",
		Steps:     30,
		Batch: func(ctx context.Context, writes []modeltest.Write) []modeltest.Result {
			all := make([]client.Write, len(writes))
			for i, w := range writes {
				all[i] = client.Write{Resource: w.Resource, Create: w.Create, Update: w.Update, Subresource: w.Subresource}
			}
			results := make([]modeltest.Result, len(writes))
			for i, r := range door.Batch(ctx, all) {
				results[i] = modeltest.Result(r)
			}
			return results
		},
	})
}
