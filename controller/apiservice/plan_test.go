package apiservice

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"
)

var gv = schema.GroupVersion{Group: "example.com", Version: "v1"}

func changed(s *apiregistrationv1.APIService) *apiregistrationv1.APIService {
	s.Spec.VersionPriority++
	return s
}

// The table of Kubernetes' autoregister controller (checkAPIService), cell by cell.
func TestRegister(t *testing.T) {
	theirs := func() *apiregistrationv1.APIService {
		s := changed(wanted(gv, onStart))
		s.Labels = nil
		return s
	}
	for _, c := range []struct {
		name       string
		want, have *apiregistrationv1.APIService
		had, done  bool
		does       string
	}{
		{"neither", nil, nil, false, false, ""},
		{"missing at start", wanted(gv, onStart), nil, false, false, "create"},
		{"missing after start", wanted(gv, onStart), nil, true, true, ""},
		{"missing", wanted(gv, always), nil, true, true, "create"},
		{"somebody's, unwanted", nil, theirs(), true, false, ""},
		{"somebody's, wanted at start", wanted(gv, onStart), theirs(), true, false, ""},
		{"somebody's, wanted always", wanted(gv, always), theirs(), true, false, ""},
		{"made later, unwanted", nil, changed(wanted(gv, onStart)), false, false, ""},
		{"made later, wanted at start", wanted(gv, onStart), changed(wanted(gv, onStart)), false, false, ""},
		{"made later, wanted always", wanted(gv, always), changed(wanted(gv, onStart)), false, false, ""},
		{"at start, unwanted", nil, wanted(gv, onStart), true, false, "remove"},
		{"at start, unwanted, again", nil, wanted(gv, onStart), true, true, ""},
		{"at start, other", wanted(gv, onStart), changed(wanted(gv, onStart)), true, false, "update"},
		{"at start, other, again", wanted(gv, onStart), changed(wanted(gv, onStart)), true, true, ""},
		{"at start, other, wanted always", wanted(gv, always), changed(wanted(gv, onStart)), true, false, "update"},
		{"at start, the same", wanted(gv, onStart), wanted(gv, onStart), true, false, ""},
		{"always, unwanted", nil, wanted(gv, always), false, true, "remove"},
		{"always, other", wanted(gv, always), changed(wanted(gv, always)), false, true, "update"},
		{"always, other, wanted at start", wanted(gv, onStart), changed(wanted(gv, always)), true, false, "update"},
		{"always, the same", wanted(gv, always), wanted(gv, always), true, true, ""},
	} {
		a := register(c.want, c.have, c.had, c.done)
		got := ""
		switch {
		case a.create != nil:
			got = "create"
		case a.update != nil:
			got = "update"
			if a.update.Spec.VersionPriority != c.want.Spec.VersionPriority {
				t.Errorf("%s: updated to %+v", c.name, a.update.Spec)
			}
		case a.remove != nil:
			got = "remove"
		}
		if got != c.does {
			t.Errorf("%s: %q, want %q", c.name, got, c.does)
		}
	}
}

// Priorities are those that Kubernetes gives.
func TestPriorities(t *testing.T) {
	for _, c := range []struct {
		gv             schema.GroupVersion
		managed        string
		group, version int32
	}{
		{schema.GroupVersion{Version: "v1"}, onStart, 18000, 1},
		{schema.GroupVersion{Group: "autoscaling", Version: "v2"}, onStart, 17500, 30},
		{schema.GroupVersion{Group: "apps", Version: "v1"}, onStart, 17800, 15},
		{gv, always, 1000, 100},
	} {
		if s := wanted(c.gv, c.managed).Spec; s.GroupPriorityMinimum != c.group || s.VersionPriority != c.version {
			t.Errorf("%v: %d, %d", c.gv, s.GroupPriorityMinimum, s.VersionPriority)
		}
	}
}

func TestDefined(t *testing.T) {
	d := &apiextensionsv1.CustomResourceDefinition{}
	d.Spec.Group = "example.com"
	d.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true}, {Name: "v2"}, {Name: "v3", Served: true}}
	var got []string
	defined(d, func(gv schema.GroupVersion) { got = append(got, gv.Version) })
	if len(got) != 2 || got[0] != "v1" || got[1] != "v3" {
		t.Errorf("%v", got)
	}
}

// Reasons and messages are those of Kubernetes' availability controller.
func TestUnreachable(t *testing.T) {
	s := wanted(gv, always)
	s.Spec.Service = &apiregistrationv1.ServiceReference{Namespace: "n", Name: "s", Port: ptr.To[int32](443)}
	service := func(kind corev1.ServiceType, port int32) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Name: "api", Port: port}}}}
	}
	slice := func(port string, ready bool) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: "x"},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
			Ports:      []discoveryv1.EndpointPort{{Name: &port, Port: ptr.To[int32](1)}},
		}
	}
	clusterIP := corev1.ServiceTypeClusterIP
	for _, c := range []struct {
		name            string
		service         *corev1.Service
		slices          []*discoveryv1.EndpointSlice
		reason, message string
	}{
		{"no service", nil, nil, "ServiceNotFound", `service/s in "n" is not present`},
		{"another port", service(clusterIP, 80), nil, "ServicePortError", `service/s in "n" is not listening on port 443`},
		{"no endpoints", service(clusterIP, 443), nil, "EndpointsNotFound", `cannot find endpointslices for service/s in "n"`},
		{"nobody ready", service(clusterIP, 443), []*discoveryv1.EndpointSlice{slice("api", false)}, "MissingEndpoints", `endpointslices for service/s in "n" have no addresses with port name "api"`},
		{"nobody at the port", service(clusterIP, 443), []*discoveryv1.EndpointSlice{slice("other", true)}, "MissingEndpoints", ""},
		{"somebody", service(clusterIP, 443), []*discoveryv1.EndpointSlice{slice("api", false), slice("api", true)}, "", ""},
		{"elsewhere", service(corev1.ServiceTypeExternalName, 80), nil, "", ""},
	} {
		got := unreachable(s, c.service, c.slices)
		switch {
		case c.reason == "" && got != nil:
			t.Errorf("%s: %+v", c.name, got)
		case c.reason != "" && (got == nil || got.Reason != c.reason || got.Status != apiregistrationv1.ConditionFalse || c.message != "" && got.Message != c.message):
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if c := probed(nil); c.Status != apiregistrationv1.ConditionTrue || c.Reason != "Passed" || c.Message != "all checks passed" {
		t.Errorf("%+v", c)
	}
	if c := probed(errors.New("because")); c.Status != apiregistrationv1.ConditionFalse || c.Reason != "FailedDiscoveryCheck" || c.Message != "because" {
		t.Errorf("%+v", c)
	}
}
