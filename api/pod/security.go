package pod

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podSecurityContext checks what holds for all containers of a pod.
func (c *checker) podSecurityContext(at *field.Path, spec *corev1.PodSpec) {
	sc := spec.SecurityContext
	if sc == nil {
		return
	}
	c.groupID(at.Child("fsGroup"), sc.FSGroup)
	c.userID(at.Child("runAsUser"), sc.RunAsUser)
	c.groupID(at.Child("runAsGroup"), sc.RunAsGroup)
	for i := range sc.SupplementalGroups {
		c.groupID(at.Child("supplementalGroups").Index(i), &sc.SupplementalGroups[i])
	}
	c.sysctls(at.Child("sysctls"), spec)
	optionalOneOf(c, at.Child("fsGroupChangePolicy"), sc.FSGroupChangePolicy, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	c.seccomp(at.Child("seccompProfile"), sc.SeccompProfile)
	c.windowsOptions(at.Child("windowsOptions"), sc.WindowsOptions)
	c.appArmor(at.Child("appArmorProfile"), sc.AppArmorProfile)
	optionalOneOf(c, at.Child("supplementalGroupsPolicy"), sc.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	optionalOneOf(c, at.Child("seLinuxChangePolicy"), sc.SELinuxChangePolicy, corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
}

// securityContext checks a container's own settings.
func (c *checker) securityContext(at *field.Path, sc *corev1.SecurityContext, hostUsers bool) {
	if sc == nil {
		return
	}
	c.userID(at.Child("runAsUser"), sc.RunAsUser)
	c.groupID(at.Child("runAsGroup"), sc.RunAsGroup)
	if sc.ProcMount != nil {
		oneOf(c, at.Child("procMount"), *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if hostUsers && *sc.ProcMount == corev1.UnmaskedProcMount {
			c.invalid(at.Child("procMount"), *sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	c.seccomp(at.Child("seccompProfile"), sc.SeccompProfile)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if isTrue(sc.Privileged) {
			c.invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		for _, capability := range deref(sc.Capabilities).Add {
			if capability == "CAP_SYS_ADMIN" {
				c.invalid(at, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
			}
		}
	}
	c.windowsOptions(at.Child("windowsOptions"), sc.WindowsOptions)
	c.appArmor(at.Child("appArmorProfile"), sc.AppArmorProfile)
}

func (c *checker) userID(at *field.Path, id *int64) {
	if id != nil {
		c.reasons(at, *id, validation.IsValidUserID(*id))
	}
}

func (c *checker) groupID(at *field.Path, id *int64) {
	if id != nil {
		c.reasons(at, *id, validation.IsValidGroupID(*id))
	}
}

func (c *checker) seccomp(at *field.Path, p *corev1.SeccompProfile) {
	if p == nil {
		return
	}
	if p.Type == "" {
		c.required(at.Child("type"), "type is required when seccompProfile is set")
	} else {
		oneOf(c, at.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	file := at.Child("localhostProfile")
	switch local := p.Type == corev1.SeccompProfileTypeLocalhost; {
	case local && p.LocalhostProfile == nil:
		c.required(file, "must be set when seccomp type is Localhost")
	case local:
		c.relativePath(file, *p.LocalhostProfile)
	case p.LocalhostProfile != nil:
		c.invalid(file, p, "can only be set when seccomp type is Localhost")
	}
}

// maxAppArmorProfile is the longest name of a profile on the node, in bytes:
// PATH_MAX without its terminator.
const maxAppArmorProfile = 4095

func (c *checker) appArmor(at *field.Path, p *corev1.AppArmorProfile) {
	if p == nil {
		return
	}
	name := at.Child("localhostProfile")
	const missing = "must be set when AppArmor type is Localhost"
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			c.required(name, missing)
			return
		}
		switch trimmed := strings.TrimSpace(*p.LocalhostProfile); {
		case trimmed != *p.LocalhostProfile:
			c.invalid(name, *p.LocalhostProfile, "must not be padded with whitespace")
		case trimmed == "":
			c.required(name, missing)
		}
		if len(*p.LocalhostProfile) > maxAppArmorProfile {
			c.add(field.TooLong(name, "", maxAppArmorProfile))
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			c.invalid(name, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")
		}
	case "":
		c.required(at.Child("type"), "type is required when appArmorProfile is set")
	default:
		oneOf(c, at.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

// Names of kernel parameters, by dots or by slashes.
const (
	sysctlPart      = `[a-z0-9]([-_a-z0-9]*[a-z0-9])?`
	sysctlMaxLength = 253
)

var sysctlForm = regexp.MustCompile(`^(` + sysctlPart + `[\./])*` + sysctlPart + `$`)

func (c *checker) sysctls(at *field.Path, spec *corev1.PodSpec) {
	seen := sets.New[string]()
	for i, s := range spec.SecurityContext.Sysctls {
		name := at.Index(i).Child("name")
		switch {
		case s.Name == "":
			c.required(name, "")
		case len(s.Name) > sysctlMaxLength || !sysctlForm.MatchString(s.Name):
			c.invalid(name, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", sysctlMaxLength, sysctlForm))
		case seen.Has(s.Name):
			c.duplicate(name, s.Name)
		}
		seen.Insert(s.Name)
	}
	if !c.hostSysctls {
		c.hostSysctlsUnused(at, spec)
	}
}

// hostSysctlsUnused refuses parameters of a namespace that the pod shares with
// the host.
func (c *checker) hostSysctlsUnused(at *field.Path, spec *corev1.PodSpec) {
	if spec.SecurityContext == nil {
		return
	}
	for i, s := range spec.SecurityContext.Sysctls {
		name := at.Index(i).Child("name")
		switch namespace := sysctlNamespace(s.Name); {
		case spec.HostNetwork && namespace == "net":
			c.invalid(name, s.Name, "may not be specified when 'hostNetwork' is true")
		case spec.HostIPC && namespace == "ipc":
			c.invalid(name, s.Name, "may not be specified when 'hostIPC' is true")
		}
	}
}

// ipcSysctls are the parameters of the IPC namespace outside of fs.mqueue
// (ipc_namespaces(7)); the short ones stand for a family ("kernel.shm*").
var ipcSysctls = sets.New("kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	"kernel.shm", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg")

// sysctlNamespace says which namespace a parameter belongs to: "net", "ipc", or
// none that a pod may share with the host.
func sysctlNamespace(name string) string {
	name, _, _ = strings.Cut(dotted(name), "*")
	switch {
	case strings.HasPrefix(name, "net."):
		return "net"
	case strings.HasPrefix(name, "fs.mqueue."), ipcSysctls.Has(name):
		return "ipc"
	}
	return ""
}

// dotted brings a name written with slashes (net/ipv4/conf/eth0.1/forwarding)
// into the form with dots, in which dots and slashes trade places (sysctl.d(5)).
func dotted(name string) string {
	i := strings.IndexAny(name, "./")
	if i < 0 || name[i] == '.' {
		return name
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
