package bootstrap_test

import (
	"net/netip"
	"testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
)

func TestKubernetesService(t *testing.T) {
	view := authtest.New(t)
	service := bootstrap.KubernetesService(netip.MustParseAddr("10.43.0.1"), 6443)
	endpoints, slice := bootstrap.KubernetesEndpoints(6443, netip.MustParseAddr("192.0.2.8"), netip.MustParseAddr("192.0.2.7"))
	for _, obj := range []api.Object{service, endpoints, slice} {
		r := view.Of(obj)
		before := obj.DeepCopyObject().(api.Object)
		if r.Default != nil {
			r.Default(obj)
		}
		if errs := r.Validate(obj); len(errs) > 0 {
			t.Errorf("%s: %v\n%v", api.RefTo(r, obj), errs.ToAggregate(), before)
		}
	}
	if got := endpoints.Subsets[0].Addresses[0].IP; got != "192.0.2.7" {
		t.Errorf("the first address is %s", got)
	}
	if len(slice.Endpoints) != 2 || service.Spec.Ports[0].TargetPort.IntVal != 6443 {
		t.Errorf("%v %v", slice.Endpoints, service.Spec.Ports)
	}
	none, _ := bootstrap.KubernetesEndpoints(6443)
	if len(none.Subsets) != 0 {
		t.Errorf("without servers there are subsets: %v", none.Subsets)
	}
}
