package endpoints

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func pod(name, ip string, ready bool, port int32) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port, Protocol: corev1.ProtocolTCP}}}}},
		Status:     corev1.PodStatus{PodIP: ip},
	}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return p
}

// text is subsets as kubectl describes them.
func text(subs []corev1.EndpointSubset) (out []string) {
	for _, s := range subs {
		line := ""
		for _, a := range s.Addresses {
			line += a.IP + " "
		}
		for _, a := range s.NotReadyAddresses {
			line += "(" + a.IP + ") "
		}
		for _, p := range s.Ports {
			line += fmt.Sprintf("%s=%d ", p.Name, p.Port)
		}
		out = append(out, line)
	}
	return out
}

// Pods are grouped by the ports that they have; one without the named port of a
// service is none of its endpoints (documentation: "Service", "Port
// definitions").
func TestSubsets(t *testing.T) {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", Labels: map[string]string{"l": "v"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{
			{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")},
		}},
	}
	portless := pod("p", "10.1.0.9", true, 1)
	portless.Spec.Containers = nil
	going := pod("g", "10.1.0.8", true, 8080)
	going.DeletionTimestamp = &metav1.Time{}
	pods := []*corev1.Pod{pod("b", "10.1.0.2", true, 8080), pod("a", "10.1.0.1", true, 8080), pod("c", "10.1.0.3", false, 8080), pod("d", "10.1.0.4", true, 9090), portless, going}
	want := []string{"10.1.0.1 10.1.0.2 (10.1.0.3) http=8080 ", "10.1.0.4 http=9090 "}
	if diff := cmp.Diff(want, text(subsets(s, pods))); diff != "" {
		t.Error(diff)
	}
	s.Spec.PublishNotReadyAddresses = true
	want = []string{"10.1.0.1 10.1.0.2 10.1.0.3 10.1.0.8 http=8080 ", "10.1.0.4 http=9090 "}
	if diff := cmp.Diff(want, text(subsets(s, pods))); diff != "" {
		t.Error(diff)
	}
	s.Spec.ClusterIP, s.Spec.Ports, s.Spec.PublishNotReadyAddresses = corev1.ClusterIPNone, nil, false
	want = []string{"10.1.0.1 10.1.0.2 10.1.0.4 10.1.0.9 (10.1.0.3) "}
	if diff := cmp.Diff(want, text(subsets(s, pods))); diff != "" {
		t.Error(diff)
	}
	have := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "e", Annotations: map[string]string{"mine": "1", corev1.EndpointsOverCapacity: "truncated"}}}
	e := plan(s, pods, have)
	if e.UID != "e" || e.Labels["l"] != "v" || e.Labels[managedByLabel] != managedBy || len(e.Annotations) != 1 {
		t.Errorf("metadata = %+v", e.ObjectMeta)
	}
	if _, headless := e.Labels[corev1.IsHeadlessService]; !headless || have.Labels != nil {
		t.Errorf("labels = %v, before %v", e.Labels, have.Labels)
	}
}

// Ready addresses are kept before others.
func TestCut(t *testing.T) {
	var subs []corev1.EndpointSubset
	for range 3 {
		var s corev1.EndpointSubset
		for range 400 {
			s.Addresses = append(s.Addresses, corev1.EndpointAddress{})
			s.NotReadyAddresses = append(s.NotReadyAddresses, corev1.EndpointAddress{})
		}
		subs = append(subs, s)
	}
	subs[2].Addresses = subs[2].Addresses[:100]
	subs = cut(subs)
	if len(subs) != 2+1 || len(subs[2].Addresses) != 100 || len(subs[0].NotReadyAddresses) != 100 || len(subs[1].NotReadyAddresses) != 0 || count(subs) != most {
		t.Errorf("%d subsets with %d addresses", len(subs), count(subs))
	}
}
