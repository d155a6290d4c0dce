package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var securityRows = []row{
	{"security context: user, group, supplemental groups, fsGroup", identity},
	{"security context: group of a container", containerGroup},
	{"security context: user of the image and of names", notRoot},
	{"security context: capabilities", capabilities},
	{"security context: read-only root", readOnlyRoot},
	{"security context: privileged", privileged},
	{"security context: no more privileges", noNewPrivileges},
	{"security context: seccomp RuntimeDefault", seccompDefault},
	{"security context: seccomp Unconfined", seccompUnconfined},
	{"security context: seccomp Localhost", seccompLocalhost},
	{"security context: seccomp of the sandbox", seccompSandbox},
	{"security context: AppArmor", appArmor},
	{"security context: sysctls", sysctls},
	{"security context: the host's namespaces", hostNamespaces},
	{"security context: users of its own", ownUsers},
}

// shellOutput runs a shell command in a container with a security context, in a
// pod with one, and returns what it printed.
func (s *space) shellOutput(podContext, containerContext, script string) string {
	s.t.Helper()
	return s.output("p", fmt.Sprintf(`
restartPolicy: Never
securityContext: {%s}
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, %q]
  securityContext: {%s}
  volumeMounts: [{name: work, mountPath: /work}]
`, podContext, script, containerContext))
}

