package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// "Service ClusterIP allocation" and "NodePort": addresses and ports are given,
// may be chosen, are never given twice and come back with the service.
func TestServiceAllocation(t *testing.T) {
	ns := namespace(t)
	made := func(name, spec string) corev1.Service {
		t.Helper()
		var s corev1.Service
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("services", ns), body: "metadata: {name: " + name + "}\nspec: {" + spec + "}"}, &s)
		return s
	}
	refused := func(spec, field, message string) {
		t.Helper()
		s := admin.do(t, call{method: "POST", path: at("services", ns), body: "metadata: {name: refused}\nspec: {" + spec + "}"}).refused(t, 422, metav1.StatusReasonInvalid, message)
		if got := causesOf(s); len(got) != 1 || !strings.HasSuffix(got[0], field) {
			t.Errorf("causes are %v, want %s", got, field)
		}
	}
	plain := made("plain", "ports: [{port: 80}]")
	if !strings.HasPrefix(plain.Spec.ClusterIP, "10.43.") || len(plain.Spec.ClusterIPs) != 1 || plain.Spec.ClusterIPs[0] != plain.Spec.ClusterIP || plain.Spec.IPFamilies[0] != corev1.IPv4Protocol {
		t.Errorf("plain service has %+v", plain.Spec)
	}
	seen := map[string]bool{}
	for i := range 20 {
		seen[made(fmt.Sprintf("many-%d", i), "ports: [{port: 80}]").Spec.ClusterIP] = true
	}
	if len(seen) != 20 {
		t.Errorf("20 services have %d addresses", len(seen))
	}
	chosen := made("chosen", "clusterIP: 10.43.200.7, type: NodePort, ports: [{port: 80, nodePort: 32007}]")
	if chosen.Spec.ClusterIP != "10.43.200.7" || chosen.Spec.Ports[0].NodePort != 32007 {
		t.Errorf("chosen are %+v", chosen.Spec)
	}
	refused("clusterIP: 10.43.200.7, ports: [{port: 80}]", "spec.clusterIPs", "failed to allocate IP 10.43.200.7: provided IP is already allocated")
	refused("clusterIP: 10.99.0.1, ports: [{port: 80}]", "spec.clusterIPs", "failed to allocate IP 10.99.0.1: the provided network does not match the current range")
	refused("type: NodePort, ports: [{port: 80, nodePort: 32007}]", "spec.ports[0].nodePort", "provided port is already allocated")
	refused("type: NodePort, ports: [{name: a, port: 80, nodePort: 32008}, {name: b, port: 81, nodePort: 32008}]", "spec.ports[1].nodePort", "provided port is already allocated")
	refused("type: NodePort, ports: [{port: 80, nodePort: 80}]", "spec.ports[0].nodePort", "provided port is not in the valid range. The range of valid ports is 30000-32767")
	if s := made("headless", "clusterIP: None, ports: [{port: 80}]"); s.Spec.ClusterIP != "None" {
		t.Errorf("headless service has %s", s.Spec.ClusterIP)
	}
	port := made("any-port", "type: NodePort, ports: [{port: 80}]").Spec.Ports[0].NodePort
	if port < 30000 || port > 32767 {
		t.Errorf("node port is %d", port)
	}
	admin.do(t, call{method: "PATCH", path: at("services", ns, "plain"), contentType: mergePatch, body: `{"spec":{"clusterIP":"10.43.200.8","clusterIPs":["10.43.200.8"]}}`}).
		refused(t, 422, metav1.StatusReasonInvalid, "spec.clusterIPs[0]: Invalid value")
	admin.do(t, call{method: "PUT", path: at("services", ns, "plain"), body: "metadata: {name: plain}\nspec: {clusterIP: 10.43.200.7, ports: [{port: 80}]}"}).
		refused(t, 422, metav1.StatusReasonInvalid, "spec.clusterIPs[0]: Invalid value: [\"10.43.200.7\"]: may not change once set")
	admin.do(t, call{method: "PUT", path: at("services", ns, "chosen"), body: "metadata: {name: chosen}\nspec: {type: NodePort, ports: [{name: a, port: 80, nodePort: 32007}, {name: b, port: 81, nodePort: 32007}]}"}).
		refused(t, 500, metav1.StatusReasonUnknown, "duplicate nodePort: {TCP 32007}")
	admin.do(t, call{method: "POST", path: at("services", ns) + "?dryRun=All", body: "metadata: {name: chosen}\nspec: {clusterIP: 10.43.200.7, ports: [{port: 80}]}"}).
		refused(t, 409, metav1.StatusReasonAlreadyExists, "already exists")
	patch(t, "services", ns, "chosen", `{"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null,"ports":null}}`)
	if again := made("again", "clusterIP: 10.43.200.7, type: NodePort, ports: [{port: 80, nodePort: 32007}]"); again.Spec.ClusterIP != "10.43.200.7" {
		t.Errorf("what came back was given as %+v", again.Spec)
	}
	admin.want(t, http.StatusOK, deleteCall("services", ns, "again", ""), nil)
	made("thrice", "clusterIP: 10.43.200.7, type: NodePort, ports: [{port: 80, nodePort: 32007}]")
}

// "EndpointSlice mirroring": who writes Endpoints for a service without a
// selector gets slices of them, and none once that is not asked for.
func TestEndpointsAreMirrored(t *testing.T) {
	ns := namespace(t)
	create(t, "services", ns, "metadata: {name: db}\nspec: {ports: [{port: 5432}]}")
	create(t, "endpoints", ns, "metadata: {name: db}\nsubsets: [{addresses: [{ip: 192.0.2.1}, {ip: 192.0.2.2}], ports: [{port: 5432}]}]")
	slices := func() []discoveryv1.EndpointSlice {
		var l discoveryv1.EndpointSliceList
		admin.want(t, http.StatusOK, call{path: at("endpointslices", ns) + "?labelSelector=kubernetes.io/service-name%3Ddb"}, &l)
		return l.Items
	}
	eventually(t, "there is a slice", func() bool { return len(slices()) == 1 })
	sl := slices()[0]
	if sl.Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" || len(sl.Endpoints) != 2 || *sl.Ports[0].Port != 5432 || sl.OwnerReferences[0].Kind != "Endpoints" {
		t.Errorf("slice is %+v", sl)
	}
	patch(t, "endpoints", ns, "db", `{"metadata":{"labels":{"endpointslice.kubernetes.io/skip-mirror":"true"}}}`)
	eventually(t, "the slice goes", func() bool { return len(slices()) == 0 })
}
