package apiservice

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/kinds"
)

// ManagedLabel is on the APIServices that are kept by themselves: those of
// built-in kinds at each start, those of custom resources all the time.
const (
	ManagedLabel = "kube-aggregator.kubernetes.io/automanaged"
	onStart      = "onstart"
	always       = "true"
)

// wanted is the APIService of a group-version that this server answers for.
func wanted(gv schema.GroupVersion, managed string) *apiregistrationv1.APIService {
	p := kinds.PriorityOf(gv)
	if managed == always {
		p = kinds.DefinedPriority
	}
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: kinds.APIServiceName(gv), Labels: map[string]string{ManagedLabel: managed}},
		Spec:       apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: p.Group, VersionPriority: p.Version},
	}
}

// defined adds the group-versions that a definition serves to a set.
func defined(d *apiextensionsv1.CustomResourceDefinition, add func(schema.GroupVersion)) {
	for _, v := range d.Spec.Versions {
		if v.Served {
			add(schema.GroupVersion{Group: d.Spec.Group, Version: v.Name})
		}
	}
}

// action is what has to be done about one APIService; at most one is set.
type action struct {
	create *apiregistrationv1.APIService
	update *apiregistrationv1.APIService
	remove *apiregistrationv1.APIService
}

// register decides about one APIService, by the table of Kubernetes' autoregister
// controller:
//
//	there is             | nothing wanted | wanted at start | wanted always
//	---------------------|----------------|-----------------|--------------
//	nothing              | -              | create once     | create
//	one of somebody's    | -              | -               | -
//	at start, later made | -              | -               | -
//	at start             | delete once    | update once     | update once
//	always               | delete         | update once     | update
//
// had says that it was there when the process began, done that it has been
// brought in order once since.
func register(want, have *apiregistrationv1.APIService, had, done bool) action {
	switch managed := managedBy(have); {
	case want != nil && managedBy(want) == onStart && done:
	case have == nil && want != nil:
		return action{create: want}
	case have == nil, managed == "":
	case managed == onStart && (!had || done):
	case want == nil:
		return action{remove: have}
	case !equality.Semantic.DeepEqual(have.Spec, want.Spec):
		next := have.DeepCopy()
		next.Spec = want.Spec
		return action{update: next}
	}
	return action{}
}

// managedBy is how an APIService is kept; "" for those that are not.
func managedBy(s *apiregistrationv1.APIService) string {
	if s == nil {
		return ""
	}
	if m := s.Labels[ManagedLabel]; m == onStart || m == always {
		return m
	}
	return ""
}

// unreachable says why the server of an APIService cannot be reached, as far as
// the objects tell; nil when it has to be asked. Reasons and texts are
// Kubernetes'. service is nil when there is none.
func unreachable(s *apiregistrationv1.APIService, service *corev1.Service, endpoints []*discoveryv1.EndpointSlice) *apiregistrationv1.APIServiceCondition {
	b := s.Spec.Service
	no := func(reason, format string, args ...any) *apiregistrationv1.APIServiceCondition {
		return &apiregistrationv1.APIServiceCondition{
			Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse,
			Reason: reason, Message: fmt.Sprintf(format, args...),
		}
	}
	if service == nil {
		return no("ServiceNotFound", "service/%s in %q is not present", b.Name, b.Namespace)
	}
	if service.Spec.Type != corev1.ServiceTypeClusterIP {
		return nil // nobody knows where those lead
	}
	number := ptr.Deref(b.Port, 443)
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == number })
	switch {
	case i < 0:
		return no("ServicePortError", "service/%s in %q is not listening on port %d", b.Name, b.Namespace, number)
	case len(endpoints) == 0:
		return no("EndpointsNotFound", "cannot find endpointslices for service/%s in %q", b.Name, b.Namespace)
	case !slices.ContainsFunc(endpoints, func(e *discoveryv1.EndpointSlice) bool { return answers(e, service.Spec.Ports[i].Name) }):
		return no("MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", b.Name, b.Namespace, service.Spec.Ports[i].Name)
	}
	return nil
}

// answers says whether a slice has somebody ready at a port.
func answers(e *discoveryv1.EndpointSlice, port string) bool {
	return slices.ContainsFunc(e.Endpoints, func(e discoveryv1.Endpoint) bool { return ptr.Deref(e.Conditions.Ready, true) }) &&
		slices.ContainsFunc(e.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == port && p.Port != nil })
}

// probed is the condition after the server was asked.
func probed(err error) apiregistrationv1.APIServiceCondition {
	c := apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue,
		Reason: "Passed", Message: "all checks passed",
	}
	if err != nil {
		c.Status, c.Reason, c.Message = apiregistrationv1.ConditionFalse, "FailedDiscoveryCheck", err.Error()
	}
	return c
}
