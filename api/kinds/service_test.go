package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api/kinds"
)

var (
	onlyIPv4  = []corev1.IPFamily{corev1.IPv4Protocol}
	dualStack = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
)

func newService(t *testing.T, spec string) *corev1.Service {
	t.Helper()
	s := &corev1.Service{}
	if err := yaml.UnmarshalStrict([]byte("spec: "+spec), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAssignIPFamilies follows "Dual-stack Services" of the Kubernetes
// documentation.
func TestAssignIPFamilies(t *testing.T) {
	for name, c := range map[string]struct {
		spec, old string
		families  []corev1.IPFamily
		want      string
	}{
		"plain, single":         {"{selector: {a: b}}", "", onlyIPv4, "{selector: {a: b}, ipFamilyPolicy: SingleStack, ipFamilies: [IPv4]}"},
		"plain, dual":           {"{selector: {a: b}}", "", dualStack, "{selector: {a: b}, ipFamilyPolicy: SingleStack, ipFamilies: [IPv4]}"},
		"preferring, single":    {"{ipFamilyPolicy: PreferDualStack}", "", onlyIPv4, "{ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv4]}"},
		"preferring, dual":      {"{ipFamilyPolicy: PreferDualStack}", "", dualStack, "{ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv4, IPv6]}"},
		"preferring, 6 first":   {"{ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6]}", "", dualStack, "{ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4]}"},
		"requiring":             {"{ipFamilyPolicy: RequireDualStack}", "", dualStack, "{ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]}"},
		"by address":            {"{clusterIP: 'fd00::1', clusterIPs: ['fd00::1']}", "", dualStack, "{clusterIP: 'fd00::1', clusterIPs: ['fd00::1'], ipFamilyPolicy: SingleStack, ipFamilies: [IPv6]}"},
		"headless":              {"{selector: {a: b}, clusterIP: None, clusterIPs: [None]}", "", onlyIPv4, "{selector: {a: b}, clusterIP: None, clusterIPs: [None], ipFamilyPolicy: SingleStack, ipFamilies: [IPv4]}"},
		"headless, no selector": {"{clusterIP: None, clusterIPs: [None]}", "", onlyIPv4, "{clusterIP: None, clusterIPs: [None], ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]}"},
		"external name":         {"{type: ExternalName}", "", onlyIPv4, "{type: ExternalName}"},
		"kept policy": {"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4]}",
			"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack}", dualStack,
			"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: PreferDualStack}"},
		"untouched when the cluster becomes dual": {"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack}",
			"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack}", dualStack,
			"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack}"},
		"made single": {"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: SingleStack}",
			"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}", dualStack,
			"{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}"},
	} {
		s := newService(t, c.spec)
		var old *corev1.Service
		if c.old != "" {
			old = newService(t, c.old)
		}
		if errs := kinds.AssignIPFamilies(s, old, c.families); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
		if diff := cmp.Diff(newService(t, c.want), s); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestReleaseNeedsPolicy is the refusal that only a dual-stack cluster has.
func TestReleaseNeedsPolicy(t *testing.T) {
	old := newService(t, "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack}")
	s := newService(t, "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4]}")
	errs := kinds.AssignIPFamilies(s, old, dualStack)
	if len(errs) != 2 || errs[0].Detail != "must be 'SingleStack' to release the secondary cluster IP" || errs[1].Detail != "must be 'SingleStack' to release the secondary IP family" {
		t.Errorf("got %v", errs)
	}
}

func TestServiceWants(t *testing.T) {
	const given = "{type: ClusterIP, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4]}"
	for name, c := range map[string]struct {
		spec, old string
		ips       []int
		ports     bool
		health    bool
	}{
		"new":                       {"{type: ClusterIP, ipFamilies: [IPv4, IPv6], ports: [{port: 80}]}", "", []int{0, 1}, false, false},
		"chosen":                    {"{type: ClusterIP, clusterIPs: [10.0.0.1], ipFamilies: [IPv4, IPv6]}", "", []int{0, 1}, false, false},
		"headless":                  {"{type: ClusterIP, clusterIPs: [None], ipFamilies: [IPv4]}", "", nil, false, false},
		"external name":             {"{type: ExternalName}", "", nil, false, false},
		"node ports":                {"{type: NodePort, ipFamilies: [IPv4]}", "", []int{0}, true, false},
		"balanced":                  {"{type: LoadBalancer, externalTrafficPolicy: Local}", "", []int{}, true, true},
		"balanced, no ports":        {"{type: LoadBalancer, allocateLoadBalancerNodePorts: false}", "", []int{}, false, false},
		"balanced everywhere":       {"{type: LoadBalancer, externalTrafficPolicy: Cluster}", "", []int{}, true, false},
		"changed, which it may not": {"{type: ClusterIP, clusterIP: 10.0.0.2, clusterIPs: [10.0.0.2], ipFamilies: [IPv4]}", given, nil, false, false},
		"a second family":           {"{type: ClusterIP, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4, IPv6]}", given, []int{1}, false, false},
		"no longer external":        {"{type: ClusterIP, ipFamilies: [IPv4]}", "{type: ExternalName}", []int{0}, false, false},
		"becomes external":          {"{type: ExternalName}", given, nil, false, false},
	} {
		s := newService(t, c.spec)
		var old *corev1.Service
		if c.old != "" {
			old = newService(t, c.old)
		}
		if got := kinds.ServiceClusterIPsDue(s, old); !cmp.Equal(got, c.ips) {
			t.Errorf("%s: addresses are due at %v, want %v", name, got, c.ips)
		}
		if got := kinds.ServiceNeedsNodePorts(s); got != c.ports {
			t.Errorf("%s: needs node ports: %v", name, got)
		}
		if got := kinds.ServiceNeedsHealthCheckPort(s); got != c.health {
			t.Errorf("%s: needs a health check port: %v", name, got)
		}
	}
}
