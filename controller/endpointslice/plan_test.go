package endpointslice

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/controller"
)

func service() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "s", Labels: map[string]string{"team": "a"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.0.0.1", Selector: map[string]string{"app": "a"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}},
		},
	}
}

// pod is ready and has the port web; words say what is particular about it.
func pod(name string, words ...string) *corev1.Pod {
	ready := corev1.ConditionTrue
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{PodIP: "10.1.0." + name},
	}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "port":
			if _, err := fmt.Sscan(value, &p.Spec.Containers[0].Ports[0].ContainerPort); err != nil {
				panic(err)
			}
		case "portless":
			p.Spec.Containers = nil
		case "unready":
			ready = corev1.ConditionFalse
		case "going":
			p.DeletionTimestamp = &metav1.Time{}
		case "host":
			p.Spec.Hostname, p.Spec.Subdomain = value, "s"
		default:
			panic(w)
		}
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return p
}

func zoneOf(node string) string { return map[string]string{"n1": "z1"}[node] }

// apply does to slices what a plan says.
func apply(all []*discoveryv1.EndpointSlice, a actions, made *int) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, sl := range all {
		if slices.Contains(a.delete, sl) {
			continue
		}
		for _, n := range a.update {
			if n.Name == sl.Name {
				sl = n
			}
		}
		out = append(out, sl)
	}
	for _, n := range a.create {
		*made++
		n.Name = fmt.Sprintf("s-%04d", *made)
		out = append(out, n)
	}
	return out
}

func (a actions) writes() int { return len(a.create) + len(a.update) + len(a.delete) }

// Incremental plans come to the same as building all anew: every endpoint is in
// one slice with its ports, as it is now; nothing else is; and a plan that was
// carried out leaves nothing to do.
func TestPlansAddUp(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := service()
		var all []*discoveryv1.EndpointSlice
		made := 0
		pods := map[int]*corev1.Pod{}
		for range rapid.IntRange(1, 12).Draw(r, "rounds") {
			for range rapid.IntRange(0, 120).Draw(r, "changes") {
				id := rapid.IntRange(0, 350).Draw(r, "pod")
				delete(pods, id)
				switch rapid.SampledFrom([]string{"gone", "ready", "ready", "ready", "unready", "other port", "portless"}).Draw(r, "becomes") {
				case "ready":
					pods[id] = pod(fmt.Sprint(id))
				case "unready":
					pods[id] = pod(fmt.Sprint(id), "unready")
				case "other port":
					pods[id] = pod(fmt.Sprint(id), "port=9090")
				case "portless":
					pods[id] = pod(fmt.Sprint(id), "portless")
				}
			}
			switch rapid.IntRange(0, 9).Draw(r, "mischief") {
			case 0:
				pods = map[int]*corev1.Pod{}
			case 1: // somebody else writes to a slice
				if len(all) > 0 {
					i := rapid.IntRange(0, len(all)-1).Draw(r, "slice")
					all[i] = all[i].DeepCopy()
					all[i].Endpoints = append(all[i].Endpoints, all[0].Endpoints...)
					all[i].Labels["team"] = "b"
				}
			case 2: // or takes it from its owner
				if len(all) > 0 {
					all[0] = all[0].DeepCopy()
					all[0].OwnerReferences = nil
				}
			}
			var list []*corev1.Pod
			for _, p := range pods {
				list = append(list, p)
			}
			groups := desired(s, list, zoneOf)
			all = apply(all, plan(s, groups, all), &made)
			check(r, s, groups, all)
			if again := plan(s, groups, all); again.writes() != 0 {
				r.Fatalf("a second plan writes: %+v", again)
			}
		}
	})
}

