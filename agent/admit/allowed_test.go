package admit_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/admit"
)

// allowedUnsafeSysctls: names and patterns, but not of a namespace that the pod
// shares with the node.
func TestAllowedUnsafeSysctls(t *testing.T) {
	n := admit.Node{OS: "linux", Sysctls: []string{"kernel.msg*", "net.core.somaxconn"}}
	for _, c := range []struct {
		name    string
		hostIPC bool
		want    string
	}{
		{"kernel.msgmax", false, ""}, {"kernel/msgmax", false, ""}, {"net/core/somaxconn", false, ""},
		{"kernel.msgmax", true, `forbidden sysctl: "kernel.msgmax" not allowed with host IPC enabled`},
		{"net.core.rmem_max", false, `forbidden sysctl: "net.core.rmem_max" not allowlisted`},
		{"net.ipv4.tcp_notsent_lowat", false, ""},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{HostIPC: c.hostIPC, SecurityContext: &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: c.name, Value: "1"}}}}}
		got := ""
		if r := admit.Pod(p, n); r != nil {
			got = r.Message
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
