package work

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/volume"
)

func specPod(change func(*v1.PodSpec)) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid"},
		Spec:       v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, Containers: []v1.Container{{Name: "app"}}},
	}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

// "DNS for Services and Pods": what each policy makes of resolv.conf.
func TestResolve(t *testing.T) {
	host, err := ParseResolver(strings.NewReader("# comment\nnameserver 192.0.2.53\ndomain old.example\nsearch example.com. corp\noptions rotate timeout:3\n"))
	if err != nil {
		t.Fatal(err)
	}
	dns := DNS{Servers: []string{"10.43.0.10"}, Domain: "cluster.local", Host: func() (Resolver, error) { return host, nil }}
	policy := func(p v1.DNSPolicy) func(*v1.PodSpec) { return func(s *v1.PodSpec) { s.DNSPolicy = p } }
	const cluster = "[10.43.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local example.com corp] [ndots:5]"
	const own = "[192.0.2.53] [example.com corp] [rotate timeout:3]"
	for name, c := range map[string]struct {
		change          func(*v1.PodSpec)
		want, complaint string
	}{
		"cluster first":        {policy(v1.DNSClusterFirst), cluster, ""},
		"default":              {policy(v1.DNSDefault), own, ""},
		"none":                 {policy(v1.DNSNone), "[] [] []", ""},
		"host network":         {func(s *v1.PodSpec) { s.HostNetwork = true }, own, ""},
		"host network, wanted": {func(s *v1.PodSpec) { s.HostNetwork, s.DNSPolicy = true, v1.DNSClusterFirstWithHostNet }, cluster, ""},
		"own configuration": {func(s *v1.PodSpec) {
			s.DNSPolicy = v1.DNSDefault
			s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "192.0.2.53"}, Searches: []string{"corp", "new"},
				Options: []v1.PodDNSConfigOption{{Name: "timeout", Value: ptr.To("1")}, {Name: "edns0"}}}
		}, "[192.0.2.53 1.1.1.1] [example.com corp new] [rotate timeout:1 edns0]", ""},
		"too many servers": {func(s *v1.PodSpec) {
			s.DNSPolicy = v1.DNSNone
			s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}}
		}, "[1.1.1.1 2.2.2.2 3.3.3.3] [] []", "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3"},
	} {
		got, complaint, err := dns.Resolve(specPod(c.change))
		if text := fmt.Sprint(got.Servers, " ", got.Searches, " ", got.Options); text != c.want || complaint != c.complaint || err != nil {
			t.Errorf("%s: got %s %q %v, want %s", name, text, complaint, err, c.want)
		}
	}
	dns.Servers = nil
	if _, complaint, _ := dns.Resolve(specPod(nil)); !strings.Contains(complaint, "Falling back to \"Default\" policy") {
		t.Errorf("without a cluster server: %q", complaint)
	}
	// resolvConf: "" leaves pods of policy Default without names, and adds nothing
	// to those of the cluster's.
	dns = DNS{Servers: []string{"10.43.0.10"}, Domain: "cluster.local"}
	if got, _, err := dns.Resolve(specPod(policy(v1.DNSDefault))); err != nil || fmt.Sprint(got) != "{[127.0.0.1] [.] []}" {
		t.Errorf("of a host without a configuration: %v %v", got, err)
	}
	if got, _, err := dns.Resolve(specPod(nil)); err != nil || len(got.Searches) != 3 {
		t.Errorf("the cluster's, of a host without a configuration: %v %v", got, err)
	}
	dns.Host = func() (Resolver, error) { return Resolver{}, errors.New("unreadable") }
	if _, _, err := dns.Resolve(specPod(nil)); err == nil {
		t.Error("a configuration that cannot be read is none")
	}
}

// "Pod's hostname and subdomain fields".
func TestHostname(t *testing.T) {
	n := &Node{Name: "n1", DNS: DNS{Domain: "cluster.local"}}
	for name, c := range map[string]struct {
		change     func(*v1.PodSpec)
		want, fqdn string
	}{
		"name":      {nil, "p", ""},
		"hostname":  {func(s *v1.PodSpec) { s.Hostname = "h" }, "h", ""},
		"subdomain": {func(s *v1.PodSpec) { s.Hostname, s.Subdomain = "h", "sub" }, "h", "h.sub.ns.svc.cluster.local"},
		"as fqdn": {func(s *v1.PodSpec) { s.Subdomain, s.SetHostnameAsFQDN = "sub", ptr.To(true) },
			"p.sub.ns.svc.cluster.local", "p.sub.ns.svc.cluster.local"},
		"override": {func(s *v1.PodSpec) { s.HostnameOverride = ptr.To("any.name") }, "any.name", ""},
		"host":     {func(s *v1.PodSpec) { s.HostNetwork = true }, "n1", ""},
	} {
		got, fqdn, err := n.Hostname(specPod(c.change))
		if err != nil || got != c.want || fqdn != c.fqdn {
			t.Errorf("%s: %q %q %v", name, got, fqdn, err)
		}
	}
	long := specPod(nil)
	long.Name = strings.Repeat("a", 62) + ".b"
	if got, _, _ := n.Hostname(long); got != strings.Repeat("a", 62) {
		t.Errorf("long name: %q", got)
	}
	long.Spec.Subdomain, long.Spec.SetHostnameAsFQDN = "sub", ptr.To(true)
	if _, _, err := n.Hostname(long); err == nil || !strings.Contains(err.Error(), "too long (64 characters is the max, ") {
		t.Errorf("long FQDN: %v", err)
	}
}