func check(r *rapid.T, s *corev1.Service, groups map[string]*group, all []*discoveryv1.EndpointSlice) {
	want, have := 0, 0
	for _, g := range groups {
		want += len(g.endpoints)
	}
	for _, sl := range all {
		if len(sl.Endpoints) > perSlice {
			r.Fatalf("%d endpoints in one slice", len(sl.Endpoints))
		}
		if len(sl.Endpoints) == 0 && len(all) > 1 {
			r.Fatalf("an empty slice among %d", len(all))
		}
		if sl.Labels["team"] != "a" || sl.Labels[discoveryv1.LabelServiceName] != "s" || !metav1.IsControlledBy(sl, s) {
			r.Fatalf("labels %v, owners %v", sl.Labels, sl.OwnerReferences)
		}
		for _, e := range sl.Endpoints {
			g := groups[controller.PortsKey(sl.Ports)]
			if g == nil {
				r.Fatalf("a slice with ports that no pod has: %v", sl.Ports)
			}
			if w, ok := g.endpoints[uidOf(e)]; !ok || *w.Conditions.Ready != *e.Conditions.Ready {
				r.Fatalf("endpoint %s: %+v, want %+v", uidOf(e), e, w)
			}
			have++
		}
	}
	if have != want || len(all) == 0 {
		r.Fatalf("%d endpoints in %d slices, want %d", have, len(all), want)
	}
}

func many(from, to int) (pods []*corev1.Pod) {
	for i := from; i < to; i++ {
		pods = append(pods, pod(fmt.Sprint(i)))
	}
	return pods
}

// Documentation: "EndpointSlices", "Distribution of EndpointSlices".
func TestDistribution(t *testing.T) {
	s, made := service(), 0
	all := apply(nil, plan(s, desired(s, nil, zoneOf), nil), &made)
	if len(all) != 1 || len(all[0].Endpoints) != 0 {
		t.Fatalf("without pods there are %d slices", len(all))
	}
	step := func(pods []*corev1.Pod, create, update, remove int) {
		t.Helper()
		a := plan(s, desired(s, pods, zoneOf), all)
		if len(a.create) != create || len(a.update) != update || len(a.delete) != remove {
			t.Errorf("%d created, %d updated, %d deleted; want %d, %d, %d", len(a.create), len(a.update), len(a.delete), create, update, remove)
		}
		all = apply(all, a, &made)
	}
	step(many(0, 1), 0, 1, 0) // the empty slice is used
	step(many(0, 95), 0, 1, 0)
	step(many(0, 190), 1, 0, 0)
	if sizes := []int{len(all[0].Endpoints), len(all[1].Endpoints)}; sizes[0] != 95 || sizes[1] != 95 {
		t.Errorf("sizes = %v", sizes)
	}
	step(many(0, 200), 1, 0, 0) // one creation rather than two updates
	step(many(0, 203), 0, 1, 0) // the fullest slice that takes all
	// A slice that changes anyway is filled first.
	step(append(many(1, 203), pod("300"), pod("301")), 0, 1, 0)
	step(nil, 0, 1, 2)
	if len(all) != 1 || len(all[0].Ports) != 0 {
		t.Errorf("at the end there are %d slices", len(all))
	}
}

func TestEndpointOf(t *testing.T) {
	type conditions struct{ ready, serving, terminating bool }
	for _, c := range []struct {
		pod     *corev1.Pod
		publish bool
		want    conditions
	}{
		{pod("1"), false, conditions{true, true, false}},
		{pod("1", "unready"), false, conditions{false, false, false}},
		{pod("1", "going"), false, conditions{false, true, true}},
		{pod("1", "unready"), true, conditions{true, false, false}},
		{pod("1", "going"), true, conditions{true, true, true}},
	} {
		s := service()
		s.Spec.PublishNotReadyAddresses = c.publish
		e := endpointOf(s, c.pod, "z1")
		if got := (conditions{*e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating}); got != c.want {
			t.Errorf("%v, publish %v: %+v, want %+v", c.pod.Status.Conditions, c.publish, got, c.want)
		}
		if e.Hostname != nil || *e.NodeName != "n1" || *e.Zone != "z1" || e.Hints != nil {
			t.Errorf("endpoint = %+v", e)
		}
	}
	s := service()
	s.Spec.TrafficDistribution = ptr.To(corev1.ServiceTrafficDistributionPreferSameNode)
	e := endpointOf(s, pod("1", "host=h"), "z1")
	if e.Hostname == nil || *e.Hostname != "h" || e.Hints.ForNodes[0].Name != "n1" || e.Hints.ForZones[0].Name != "z1" {
		t.Errorf("endpoint = %+v", e)
	}
}
