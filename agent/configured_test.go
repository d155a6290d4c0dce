package agent_test

import (
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// node waits until the node's object has a status.
func (r *rig) node() *v1.Node {
	r.t.Helper()
	var n *v1.Node
	r.eventually("the node's status", func() bool {
		n, _ = r.client.View().Get(kinds.Registry().Must("", "nodes"), api.Key{Name: "n1"}).(*v1.Node)
		return n != nil && len(n.Status.Capacity) > 0
	})
	return n
}

// localStorageCapacityIsolation: false: the node counts no local storage, and evicts
// nobody for what it keeps there.
func TestLocalStorageNotIsolated(t *testing.T) {
	r := configured(t, map[string]any{"localStorageCapacityIsolation": false})
	r.start()
	st := r.node().Status
	for _, list := range []v1.ResourceList{st.Capacity, st.Allocatable} {
		if q, ok := list[v1.ResourceEphemeralStorage]; ok || list.Memory().IsZero() {
			t.Errorf("local storage %v of %v", q, list)
		}
	}
	limit := resource.MustParse("1Mi")
	p := r.pod("web", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	})
	r.wait("web", "Ready", isReady)
	if err := os.WriteFile(filepath.Join(r.dir, "pods", string(p.UID), "volumes/kubernetes.io~empty-dir/v/big"), make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	r.agent.KeepHouse(t.Context())
	r.delete("web")
	r.wait("web", "deletion", func(p *v1.Pod) bool {
		if p != nil && p.Status.Reason != "" {
			t.Errorf("%s", describe(p))
		}
		return p == nil
	})
}

// reservedSystemCPUs: so many processors are not for pods.
func TestReservedCPUs(t *testing.T) {
	r := configured(t, map[string]any{"reservedSystemCPUs": "0", "kubeReserved": map[string]any{"cpu": "100m", "memory": "1Mi"}})
	r.start()
	st := r.node().Status
	if less := st.Capacity.Cpu().MilliValue() - st.Allocatable.Cpu().MilliValue(); less != 1000 {
		t.Errorf("%dm are reserved: capacity %v, allocatable %v", less, st.Capacity, st.Allocatable)
	}
}

// cpuCFSQuota: false: limits of cpu are for the scheduler only; weights stay.
func TestNoCPUQuota(t *testing.T) {
	for _, quota := range []bool{true, false} {
		r := configured(t, map[string]any{"cpuCFSQuota": quota})
		r.start()
		p := r.pod("web", func(p *v1.Pod) {
			p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceCPU: resource.MustParse("500m"), v1.ResourceMemory: resource.MustParse("64Mi")}
		})
		r.wait("web", "Ready", isReady)
		s, err := r.layout.Stat(r.base + "/" + cgroup.PodGroup(v1.PodQOSGuaranteed, string(p.UID)))
		if err != nil {
			t.Fatal(err)
		}
		got := r.runtime.ContainerConfig("app").GetLinux().GetResources()
		if (s.CPU.Quota > 0) != quota || (got.CpuQuota > 0) != quota || got.CpuShares != 512 || s.Memory.Limit != 64<<20 {
			t.Errorf("cpuCFSQuota %t: group %+v, container %v", quota, s.CPU, got)
		}
	}
}

// "Reserve Compute Resources for System Daemons", "Enforcing Node Allocatable": a node
// that cannot limit a group of others does not start.
func TestReservedGroupIsMissing(t *testing.T) {
	r := configured(t, map[string]any{
		"kubeReserved": map[string]any{"cpu": "100m"}, "kubeReservedCgroup": "/hansa-test-none", "enforceNodeAllocatable": []any{"pods", "kube-reserved"},
	})
	const want = "agent: kubeReservedCgroup, for kube-reserved of enforceNodeAllocatable: limit control group /hansa-test-none: there is no such group"
	if err := r.make().Run(t.Context()); err == nil || err.Error() != want {
		t.Errorf("it ended with %v", err)
	}
}