// "Adding entries to Pod /etc/hosts with HostAliases".
func TestHosts(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "hosts")
	if err := os.WriteFile(own, []byte("127.0.0.1 node\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := &Node{Name: "n1", HostsFile: own, DNS: DNS{Domain: "cluster.local"}, Volumes: volume.New(volume.Config{Clock: clock.RealClock{}, PodsDir: dir})}
	if err := os.Mkdir(n.Volumes.PodDir("uid"), 0o755); err != nil {
		t.Fatal(err)
	}
	aliases := []v1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a.example", "b"}}}
	for name, c := range map[string]struct {
		change func(*v1.PodSpec)
		want   []string
	}{
		"own":    {func(s *v1.PodSpec) { s.HostAliases = aliases }, []string{"10.42.0.5\tp", "fd00::5\tp", "", "# Entries added by HostAliases.", "192.0.2.9\ta.example\tb"}},
		"fqdn":   {func(s *v1.PodSpec) { s.Subdomain = "sub" }, []string{"10.42.0.5\tp.sub.ns.svc.cluster.local\tp", "fd00::5\tp.sub.ns.svc.cluster.local\tp"}},
		"node's": {func(s *v1.PodSpec) { s.HostNetwork = true }, []string{"# Kubernetes-managed hosts file (host network).", "127.0.0.1 node"}},
	} {
		path, err := n.hostsFile(specPod(c.change), []string{"10.42.0.5", "fd00::5"})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
		if diff := cmp.Diff(c.want, lines[len(lines)-len(c.want):]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func securityOf(t *testing.T, image *cri.Image, pod *v1.PodSecurityContext, c *v1.SecurityContext) (*cri.LinuxContainerSecurityContext, error) {
	t.Helper()
	p := specPod(func(s *v1.PodSpec) { s.SecurityContext, s.Containers[0].SecurityContext = pod, c })
	return (&Node{SeccompDir: "/data/seccomp"}).containerSecurity(p, &p.Spec.Containers[0], image)
}

// "Configure a security context": the container's settings come before the
// pod's, and those before the image's.
func TestSecurity(t *testing.T) {
	image := &cri.Image{Uid: &cri.Int64Value{Value: 7}}
	got, err := securityOf(t, image, &v1.PodSecurityContext{
		RunAsUser: ptr.To[int64](1000), RunAsGroup: ptr.To[int64](3000), FSGroup: ptr.To[int64](2000), SupplementalGroups: []int64{4000},
		SupplementalGroupsPolicy: ptr.To(v1.SupplementalGroupsPolicyStrict),
		SeccompProfile:           &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault},
	}, &v1.SecurityContext{
		RunAsUser: ptr.To[int64](1001), ReadOnlyRootFilesystem: ptr.To(true), AllowPrivilegeEscalation: ptr.To(false),
		Capabilities: &v1.Capabilities{Add: []v1.Capability{"NET_ADMIN"}, Drop: []v1.Capability{"ALL"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.RunAsUser.Value != 1001 || got.RunAsGroup.Value != 3000 || !slices.Equal(got.SupplementalGroups, []int64{4000, 2000}) ||
		got.SupplementalGroupsPolicy != cri.SupplementalGroupsPolicy_Strict || !got.ReadonlyRootfs || !got.NoNewPrivs ||
		got.Capabilities.AddCapabilities[0] != "NET_ADMIN" || got.Capabilities.DropCapabilities[0] != "ALL" ||
		got.Seccomp.ProfileType != cri.SecurityProfile_RuntimeDefault || len(got.MaskedPaths) == 0 || len(got.ReadonlyPaths) == 0 {
		t.Errorf("%+v", got)
	}
	got, err = securityOf(t, image, nil, &v1.SecurityContext{Privileged: ptr.To(true), SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("dir/p.json")}})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Privileged || got.MaskedPaths != nil || got.Seccomp.LocalhostRef != "/data/seccomp/dir/p.json" || got.RunAsUser.Value != 7 {
		t.Errorf("%+v", got)
	}
	got, err = securityOf(t, &cri.Image{Username: "www"}, nil, &v1.SecurityContext{ProcMount: ptr.To(v1.UnmaskedProcMount)})
	if err != nil {
		t.Fatal(err)
	}
	if got.RunAsUser != nil || got.RunAsUsername != "www" || got.MaskedPaths != nil || got.Seccomp.ProfileType != cri.SecurityProfile_Unconfined {
		t.Errorf("%+v", got)
	}
}

// runAsNonRoot is checked before the container is made.
func TestNonRoot(t *testing.T) {
	must := &v1.PodSecurityContext{RunAsNonRoot: ptr.To(true)}
	const where = ` (pod: "p_ns(uid)", container: app)`
	for _, c := range []struct {
		image *cri.Image
		own   *v1.SecurityContext
		want  string
	}{
		{&cri.Image{Uid: &cri.Int64Value{Value: 1}}, nil, ""},
		{&cri.Image{Uid: &cri.Int64Value{}}, nil, "container has runAsNonRoot and image will run as root" + where},
		{&cri.Image{}, nil, "container has runAsNonRoot and image will run as root" + where},
		{&cri.Image{Username: "www"}, nil, "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root" + where},
		{&cri.Image{}, &v1.SecurityContext{RunAsUser: ptr.To[int64](5)}, ""},
		{&cri.Image{}, &v1.SecurityContext{RunAsUser: ptr.To[int64](0)}, "container's runAsUser breaks non-root policy" + where},
		{&cri.Image{}, &v1.SecurityContext{RunAsNonRoot: ptr.To(false)}, ""},
	} {
		_, err := securityOf(t, c.image, must, c.own)
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	for _, c := range []struct {
		change func(*v1.PodSpec)
		want   string
	}{
		{nil, "POD CONTAINER POD"},
		{func(s *v1.PodSpec) { s.HostNetwork, s.HostPID, s.HostIPC = true, true, true }, "NODE NODE NODE"},
		{func(s *v1.PodSpec) { s.ShareProcessNamespace = ptr.To(true) }, "POD POD POD"},
	} {
		n := namespaces(specPod(c.change))
		if got := fmt.Sprint(n.Network, " ", n.Pid, " ", n.Ipc); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// Requests and limits in the kernel's units, and who dies first.
func TestResources(t *testing.T) {
	list := func(cpu, memory string) v1.ResourceList {
		out := v1.ResourceList{}
		if cpu != "" {
			out[v1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			out[v1.ResourceMemory] = resource.MustParse(memory)
		}
		return out
	}
	for name, c := range map[string]struct {
		requests, limits v1.ResourceList
		priority         int32
		want             string
	}{
		"best effort":  {nil, nil, 0, "shares=2 quota=0 memory=0 oom=1000"},
		"guaranteed":   {list("500m", "64Mi"), list("500m", "64Mi"), 0, "shares=512 quota=50000 memory=67108864 oom=-997"},
		"burstable":    {list("250m", "256Mi"), nil, 0, "shares=256 quota=0 memory=0 oom=750"},
		"little":       {list("", "1Mi"), nil, 0, "shares=2 quota=0 memory=0 oom=999"},
		"much":         {list("", "1Gi"), nil, 0, "shares=2 quota=0 memory=0 oom=3"},
		"only a limit": {nil, list("1", ""), 0, "shares=1024 quota=100000 memory=0 oom=999"},
		"critical":     {nil, nil, 2000001000, "shares=2 quota=0 memory=0 oom=-997"},
	} {
		p := specPod(func(s *v1.PodSpec) {
			s.Priority = &c.priority
			s.Containers[0].Resources = v1.ResourceRequirements{Requests: c.requests, Limits: c.limits}
		})
		r := sized("1Gi").containerResources(p, &p.Spec.Containers[0])
		got := fmt.Sprintf("shares=%d quota=%d memory=%d oom=%d", r.CpuShares, r.CpuQuota, r.MemoryLimitInBytes, r.OomScoreAdj)
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	p := specPod(func(s *v1.PodSpec) {
		s.Containers[0].Resources.Limits = v1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi"), "hugepages-1Gi": resource.MustParse("1Gi")}
	})
	if got := sized("0").containerResources(p, &p.Spec.Containers[0]).Unified["memory.oom.group"]; got != "1" {
		t.Errorf("a container is not killed as a whole: %q", got)
	}
	var pages []string
	for _, h := range sized("0").containerResources(p, &p.Spec.Containers[0]).HugepageLimits {
		pages = append(pages, fmt.Sprint(h.PageSize, "=", h.Limit))
	}
	slices.Sort(pages)
	if !slices.Equal(pages, []string{"1GB=1073741824", "2MB=4194304"}) {
		t.Errorf("huge pages: %v", pages)
	}
}

// "Node out-of-memory behavior": a sidecar is not killed before those that it
// helps; what a pod requests as a whole counts for all its containers, and its
// limit holds for those without one.
func TestScores(t *testing.T) {
	memory := func(s string) v1.ResourceRequirements {
		return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse(s)}}
	}
	p := specPod(func(s *v1.PodSpec) {
		s.InitContainers = []v1.Container{{Name: "side", RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways), Resources: memory("1Mi")}, {Name: "init", Resources: memory("1Mi")}}
		s.Containers = []v1.Container{{Name: "big", Resources: memory("512Mi")}, {Name: "small", Resources: memory("256Mi")}}
	})
	scores := func() string {
		var out []string
		for _, list := range [][]v1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for i := range list {
				r := sized("1Gi").containerResources(p, &list[i])
				out = append(out, fmt.Sprint(list[i].Name, "=", r.OomScoreAdj, "/", r.MemoryLimitInBytes>>20))
			}
		}
		return strings.Join(out, " ")
	}
	if got := scores(); got != "side=750/0 init=999/0 big=500/0 small=750/0" {
		t.Errorf("scores and limits: %s", got)
	}
	// 1024 - 769 MiB are shared by three.
	p.Spec.Resources = &v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("1Gi")}, Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("2Gi")},
	}
	if got := scores(); got != "side=667/2048 init=917/2048 big=417/2048 small=667/2048" {
		t.Errorf("with requests of the pod: %s", got)
	}
}

// sized is a node with so much memory and groups of version 2.
func sized(memory string) *Node {
	return &Node{
		Capacity: func() v1.ResourceList { return v1.ResourceList{v1.ResourceMemory: resource.MustParse(memory)} },
		Groups:   unifiedGroups{},
	}
}

type unifiedGroups struct{ Groups }

func (unifiedGroups) Inside(group string) map[string]string {
	return map[string]string{"memory.oom.group": "1"}
}

func TestPortMappings(t *testing.T) {
	p := specPod(func(s *v1.PodSpec) {
		s.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 53, HostPort: 5353, Protocol: v1.ProtocolUDP, HostIP: "192.0.2.1"}}
	})
	got := portMappings(p)
	if len(got) != 1 || got[0].HostPort != 5353 || got[0].ContainerPort != 53 || got[0].Protocol != cri.Protocol_UDP || got[0].HostIp != "192.0.2.1" {
		t.Errorf("%v", got)
	}
}

// Termination messages: the file, the log where the policy says so, what the
// runtime says.
func TestTerminationMessage(t *testing.T) {
	dir := t.TempDir()
	file, log := filepath.Join(dir, "message"), filepath.Join(dir, "0.log")
	var lines strings.Builder
	for i := range 200 {
		fmt.Fprintf(&lines, "2026-01-02T15:04:05Z stdout F line %d\n", i)
	}
	if err := os.WriteFile(log, []byte(lines.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	st := &cri.ContainerStatus{
		ExitCode: 1, LogPath: log, Mounts: []*cri.Mount{{ContainerPath: "/dev/log", HostPath: file}},
		Annotations: map[string]string{noteMessagePath: "/dev/log", noteMessagePolicy: string(v1.TerminationMessageFallbackToLogsOnError)},
	}
	got := terminationMessage(clock.RealClock{}, st)
	if !strings.HasSuffix(got, "line 199\n") || strings.Count(got, "\n") != maxMessageLines || len(got) > maxLogMessage {
		t.Errorf("from the log: %d lines, %q", strings.Count(got, "\n"), got)
	}
	st.ExitCode = 0
	if got := terminationMessage(clock.RealClock{}, st); got != "" {
		t.Errorf("after success: %q", got)
	}
	st.ExitCode = 1
	if err := os.WriteFile(file, []byte("begin"+strings.Repeat("x", 5000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := terminationMessage(clock.RealClock{}, st); got != strings.Repeat("x", maxMessage) {
		t.Errorf("from the file: %d bytes, %.10q", len(got), got)
	}
	st.Message = "runtime says"
	if got := terminationMessage(clock.RealClock{}, st); !strings.HasPrefix(got, "runtime says: xx") {
		t.Errorf("with the runtime's: %.20q", got)
	}
}
