package quota_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/quota"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// list reads "name=amount" pairs.
func list(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, pair := range strings.Fields(text) {
		name, amount, _ := strings.Cut(pair, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return l
}

func text(l corev1.ResourceList) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		q := l[name]
		parts = append(parts, fmt.Sprintf("%s=%s", name, q.String()))
	}
	return strings.Join(parts, " ")
}

func pod(requests, limits string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "c", Resources: corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}},
	}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func service(kind corev1.ServiceType, ports ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: corev1.ServiceSpec{Type: kind}}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{NodePort: p})
	}
	return s
}

func claim(class, size, allocated string) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}
	c.Spec.StorageClassName = &class
	c.Spec.Resources.Requests = list("storage=" + size)
	if allocated != "" {
		c.Status.AllocatedResources = list("storage=" + allocated)
	}
	return c
}

func devices(requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "d"}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
}

func exactly(class string, mode resourcev1.DeviceAllocationMode, n int64) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: mode, Count: n}}
}

// Kubernetes' page "Resource Quotas", what is counted of each kind.
func TestUsage(t *testing.T) {
	owned := devices(exactly("gpu", resourcev1.DeviceAllocationModeExactCount, 3))
	owned.Annotations = map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"}
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u", Controller: ptr.To(true)}}
	view := authtest.New(t,
		&resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/gpu")}},
		pod("example.com/gpu=2", "", func(p *corev1.Pod) { p.UID = "u" }), owned)
	k := quota.NewKinds(view.Registry, view)
	gone := func(seconds int64) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			at := metav1.NewTime(now.Add(-time.Minute))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &seconds
		}
	}
	for _, tt := range []struct {
		name string
		obj  api.Object
		want string
	}{
		{"config map", &corev1.ConfigMap{}, "configmaps=1 count/configmaps=1"},
		{"endpoints", &corev1.Endpoints{}, "count/endpoints=1"}, //nolint:staticcheck // it is counted
		{"pod", pod("cpu=1 memory=1Gi ephemeral-storage=1Mi hugepages-2Mi=2Mi example.com/x=1", "cpu=2 memory=2Gi hugepages-2Mi=2Mi"),
			"count/pods=1 cpu=1 ephemeral-storage=1Mi hugepages-2Mi=2Mi limits.cpu=2 limits.memory=2Gi memory=1Gi pods=1 requests.cpu=1 requests.ephemeral-storage=1Mi requests.example.com/x=1 requests.hugepages-2Mi=2Mi requests.memory=1Gi"},
		{"pod with overhead and init container", pod("cpu=1", "", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu=3")}}}
			p.Spec.Overhead = list("cpu=1")
		}), "count/pods=1 cpu=4 pods=1 requests.cpu=4"},
		{"pod that a node has not made smaller yet", pod("cpu=1", "", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Resources: &corev1.ResourceRequirements{Requests: list("cpu=2")}}}
		}), "count/pods=1 cpu=2 pods=1 requests.cpu=2"},
		{"pod that has ended", pod("cpu=1", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), "count/pods=1"},
		{"pod that is ending", pod("cpu=1", "", gone(61)), "count/pods=1 cpu=1 pods=1 requests.cpu=1"},
		{"pod that should have ended", pod("cpu=1", "", gone(59)), "count/pods=1"},
		{"service", service(corev1.ServiceTypeClusterIP, 0), "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0"},
		{"node port", service(corev1.ServiceTypeNodePort, 0, 0), "count/services=1 services=1 services.loadbalancers=0 services.nodeports=2"},
		{"load balancer", service(corev1.ServiceTypeLoadBalancer, 0, 0), "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"},
		{"load balancer without node ports", func() api.Object {
			s := service(corev1.ServiceTypeLoadBalancer, 0, 30001)
			s.Spec.AllocateLoadBalancerNodePorts = ptr.To(false)
			return s
		}(), "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1"},
		{"claim", claim("", "1500m", ""), "count/persistentvolumeclaims=1 persistentvolumeclaims=1 requests.storage=2"},
		{"claim of a class that grows", claim("gold", "1Gi", "2Gi"),
			"count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"},
		{"devices", devices(exactly("a", resourcev1.DeviceAllocationModeAll, 0), resourcev1.DeviceRequest{FirstAvailable: []resourcev1.DeviceSubRequest{
			{DeviceClassName: "a", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 2},
			{DeviceClassName: "b", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 3},
			{DeviceClassName: "b", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
		}}), "a.deviceclass.resource.k8s.io/devices=34 b.deviceclass.resource.k8s.io/devices=3 count/resourceclaims.resource.k8s.io=1 requests.deviceclass.resource.kubernetes.io/a=34 requests.deviceclass.resource.kubernetes.io/b=3"},
		{"devices that the pod counts in part", owned,
			"count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=3 requests.deviceclass.resource.kubernetes.io/gpu=3 requests.example.com/gpu=1"},
	} {
		if got := text(k.Of(view.Of(tt.obj)).Usage(tt.obj, now)); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
	for _, r := range []string{"events", "nodes", "bindings"} {
		if k.Of(kinds.Registry().Must("", r)) != nil {
			t.Errorf("%s are counted", r)
		}
	}
	names := list("count/pods=1 pods=1 secrets=1 requests.example.com/x=1 requests.kubernetes.io/x=1 limits.cpu=1 requests.hugepages-1Gi=1 x.storageclass.storage.k8s.io/requests.storage=1")
	got := k.Of(view.Of(&corev1.Pod{})).Among(names)
	slices.Sort(got)
	if fmt.Sprint(got) != "[count/pods limits.cpu pods requests.example.com/x requests.hugepages-1Gi]" {
		t.Errorf("pods count under %v", got)
	}
}