func identity(s *space) {
	got := s.shellOutput("runAsUser: 1, runAsGroup: 2000, supplementalGroups: [3000], fsGroup: 4000", "runAsUser: 1000",
		"id -u; id -g; id -G; touch /work/file; stat -c '%u:%g' /work/file; stat -c '%a %u:%g' /work")
	if want := "1000\n2000\n2000 3000 4000\n1000:4000\n2777 0:4000\n"; got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

// A container's own group instead of the pod's.
func containerGroup(s *space) {
	got := s.shellOutput("runAsUser: 1, runAsGroup: 2000, fsGroup: 4000", "runAsUser: 1000, runAsGroup: 2001", "id -u; id -g; id -G; touch /tmp/file; stat -c '%u:%g' /tmp/file")
	if want := "1000\n2001\n2001 4000\n1000:2001\n"; got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

func notRoot(s *space) {
	s.create("root", `
containers:
- {name: main, image: hansa.local/busybox:1, securityContext: {runAsNonRoot: true}}
`)
	s.until("root", "it is refused", func(p *corev1.Pod) bool {
		w := waiting(p)
		return w.Reason == "CreateContainerConfigError" && strings.HasPrefix(w.Message, "container has runAsNonRoot and image will run as root")
	})
	got := s.shellOutput("", "runAsNonRoot: true, runAsUser: 33", "id -un")
	if got != "www-data\n" {
		s.t.Errorf("got %q", got)
	}
}

// Bits of the runtime's default set and of CAP_NET_BIND_SERVICE, 10; see
// capabilities(7).
func capabilities(s *space) {
	for name, c := range map[string]struct{ context, want string }{
		"default": {"", "00000000a80425fb"},
		"one":     {"capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}", "0000000000000400"},
		"less":    {"capabilities: {drop: [CHOWN]}", "00000000a80425fa"},
		"none":    {"capabilities: {drop: [ALL]}, runAsUser: 1000", "0000000000000000"},
	} {
		got := s.output(name, fmt.Sprintf(`
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [grep, CapEff, /proc/self/status], securityContext: {%s}}
`, c.context))
		if strings.TrimSpace(got) != "CapEff:\t"+c.want {
			s.t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}
}

func readOnlyRoot(s *space) {
	got := s.shellOutput("", "readOnlyRootFilesystem: true", "touch /file 2>&1; touch /work/file && echo written")
	if want := "touch: /file: Read-only file system\nwritten\n"; got != want {
		s.t.Errorf("got %q", got)
	}
}

func privileged(s *space) {
	got := s.shellOutput("", "privileged: true", "mount -t tmpfs none /tmp && echo mounted; ls /dev/kmsg; grep Seccomp: /proc/self/status; touch /proc/sys/kernel/hostname && echo writable")
	if want := "mounted\n/dev/kmsg\nSeccomp:\t0\nwritable\n"; got != want {
		s.t.Errorf("got %q", got)
	}
}

func noNewPrivileges(s *space) {
	got := s.shellOutput("", "allowPrivilegeEscalation: false", "grep NoNewPrivs /proc/self/status")
	if got != "NoNewPrivs:\t1\n" {
		s.t.Errorf("got %q", got)
	}
}

func seccompDefault(s *space) {
	got := s.shellOutput("seccompProfile: {type: RuntimeDefault}", "", "grep Seccomp: /proc/self/status")
	if got != "Seccomp:\t2\n" {
		s.t.Errorf("got %q", got)
	}
	for _, call := range []string{"unshare", "keyctl"} {
		if got := s.attempt(call, "RuntimeDefault"); got != "EPERM\n" {
			s.t.Errorf("%s: %s", call, got)
		}
	}
}

// Without a profile a container is not confined, as the documentation has it
// for a node that does not say otherwise.
func seccompUnconfined(s *space) {
	got := s.shellOutput("", "", "grep Seccomp: /proc/self/status")
	if got != "Seccomp:\t0\n" {
		s.t.Errorf("without a profile: %q", got)
	}
	if got := s.attempt("keyctl", "Unconfined"); got != "allowed\n" {
		s.t.Errorf("keyctl: %s", got)
	}
}

// attempt tries a system call under a seccomp profile.
func (s *space) attempt(call, profile string) string {
	s.t.Helper()
	return s.output(call, fmt.Sprintf(`
restartPolicy: Never
containers:
- {name: main, image: hansa.local/testimage:1, args: [try, %s], securityContext: {seccompProfile: {type: %s}}}
`, call, profile))
}

// A profile of the node's own, in the data directory's seccomp folder.
func seccompLocalhost(s *space) {
	dir := filepath.Join(s.dir, "seccomp", s.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	profile := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte(profile), 0o644); err != nil {
		s.t.Fatal(err)
	}
	got := s.shellOutput("", "seccompProfile: {type: Localhost, localhostProfile: "+s.name+"/p.json}", "mkdir /made 2>&1; grep Seccomp: /proc/self/status")
	if got != "mkdir: can't create directory '/made': Operation not permitted\nSeccomp:\t2\n" {
		s.t.Errorf("got %q", got)
	}
	s.create("none", `
containers:
- {name: main, image: hansa.local/busybox:1, securityContext: {seccompProfile: {type: Localhost, localhostProfile: none.json}}}
`)
	s.until("none", "it says what is missing", func(p *corev1.Pod) bool {
		return waiting(p).Reason == "CreateContainerError" && strings.HasPrefix(waiting(p).Message, "failed to") && strings.Contains(waiting(p).Message, "none.json")
	})
}

// The sandbox's own process, which a container sees that shares its process space,
// may make few calls and gain nothing, whatever its containers may do.
func seccompSandbox(s *space) {
	got := s.output("p", `
restartPolicy: Never
shareProcessNamespace: true
containers:
- {name: main, image: hansa.local/busybox:1, command: [grep, -E, "^(Name|NoNewPrivs|Seccomp):", /proc/1/status]}
`)
	if got != "Name:\tpause\nNoNewPrivs:\t1\nSeccomp:\t2\n" {
		s.t.Errorf("got %q", got)
	}
}

// Who asks for a profile is not run without one.
func appArmor(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /proc/self/attr/current], securityContext: {appArmorProfile: {type: RuntimeDefault}}}
`)
	p := s.finished("p")
	if enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && strings.HasPrefix(string(enabled), "Y") {
		if got := s.logs("p", "main"); !strings.Contains(got, "(enforce)") {
			s.t.Errorf("profile %q", got)
		}
		return
	}
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "AppArmor" || p.Status.Message != "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host" {
		s.t.Errorf("phase %s, reason %s: %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
	s.event("p", "Warning AppArmor: ")
}

func sysctls(s *space) {
	got := s.shellOutput("sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '80'}]", "", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
	if got != "80\n" {
		s.t.Errorf("got %q", got)
	}
	s.create("unsafe", `
securityContext: {sysctls: [{name: kernel.msgmax, value: "65536"}]}
containers:
- {name: main, image: hansa.local/busybox:1}
`)
	p := s.finished("unsafe")
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "SysctlForbidden" {
		s.t.Errorf("phase %s, reason %s: %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
}

func hostNamespaces(s *space) {
	s.create("p", `
hostNetwork: true
hostPID: true
hostIPC: true
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	p := s.ready("p")
	if p.Status.PodIP != nodeIP || p.Status.HostIP != nodeIP {
		s.t.Errorf("addresses %s and %s", p.Status.PodIP, p.Status.HostIP)
	}
	if got := s.exec("p", "ip", "addr", "show", "eth0"); !strings.Contains(got, nodeIP) {
		s.t.Errorf("links: %s", got)
	}
	if got := s.exec("p", "ps"); !strings.Contains(got, "containerd") {
		s.t.Errorf("processes: %s", got)
	}
	if got := s.exec("p", "hostname"); got != nodeName+"\n" {
		s.t.Errorf("hostname %q", got)
	}
	// A namespace is what its link in /proc says; see namespaces(7).
	s.create("own", sleeper)
	s.ready("own")
	for _, kind := range []string{"ipc", "pid", "net"} {
		file := "/proc/self/ns/" + kind
		host, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", s.process.Process.Pid, kind))
		if err != nil {
			s.t.Fatal(err)
		}
		if got := s.exec("p", "readlink", file); got != host+"\n" {
			s.t.Errorf("%s of the pod with the host's: %q, the host's is %s", kind, got, host)
		}
		if got := s.exec("own", "readlink", file); got == host+"\n" {
			s.t.Errorf("%s of a pod that did not ask for it is the host's", kind)
		}
	}
}

func ownUsers(s *space) {
	s.create("p", `
hostUsers: false
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "touch /work/file; exec sleep 1000"]
  volumeMounts: [{name: work, mountPath: /work}]
`)
	p := s.ready("p")
	if got := strings.Fields(s.exec("p", "cat", "/proc/self/uid_map")); len(got) != 3 || got[0] != "0" || got[1] == "0" || got[2] != "65536" {
		s.t.Errorf("map of users: %v", got)
	}
	if got := s.exec("p", "stat", "-c", "%u", "/work/file"); got != "0\n" {
		s.t.Errorf("owner of its own file: %q", got)
	}
	pid := s.processOf(p, "main")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || strings.Contains(string(status), "\nUid:\t0\t") {
		s.t.Errorf("the host sees it as root: %v\n%s", err, status)
	}
}
