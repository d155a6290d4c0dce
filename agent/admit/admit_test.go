package admit_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/admit"
	"hansa.dev/hansa/agent/pod"
)

func asks(cpu, memory string) *v1.Pod {
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{
		v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory),
	}}}}}}
}

// holding is the claim of a pod that wants no more than it has.
func holding(p *v1.Pod) *admit.Claim { return &admit.Claim{Pod: p, Holds: pod.Requests(p)} }

func with(change func(*v1.PodSpec)) *v1.Pod {
	p := asks("0", "0")
	change(&p.Spec)
	return p
}

func TestPod(t *testing.T) {
	node := admit.Node{
		OS: "linux",
		Object: &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"disk": "ssd"}},
			Status:     v1.NodeStatus{Allocatable: v1.ResourceList{"example.com/gpu": resource.MustParse("1")}},
		},
		Allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("1Gi"), v1.ResourcePods: resource.MustParse("3")},
		Claims: []*admit.Claim{holding(asks("1500m", "512Mi")), holding(with(func(s *v1.PodSpec) {
			s.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, HostIP: "192.0.2.1"}}
		}))},
	}
	full := node
	full.Claims = append(full.Claims, holding(asks("0", "0")))
	tainted := node
	tainted.Object = node.Object.DeepCopy()
	tainted.Object.Spec.Taints = []v1.Taint{{Key: "gone", Effect: v1.TaintEffectNoExecute}, {Key: "soft", Effect: v1.TaintEffectNoSchedule}}
	short := func(of v1.NodeConditionType) admit.Node {
		n := node
		n.Object = node.Object.DeepCopy()
		n.Object.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}, {Type: of, Status: v1.ConditionTrue}}
		return n
	}
	confining := node
	confining.AppArmor = true
	profile := func(pod, own *v1.AppArmorProfile) *v1.Pod {
		return with(func(s *v1.PodSpec) {
			s.SecurityContext = &v1.PodSecurityContext{AppArmorProfile: pod}
			s.Containers[0].SecurityContext = &v1.SecurityContext{AppArmorProfile: own}
		})
	}
	confined, unconfined := &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}, &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeUnconfined}
	const noAppArmor = "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host"
	for name, c := range map[string]struct {
		pod  *v1.Pod
		node admit.Node
		want string
	}{
		"short of memory, modest":    {asks("100m", "1Mi"), short(v1.NodeMemoryPressure), ""},
		"short of memory, unbounded": {asks("0", "0"), short(v1.NodeMemoryPressure), "Evicted: The node had condition: [MemoryPressure]. "},
		"short of memory, tolerated": {with(func(s *v1.PodSpec) {
			s.Tolerations = []v1.Toleration{{Key: v1.TaintNodeMemoryPressure, Operator: v1.TolerationOpExists}}
		}), short(v1.NodeMemoryPressure), ""},
		"short of disk":            {asks("100m", "1Mi"), short(v1.NodeDiskPressure), "Evicted: The node had condition: [DiskPressure]. "},
		"short of disk, critical":  {with(func(s *v1.PodSpec) { s.Priority = ptr.To[int32](2000000000) }), short(v1.NodeDiskPressure), ""},
		"profile of the container": {profile(nil, confined), node, noAppArmor},
		"profile of the pod":       {profile(confined, nil), node, noAppArmor},
		"profile, enforced":        {profile(confined, nil), confining, ""},
		"no profile after all":     {profile(confined, unconfined), node, ""},
		"fits":                     {asks("500m", "512Mi"), node, ""},
		"cpu":                      {asks("501m", "0"), node, "OutOfcpu: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"},
		"memory":                   {asks("0", "513Mi"), node, "OutOfmemory: Node didn't have enough resource: memory, requested: 537919488, used: 536870912, capacity: 1073741824"},
		"pods":                     {asks("0", "0"), full, "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		"gpu":                      {with(func(s *v1.PodSpec) { s.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("1") }), node, ""},
		"two gpus":                 {with(func(s *v1.PodSpec) { s.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("2") }), node, "OutOfexample.com/gpu: Node didn't have enough resource: example.com/gpu, requested: 2, used: 0, capacity: 1"},
		"selector":                 {with(func(s *v1.PodSpec) { s.NodeSelector = map[string]string{"disk": "ssd"} }), node, ""},
		"wrong selector":           {with(func(s *v1.PodSpec) { s.NodeSelector = map[string]string{"disk": "tape"} }), node, "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"taint":                    {asks("0", "0"), tainted, "TaintToleration: Predicate TaintToleration failed: node(s) had untolerated taint(s)"},
		"tolerated": {with(func(s *v1.PodSpec) {
			s.Tolerations = []v1.Toleration{{Key: "gone", Operator: v1.TolerationOpExists}}
		}), tainted, ""},
		"port": {with(func(s *v1.PodSpec) {
			s.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, Protocol: v1.ProtocolTCP}}
		}), node, "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		"other IP": {with(func(s *v1.PodSpec) { s.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, HostIP: "192.0.2.2"}} }), node, ""},
		"other kind": {with(func(s *v1.PodSpec) {
			s.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80, Protocol: v1.ProtocolUDP}}
		}), node, ""},
		"os": {with(func(s *v1.PodSpec) { s.OS = &v1.PodOS{Name: v1.Windows} }), node, "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS"},
		"safe sysctl": {with(func(s *v1.PodSpec) {
			s.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "net.ipv4.tcp_syncookies", Value: "1"}}}
		}), node, ""},
		"unsafe sysctl": {with(func(s *v1.PodSpec) {
			s.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		}), node, `SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowlisted`},
		"sysctl of the host": {with(func(s *v1.PodSpec) {
			s.HostNetwork = true
			s.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "net.ipv4.tcp_syncookies", Value: "1"}}}
		}), node, `SysctlForbidden: forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host Net enabled`},
	} {
		got := ""
		if r := admit.Pod(c.pod, c.node); r != nil {
			got = r.Reason + ": " + r.Message
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
