package work

import (
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/userns"
)

// Paths of /proc and /sys that containers do not see or may not write to, as
// the default procMount type has them.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func (n *Node) sandboxSecurity(p *v1.Pod, handler string) *cri.LinuxSandboxSecurityContext {
	out := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(p),
		Privileged:       anyPrivileged(p),
		Seccomp:          n.sandboxSeccomp(handler),
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			out.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
			if sc.RunAsGroup != nil {
				// A group without a user is refused by runtimes.
				out.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
			}
		}
		out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(sc)
		out.SelinuxOptions = selinux(sc.SELinuxOptions)
	}
	return out
}

// sandboxSeccomp is the profile of a sandbox: the runtime's, as the kubelet has it,
// unless the sandbox's program needs none. To make that filter takes a tenth of the
// processor time of a pod.
func (n *Node) sandboxSeccomp(handler string) *cri.SecurityProfile {
	if n.SelfConfined && handler == "" {
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	}
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
}

func groups(sc *v1.PodSecurityContext) ([]int64, cri.SupplementalGroupsPolicy) {
	out := append([]int64(nil), sc.SupplementalGroups...)
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	policy := cri.SupplementalGroupsPolicy_Merge
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict {
		policy = cri.SupplementalGroupsPolicy_Strict
	}
	return out, policy
}

func anyPrivileged(p *v1.Pod) bool {
	for c := range pod.Containers(&p.Spec) {
		if sc := c.SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
			return true
		}
	}
	return false
}

func namespaces(p *v1.Pod) *cri.NamespaceOption {
	out := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	if p.Spec.HostNetwork {
		out.Network = cri.NamespaceMode_NODE
	}
	if p.Spec.HostIPC {
		out.Ipc = cri.NamespaceMode_NODE
	}
	switch {
	case p.Spec.HostPID:
		out.Pid = cri.NamespaceMode_NODE
	case p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace:
		out.Pid = cri.NamespaceMode_POD
	}
	return out
}

// ownUsers says that the pod has user IDs of its own.
func ownUsers(p *v1.Pod) bool { return p.Spec.HostUsers != nil && !*p.Spec.HostUsers }

// mapUsers puts a pod that wants one into a user namespace. The files of its
// volumes keep their owners: they are mounted with the same mapping.
func (n *Node) mapUsers(p *v1.Pod, o *cri.NamespaceOption) ([]*cri.IDMapping, error) {
	if !ownUsers(p) {
		return nil, nil
	}
	first, err := n.Users.First(p.UID)
	if err != nil {
		return nil, err
	}
	ids := []*cri.IDMapping{{HostId: first, ContainerId: 0, Length: userns.Length}}
	o.UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: ids, Gids: ids}
	return ids, nil
}

func selinux(o *v1.SELinuxOptions) *cri.SELinuxOption {
	if o == nil {
		return nil
	}
	return &cri.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

// effective is a container's security context, with what it does not say taken
// from the pod's.
func effective(p *v1.Pod, c *v1.Container) v1.SecurityContext {
	var out v1.SecurityContext
	if c.SecurityContext != nil {
		out = *c.SecurityContext
	}
	sc := p.Spec.SecurityContext
	if sc == nil {
		return out
	}
	if out.RunAsUser == nil {
		out.RunAsUser = sc.RunAsUser
	}
	if out.RunAsGroup == nil {
		out.RunAsGroup = sc.RunAsGroup
	}
	if out.RunAsNonRoot == nil {
		out.RunAsNonRoot = sc.RunAsNonRoot
	}
	if out.SELinuxOptions == nil {
		out.SELinuxOptions = sc.SELinuxOptions
	}
	if out.SeccompProfile == nil {
		out.SeccompProfile = sc.SeccompProfile
	}
	if out.AppArmorProfile == nil {
		out.AppArmorProfile = sc.AppArmorProfile
	}
	return out
}

// containerSecurity is the security context of one container as the runtime is
// to apply it. The error says why the container may not run.
func (n *Node) containerSecurity(p *v1.Pod, c *v1.Container, image *cri.Image) (*cri.LinuxContainerSecurityContext, error) {
	sc := effective(p, c)
	if err := verifyNonRoot(p, c, &sc, image); err != nil {
		return nil, err
	}
	out := &cri.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(p),
		Privileged:       ptr.Deref(sc.Privileged, false),
		ReadonlyRootfs:   ptr.Deref(sc.ReadOnlyRootFilesystem, false),
		NoNewPrivs:       sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		SelinuxOptions:   selinux(sc.SELinuxOptions),
	}
	switch {
	case sc.RunAsUser != nil:
		out.RunAsUser = &cri.Int64Value{Value: *sc.RunAsUser}
	case image.GetUid() != nil:
		out.RunAsUser = &cri.Int64Value{Value: image.Uid.Value}
	case image.GetUsername() != "":
		out.RunAsUsername = image.Username
	}
	if sc.RunAsGroup != nil {
		out.RunAsGroup = &cri.Int64Value{Value: *sc.RunAsGroup}
	}
	if psc := p.Spec.SecurityContext; psc != nil {
		out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(psc)
	}
	if caps := sc.Capabilities; caps != nil {
		out.Capabilities = &cri.Capability{AddCapabilities: names(caps.Add), DropCapabilities: names(caps.Drop)}
	}
	if !out.Privileged && (sc.ProcMount == nil || *sc.ProcMount != v1.UnmaskedProcMount) {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	var err error
	if out.Seccomp, err = n.seccomp(&sc); err != nil {
		return nil, err
	}
	out.Apparmor = apparmor(&sc)
	return out, nil
}

func names(caps []v1.Capability) []string {
	var out []string
	for _, c := range caps {
		out = append(out, string(c))
	}
	return out
}

// verifyNonRoot refuses a container that has to run as another user than root
// and would not, or might not.
func verifyNonRoot(p *v1.Pod, c *v1.Container, sc *v1.SecurityContext, image *cri.Image) error {
	if !ptr.Deref(sc.RunAsNonRoot, false) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", p.Name+"_"+p.Namespace+"("+string(p.UID)+")", c.Name)
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case sc.RunAsUser != nil:
		return nil
	case image.GetUid() != nil && image.Uid.Value == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case image.GetUid() == nil && image.GetUsername() != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", image.Username, where)
	case image.GetUid() == nil:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	return nil
}

func (n *Node) seccomp(sc *v1.SecurityContext) (*cri.SecurityProfile, error) {
	if sc.SeccompProfile == nil && n.SeccompDefault {
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}, nil
	}
	if sc.SeccompProfile == nil {
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, nil
	}
	switch sc.SeccompProfile.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}, nil
	case v1.SeccompProfileTypeLocalhost:
		ref := sc.SeccompProfile.LocalhostProfile
		if ref == nil || *ref == "" {
			return nil, fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost")
		}
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: filepath.Join(n.SeccompDir, *ref)}, nil
	default:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, nil
	}
}

func apparmor(sc *v1.SecurityContext) *cri.SecurityProfile {
	if sc.AppArmorProfile == nil {
		return nil
	}
	switch sc.AppArmorProfile.Type {
	case v1.AppArmorProfileTypeRuntimeDefault:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	case v1.AppArmorProfileTypeLocalhost:
		if ref := sc.AppArmorProfile.LocalhostProfile; ref != nil {
			return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: *ref}
		}
	}
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
}