// "Resource Quotas", "Quota scopes".
func TestScopes(t *testing.T) {
	view := authtest.New(t)
	k := quota.NewKinds(view.Registry, view)
	deadline := func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To(int64(1)) }
	class := func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }
	abroad := func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
			{PodAffinityTerm: corev1.PodAffinityTerm{Namespaces: []string{"other"}}},
		}}}
	}
	attributed := claim("", "1", "")
	attributed.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "fast"}
	in := func(scope corev1.ResourceQuotaScope, op corev1.ScopeSelectorOperator, values ...string) corev1.ResourceQuotaSpec {
		return corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{ScopeName: scope, Operator: op, Values: values}}}}
	}
	only := func(scopes ...corev1.ResourceQuotaScope) corev1.ResourceQuotaSpec {
		return corev1.ResourceQuotaSpec{Scopes: scopes}
	}
	for _, tt := range []struct {
		obj  api.Object
		spec corev1.ResourceQuotaSpec
		want bool
	}{
		{pod("", ""), only(), true},
		{pod("", ""), only("BestEffort"), true},
		{pod("cpu=1", ""), only("BestEffort"), false},
		{pod("cpu=1", ""), only("NotBestEffort"), true},
		{pod("", "", deadline), only("Terminating"), true},
		{pod("", "", deadline), only("NotTerminating"), false},
		{pod("", "", deadline), only("Terminating", "NotBestEffort"), false},
		{pod("", ""), only("NotTerminating"), true},
		{pod("", "", class), in("PriorityClass", "In", "high", "low"), true},
		{pod("", "", class), in("PriorityClass", "NotIn", "high"), false},
		{pod("", "", class), in("PriorityClass", "Exists"), true},
		{pod("", ""), in("PriorityClass", "Exists"), false},
		{pod("", ""), in("PriorityClass", "DoesNotExist"), true},
		{pod("", ""), in("PriorityClass", "NotIn", "high"), true},
		{pod("", "", abroad), only("CrossNamespacePodAffinity"), true},
		{pod("", ""), only("CrossNamespacePodAffinity"), false},
		{attributed, in("VolumeAttributesClass", "In", "fast"), true},
		{attributed, in("VolumeAttributesClass", "In", "slow"), false},
		{claim("", "1", ""), in("VolumeAttributesClass", "Exists"), false},
		{claim("", "1", ""), only("BestEffort"), false},
		{&corev1.ConfigMap{}, only("BestEffort"), false},
		{&corev1.ConfigMap{}, only(), true},
	} {
		if got := k.Of(view.Of(tt.obj)).InScopes(tt.obj, &tt.spec); got != tt.want {
			t.Errorf("%T in %v is %v", tt.obj, tt.spec, got)
		}
	}
}

