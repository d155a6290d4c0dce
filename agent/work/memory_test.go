package work

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"hansa.dev/hansa/agent/cgroup"
)

// "Memory QoS": what a container's group gets on version 2, by what it requests
// and may use, and by how the node is configured.
func TestMemoryQoS(t *testing.T) {
	n := &Node{MemoryQoS: true, Allocatable: func() v1.ResourceList { return v1.ResourceList{v1.ResourceMemory: resource.MustParse("1000Mi")} }}
	of := func(request, limit string) (*v1.Pod, *v1.Container) {
		p := specPod(nil)
		c := &p.Spec.Containers[0]
		c.Resources = v1.ResourceRequirements{Requests: v1.ResourceList{}, Limits: v1.ResourceList{}}
		if request != "" {
			c.Resources.Requests[v1.ResourceMemory] = resource.MustParse(request)
		}
		if limit != "" {
			c.Resources.Limits[v1.ResourceMemory] = resource.MustParse(limit)
		}
		return p, c
	}
	for _, c := range []struct {
		request, limit string
		reserve        bool
		throttling     float64
		want           string
	}{
		{"100Mi", "200Mi", false, 0, "map[memory.low:0 memory.min:0]"},
		{"100Mi", "200Mi", true, 0, "map[memory.low:104857600 memory.min:0]"},
		{"100Mi", "200Mi", false, 0.5, "map[memory.high:157286400 memory.low:0 memory.min:0]"},
		{"", "", false, 0.5, "map[memory.high:524288000 memory.low:0 memory.min:0]"},
		{"100Mi", "100Mi", false, 0.5, "map[memory.low:0 memory.min:0]"},
	} {
		n.Rules, n.MemoryThrottling = cgroup.Rules{Reserve: c.reserve}, c.throttling
		if got := fmt.Sprint(n.memoryQoS(of(c.request, c.limit))); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	n.MemoryQoS = false
	if got := n.memoryQoS(of("1Mi", "")); got != nil {
		t.Errorf("switched off: %v", got)
	}
}

// "Manage HugePages": a container has what it may use of each size that the
// machine has, and nothing of the others.
func TestContainerHugePages(t *testing.T) {
	capacity := v1.ResourceList{"hugepages-2Mi": resource.MustParse("10Mi"), "hugepages-1Gi": resource.MustParse("0")}
	got := hugePages(capacity, v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")})
	if len(got) != 2 || got[0].PageSize != "1GB" || got[0].Limit != 0 || got[1].PageSize != "2MB" || got[1].Limit != 4<<20 {
		t.Error(got)
	}
}

// "Runtime Class": the overhead is told to the runtime, beside what the
// containers have.
func TestOverhead(t *testing.T) {
	p := specPod(func(s *v1.PodSpec) {
		s.Overhead = v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m"), v1.ResourceMemory: resource.MustParse("10Mi")}
	})
	if o := overhead(p); o.CpuShares != 256 || o.MemoryLimitInBytes != 10<<20 {
		t.Errorf("%+v", o)
	}
	if l := cgroup.PodLimits(p, cgroup.Rules{}); l.CPUShares != 256 {
		t.Errorf("the pod's group: %+v", l)
	}
}

// seccompDefault: who asks for no profile gets the runtime's.
func TestSeccompDefault(t *testing.T) {
	n := &Node{SeccompDefault: true}
	if got, err := n.seccomp(&v1.SecurityContext{}); err != nil || got.ProfileType.String() != "RuntimeDefault" {
		t.Errorf("%v %v", got, err)
	}
	asked := &v1.SecurityContext{SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeUnconfined}}
	if got, err := n.seccomp(asked); err != nil || got.ProfileType.String() != "Unconfined" {
		t.Errorf("%v %v", got, err)
	}
}

// Sandboxes have the runtime's profile, but those whose program confines itself: that
// of other handlers may be another program.
func TestSandboxSeccomp(t *testing.T) {
	for _, c := range []struct {
		confined      bool
		handler, want string
	}{{false, "", "RuntimeDefault"}, {true, "", "Unconfined"}, {true, "kata", "RuntimeDefault"}} {
		n := &Node{SelfConfined: c.confined}
		if got := n.sandboxSecurity(specPod(nil), c.handler).Seccomp.ProfileType.String(); got != c.want {
			t.Errorf("confined %t, handler %q: %s, want %s", c.confined, c.handler, got, c.want)
		}
	}
}

// AppArmor: the profile that is asked for, as the runtime names it.
func TestAppArmor(t *testing.T) {
	local := "own"
	for want, profile := range map[string]*v1.AppArmorProfile{
		"RuntimeDefault": {Type: v1.AppArmorProfileTypeRuntimeDefault}, "Unconfined": {Type: v1.AppArmorProfileTypeUnconfined},
		"Localhost": {Type: v1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local},
	} {
		got := apparmor(&v1.SecurityContext{AppArmorProfile: profile})
		if got.ProfileType.String() != want || want == "Localhost" && got.LocalhostRef != "own" {
			t.Errorf("%s: %v", want, got)
		}
	}
}

// singleProcessOOMKill: without it the kernel ends all of a container's
// processes when one is out of memory.
func TestSingleProcessOOMKill(t *testing.T) {
	p := specPod(nil)
	for one, want := range map[bool]string{false: "1", true: ""} {
		n := sized("1Gi")
		n.OneProcessOOM = one
		if got := n.containerResources(p, &p.Spec.Containers[0]).Unified["memory.oom.group"]; got != want {
			t.Errorf("%t: memory.oom.group %q, want %q", one, got, want)
		}
	}
}
