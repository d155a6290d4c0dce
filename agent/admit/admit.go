// Package admit decides whether a pod that was bound to this node may run on
// it. The scheduler has decided that before; here the node has the last word,
// for pods bound past the scheduler or while the node changed.
//
// It is pure: a decision over what is known.
package admit

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"hansa.dev/hansa/agent/pod"
)

// Node is what a pod is admitted to.
type Node struct {
	// Object carries the node's labels; nil when it is not known yet.
	Object      *v1.Node
	Allocatable v1.ResourceList
	// Claims are those of the pods that are admitted and not over.
	Claims []*Claim
	OS     string
	// AppArmor says that the kernel enforces profiles.
	AppArmor bool
	// Sysctls are names or patterns (ending in *) of those that pods may set
	// beside the safe ones.
	Sysctls []string
}

// Pod answers nil when p may run, or why it may not, in Kubernetes' words.
func Pod(p *v1.Pod, n Node) *pod.Refusal {
	if r := pressure(p, n.Object); r != nil {
		return r
	}
	if r := sysctls(p, n.Sysctls); r != nil {
		return r
	}
	if os := p.Spec.OS; os != nil && string(os.Name) != n.OS {
		return &pod.Refusal{Reason: "PodOSNotSupported", Message: "Failed to admit pod as the OS field doesn't match node OS"}
	}
	if !n.AppArmor && confined(p) {
		return &pod.Refusal{Reason: "AppArmor", Message: "Cannot enforce AppArmor: AppArmor is not enabled on the host"}
	}
	if r := resources(p, n); r != nil {
		return r
	}
	if n.Object != nil {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(n.Object); err != nil || !ok {
			return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
		}
		if untolerated(p, n.Object) {
			return predicate("TaintToleration", "node(s) had untolerated taint(s)")
		}
	}
	if portsTaken(p, n.Claims) {
		return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
	}
	return nil
}

// pressure refuses what a node that is short of something does not take on
// ("Node-pressure Eviction"): one that is short of memory takes pods that say
// how much they need.
func pressure(p *v1.Pod, node *v1.Node) *pod.Refusal {
	if node == nil || pod.IsCritical(p) {
		return nil
	}
	var short []v1.NodeConditionType
	for _, c := range node.Status.Conditions {
		if c.Status == v1.ConditionTrue && slices.Contains([]v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure}, c.Type) {
			short = append(short, c.Type)
		}
	}
	if len(short) == 0 {
		return nil
	}
	taint := v1.Taint{Key: v1.TaintNodeMemoryPressure, Effect: v1.TaintEffectNoSchedule}
	tolerated := pod.QOS(p) != v1.PodQOSBestEffort || slices.ContainsFunc(p.Spec.Tolerations, func(t v1.Toleration) bool { return tolerates(t, taint) })
	if slices.Equal(short, []v1.NodeConditionType{v1.NodeMemoryPressure}) && tolerated {
		return nil
	}
	return &pod.Refusal{Reason: "Evicted", Message: fmt.Sprintf("The node had condition: %v. ", short)}
}

// confined says that a container is to run under an AppArmor profile.
func confined(p *v1.Pod) bool {
	asks := func(a *v1.AppArmorProfile) bool { return a != nil && a.Type != v1.AppArmorProfileTypeUnconfined }
	for c := range pod.Containers(&p.Spec) {
		own := c.SecurityContext
		switch {
		case own != nil && own.AppArmorProfile != nil:
			if asks(own.AppArmorProfile) {
				return true
			}
		case p.Spec.SecurityContext != nil && asks(p.Spec.SecurityContext.AppArmorProfile):
			return true
		}
	}
	return false
}

func predicate(name, why string) *pod.Refusal {
	return &pod.Refusal{Reason: name, Message: fmt.Sprintf("Predicate %s failed: %s", name, why)}
}

// resources checks that what the pod requests is left.
func resources(p *v1.Pod, n Node) *pod.Refusal {
	if limit, ok := n.Allocatable[v1.ResourcePods]; ok && int64(len(n.Claims)+1) > limit.Value() {
		return short(v1.ResourcePods, 1, int64(len(n.Claims)), limit.Value())
	}
	used := held(n.Claims)
	requests := pod.Requests(p)
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage} {
		if r := fits(name, requests, used, n.Allocatable); r != nil {
			return r
		}
	}
	var others []string
	for name := range requests {
		if name != v1.ResourceCPU && name != v1.ResourceMemory && name != v1.ResourceEphemeralStorage {
			others = append(others, string(name))
		}
	}
	slices.Sort(others)
	capacity := n.Allocatable
	if n.Object != nil {
		capacity = merged(n.Allocatable, n.Object.Status.Allocatable)
	}
	for _, name := range others {
		if r := fits(v1.ResourceName(name), requests, used, capacity); r != nil {
			return r
		}
	}
	return nil
}

