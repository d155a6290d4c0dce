package http_test

import (
	"testing"

	"hansa.dev/hansa/apiserver/fairness"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/informers"
)

// newFilter runs priority and fairness over a handler's own objects.
func newFilter(t testing.TB, h *request.Handler, seats int) *fairness.Filter {
	t.Helper()
	c := direct.New(h, requesttest.Admin, "test")
	factory := informers.New(h.Registry, c.View())
	f, err := fairness.New(fairness.Config{
		Registry: h.Registry, Informers: factory, Writer: c, Size: h.Store.View().Size, Seats: seats,
	})
	if err != nil {
		t.Fatal(err)
	}
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSyncWithContext(t.Context())
	go f.Run(t.Context()) //nolint:errcheck // it ends with the test
	return f
}