// What has to be said, which updates charge, and which give back.
func TestChanges(t *testing.T) {
	view := authtest.New(t)
	k := quota.NewKinds(view.Registry, view)
	pods := k.Of(view.Of(&corev1.Pod{}))
	limited := []corev1.ResourceName{"pods", "requests.cpu", "limits.cpu", "requests.ephemeral-storage"}
	two := pod("", "cpu=1", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "a"}} })
	if err := pods.Lacks(two, limited); err == nil || err.Error() != "must specify limits.cpu for: a; requests.cpu for: a,c" {
		t.Error(err)
	}
	two.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu=1")}
	if err := pods.Lacks(two, limited); err != nil {
		t.Error(err)
	}
	deadline := pod("", "", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To(int64(1)) })
	ended := pod("", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	resized := pod("", "", func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Resources: &corev1.ResourceRequirements{Requests: list("cpu=1")}}}
	})
	was := pod("", "", func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c"}} })
	changed := claim("", "1", "2")
	for _, tt := range []struct {
		name           string
		obj, old       api.Object
		sub            string
		charges, frees bool
	}{
		{"new pod", pod("", ""), nil, "", true, false},
		{"binding", pod("", ""), nil, "binding", false, false},
		{"labels of a pod", pod("", ""), pod("", ""), "", false, false},
		{"deadline of a pod", deadline, pod("", ""), "", true, true},
		{"resize of a pod", pod("cpu=2", ""), pod("cpu=1", ""), "resize", true, false},
		{"end of a pod", ended, pod("", ""), "status", false, true},
		{"resized by a node", resized, was, "status", false, true},
		{"new config map", &corev1.ConfigMap{}, nil, "", true, false},
		{"config map", &corev1.ConfigMap{}, &corev1.ConfigMap{}, "", false, false},
		{"type of a service", service(corev1.ServiceTypeClusterIP), service(corev1.ServiceTypeNodePort, 1), "", true, true},
		{"ports of a service", service(corev1.ServiceTypeNodePort, 1), service(corev1.ServiceTypeNodePort, 1, 2), "", true, true},
		{"status of a service", service(corev1.ServiceTypeNodePort, 1), service(corev1.ServiceTypeNodePort, 1), "status", false, false},
		{"claim", claim("", "2", ""), claim("", "1", ""), "", true, false},
		{"what a claim is given", changed, claim("", "1", ""), "status", true, true},
		{"status of a claim", claim("", "1", ""), claim("", "1", ""), "status", false, false},
		{"devices", devices(), devices(), "", true, false},
	} {
		kind := k.Of(view.Of(tt.obj))
		if got := kind.Charges(tt.obj, tt.old, tt.sub); got != tt.charges {
			t.Errorf("%s charges: %v", tt.name, got)
		}
		if tt.old == nil {
			continue
		}
		if got := kind.Frees(tt.obj, tt.old); got != tt.frees {
			t.Errorf("%s frees: %v", tt.name, got)
		}
	}
}

func TestAmounts(t *testing.T) {
	sum := list("a=1 b=2")
	quota.Add(sum, list("b=3 c=1Gi"))
	if got := text(sum); got != "a=1 b=5 c=1Gi" {
		t.Error(got)
	}
	if got := text(quota.More(list("a=3 b=1 c=2"), list("a=1 b=1 d=9"))); got != "a=2 c=2" {
		t.Error(got)
	}
	if got := text(quota.Mask(list("a=3 b=1"), list("b=7 c=1"))); got != "b=1" {
		t.Error(got)
	}
	if !quota.Equal(list("a=1000m"), list("a=1")) || quota.Equal(list("a=1"), list("b=1")) || quota.Equal(list("a=1"), list("a=1 b=1")) {
		t.Error("amounts are compared wrongly")
	}
}