// merged adds resources that others announced on the node's object.
func merged(ours, announced v1.ResourceList) v1.ResourceList {
	out := announced.DeepCopy()
	if out == nil {
		out = v1.ResourceList{}
	}
	for name, q := range ours {
		out[name] = q
	}
	return out
}

func short(name v1.ResourceName, requested, used, capacity int64) *pod.Refusal {
	return &pod.Refusal{
		Reason:  "OutOf" + string(name),
		Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity),
	}
}

func fits(name v1.ResourceName, requests, used, capacity v1.ResourceList) *pod.Refusal {
	want := requests[name]
	if want.IsZero() {
		return nil
	}
	u, c := used[name], capacity[name]
	total := want.DeepCopy()
	total.Add(u)
	if total.Cmp(c) <= 0 {
		return nil
	}
	if name == v1.ResourceCPU {
		return short(name, want.MilliValue(), u.MilliValue(), c.MilliValue())
	}
	return short(name, want.Value(), u.Value(), c.Value())
}

// untolerated says whether a taint would evict the pod at once.
func untolerated(p *v1.Pod, node *v1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool {
		return t.Effect == v1.TaintEffectNoExecute && !slices.ContainsFunc(p.Spec.Tolerations, func(tol v1.Toleration) bool { return tolerates(tol, t) })
	})
}

func tolerates(tol v1.Toleration, t v1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	return tol.Operator == v1.TolerationOpExists || (tol.Operator == "" || tol.Operator == v1.TolerationOpEqual) && tol.Value == t.Value
}

type port struct {
	protocol v1.Protocol
	number   int32
}

// hostPorts are the node's ports that a pod uses, with their addresses.
func hostPorts(p *v1.Pod) map[port][]string {
	out := map[port][]string{}
	for c := range pod.Containers(&p.Spec) {
		for _, cp := range c.Ports {
			if cp.HostPort <= 0 {
				continue
			}
			key := port{cp.Protocol, cp.HostPort}
			if key.protocol == "" {
				key.protocol = v1.ProtocolTCP
			}
			out[key] = append(out[key], cp.HostIP)
		}
	}
	return out
}

func portsTaken(p *v1.Pod, others []*Claim) bool {
	want := hostPorts(p)
	if len(want) == 0 {
		return false
	}
	for _, o := range others {
		for key, have := range hostPorts(o.Pod) {
			for _, ip := range want[key] {
				if slices.ContainsFunc(have, func(other string) bool { return ip == other || wildcard(ip) || wildcard(other) }) {
					return true
				}
			}
		}
	}
	return false
}

func wildcard(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

// safeSysctls are those that are bound to a namespace of the pod and harm
// nobody else.
var safeSysctls = []string{
	"kernel.shm_rmid_forced",
	"net.ipv4.ip_local_port_range",
	"net.ipv4.ip_local_reserved_ports",
	"net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.ping_group_range",
	"net.ipv4.tcp_fin_timeout",
	"net.ipv4.tcp_keepalive_intvl",
	"net.ipv4.tcp_keepalive_probes",
	"net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_notsent_lowat",
	"net.ipv4.tcp_rmem",
	"net.ipv4.tcp_slow_start_after_idle",
	"net.ipv4.tcp_syncookies",
	"net.ipv4.tcp_wmem",
}

// sysctls refuses those that are neither safe nor allowed, and those of a
// namespace that the pod shares with the node.
func sysctls(p *v1.Pod, allowed []string) *pod.Refusal {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	shared := map[sysctl.Namespace]bool{
		sysctl.NetNamespace: p.Spec.HostNetwork, sysctl.IPCNamespace: p.Spec.HostIPC,
		sysctl.UserNamespace: p.Spec.HostUsers == nil || *p.Spec.HostUsers,
	}
	for _, s := range p.Spec.SecurityContext.Sysctls {
		name := sysctl.NormalizeName(s.Name)
		if !slices.Contains(safeSysctls, name) && !slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, name) }) {
			return &pod.Refusal{Reason: "SysctlForbidden", Message: fmt.Sprintf("forbidden sysctl: %q not allowlisted", name)}
		}
		if ns, _, _ := sysctl.GetNamespace(name); shared[ns] {
			return &pod.Refusal{Reason: "SysctlForbidden", Message: fmt.Sprintf("forbidden sysctl: %q not allowed with host %s enabled", name, ns)}
		}
	}
	return nil
}

func matches(pattern, name string) bool {
	_, want, prefixed := sysctl.GetNamespace(pattern)
	return name == want || prefixed && strings.HasPrefix(name, want)
}
