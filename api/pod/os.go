package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// operatingSystem: a pod that says which system it is for may not use what the
// other one has.
func (c *checker) operatingSystem(at *field.Path, spec *corev1.PodSpec) {
	if spec.OS == nil {
		return
	}
	switch spec.OS.Name {
	case "":
		c.required(at.Child("os", "name"), "")
	case corev1.Linux:
		c.linuxOnly(at, spec)
	case corev1.Windows:
		c.windowsOnly(at, spec)
	default:
		oneOf(c, at.Child("os"), spec.OS.Name, corev1.Linux, corev1.Windows)
	}
}

func (c *checker) linuxOnly(at *field.Path, spec *corev1.PodSpec) {
	const reason = "windows options cannot be set for a linux pod"
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		c.forbidden(at.Child("securityContext", "windowsOptions"), reason)
	}
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		if sc := ctr.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			c.forbidden(p.Child("securityContext", "windowsOptions"), reason)
		}
	})
}

// setting is a field and whether it is set.
type setting struct {
	name string
	set  bool
}

func (c *checker) noneSet(at *field.Path, reason string, settings []setting) {
	for _, s := range settings {
		if s.set {
			c.forbidden(at.Child(s.name), reason)
		}
	}
}

func (c *checker) windowsOnly(at *field.Path, spec *corev1.PodSpec) {
	const reason = "cannot be set for a windows pod"
	if sc := spec.SecurityContext; sc != nil {
		c.noneSet(at.Child("securityContext"), reason, []setting{
			{"appArmorProfile", sc.AppArmorProfile != nil},
			{"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil},
			{"fsGroup", sc.FSGroup != nil},
			{"fsGroupChangePolicy", sc.FSGroupChangePolicy != nil},
			{"sysctls", len(sc.Sysctls) > 0},
			{"runAsUser", sc.RunAsUser != nil},
			{"runAsGroup", sc.RunAsGroup != nil},
			{"supplementalGroups", sc.SupplementalGroups != nil},
			{"supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil},
			{"seLinuxChangePolicy", sc.SELinuxChangePolicy != nil},
		})
	}
	c.noneSet(at, reason, []setting{
		{"hostUsers", spec.HostUsers != nil},
		{"hostPID", spec.HostPID},
		{"hostIPC", spec.HostIPC},
		{"shareProcessNamespace", spec.ShareProcessNamespace != nil},
	})
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		sc := ctr.SecurityContext
		if sc == nil {
			return
		}
		c.noneSet(p.Child("securityContext"), reason, []setting{
			{"appArmorProfile", sc.AppArmorProfile != nil},
			{"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil},
			{"capabilities", sc.Capabilities != nil},
			{"readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil},
			{"privileged", sc.Privileged != nil},
			{"allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil},
			{"procMount", sc.ProcMount != nil},
			{"runAsUser", sc.RunAsUser != nil},
			{"runAsGroup", sc.RunAsGroup != nil},
		})
	})
}
