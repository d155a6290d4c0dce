package pod

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds of Windows options, in bytes unless said otherwise.
const (
	maxCredentialSpecKiB = 64
	maxUserDomain        = 256
	maxUserName          = 104
)

var (
	controlCharacters = regexp.MustCompile(`[[:cntrl:]]`)
	netBIOSDomain     = regexp.MustCompile(`^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$`)
	dnsDomain         = regexp.MustCompile(`^` + dnsDomainPart + `(?:\.` + dnsDomainPart + `)*$`)
	onlyDotsAndSpaces = regexp.MustCompile(`^[. ]+$`)
)

const (
	dnsDomainPart      = `[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?`
	noUserNameContains = `"/\:;|=,+*?<>@[]`
)

func (c *checker) windowsOptions(at *field.Path, w *corev1.WindowsSecurityContextOptions) {
	if w == nil {
		return
	}
	if n := w.GMSACredentialSpecName; n != nil {
		c.dnsSubdomain(at.Child("gmsaCredentialSpecName"), *n)
	}
	if s := w.GMSACredentialSpec; s != nil {
		p := at.Child("gmsaCredentialSpec")
		if *s == "" {
			c.invalid(p, *s, "gmsaCredentialSpec cannot be an empty string")
		} else if len(*s) > maxCredentialSpecKiB*1024 {
			c.invalid(p, *s, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxCredentialSpecKiB))
		}
	}
	if u := w.RunAsUserName; u != nil {
		c.reasons(at.Child("runAsUserName"), *u, windowsUserFlaws(*u))
	}
}

// windowsUserFlaws checks USER or DOMAIN\USER, the domain in NetBIOS or DNS form.
func windowsUserFlaws(name string) []string {
	parts := strings.Split(name, `\`)
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case controlCharacters.MatchString(name):
		return []string{"runAsUserName cannot contain control characters"}
	case len(parts) > 2:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	var flaws []string
	flaw := func(is bool, text string) {
		if is {
			flaws = append(flaws, text)
		}
	}
	user := parts[len(parts)-1]
	if len(parts) == 2 {
		domain := parts[0]
		flaw(len(domain) >= maxUserDomain, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxUserDomain))
		flaw(!netBIOSDomain.MatchString(domain) && !dnsDomain.MatchString(domain),
			"runAsUserName's Domain doesn't match the NetBios nor the DNS format")
	}
	flaw(user == "", "runAsUserName's User cannot be empty")
	flaw(len(user) > maxUserName, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxUserName))
	flaw(onlyDotsAndSpaces.MatchString(user), "runAsUserName's User cannot contain only periods or spaces")
	flaw(strings.ContainsAny(user, noUserNameContains), "runAsUserName's User cannot contain the following characters: "+noUserNameContains)
	return flaws
}

// hostProcess: a Windows pod runs in the host's processes as a whole or not at
// all, and then in the host's network.
func (c *checker) hostProcess(at *field.Path, spec *corev1.PodSpec) {
	var whole *bool
	if spec.SecurityContext != nil && spec.SecurityContext.WindowsOptions != nil {
		whole = spec.SecurityContext.WindowsOptions.HostProcess
	}
	all, host := 0, 0
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		all++
		var own *bool
		if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil {
			own = ctr.SecurityContext.WindowsOptions.HostProcess
		}
		if whole != nil && own != nil && *whole != *own {
			c.invalid(p.Child("securityContext", "windowsOptions", "hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *whole))
		}
		if own == nil {
			own = whole
		}
		if isTrue(own) {
			host++
		}
	})
	if host == 0 {
		return
	}
	if host != all {
		c.invalid(at, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers")
	}
	if !spec.HostNetwork {
		c.invalid(at.Child("hostNetwork"), false, "hostNetwork must be true if pod contains any hostProcess containers")
	}
}
