package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of the resolver in the C library.
const (
	maxNameservers     = 3
	maxSearchPaths     = 32
	maxSearchListChars = 2048
)

func (c *checker) dnsPolicy(at *field.Path, spec *corev1.PodSpec) {
	requiredOneOf(c, at.Child("dnsPolicy"), spec.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
}

func (c *checker) dnsConfig(at *field.Path, spec *corev1.PodSpec) {
	p, config := at.Child("dnsConfig"), spec.DNSConfig
	if spec.DNSPolicy == corev1.DNSNone {
		if config == nil {
			c.required(p, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone))
			return
		}
		if len(config.Nameservers) == 0 {
			c.required(p.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone))
			return
		}
	}
	if config == nil {
		return
	}
	servers := p.Child("nameservers")
	if len(config.Nameservers) > maxNameservers {
		c.invalid(servers, config.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers))
	}
	for i, server := range config.Nameservers {
		c.ip(servers.Index(i), server, nil)
	}
	searches := p.Child("searches")
	if len(config.Searches) > maxSearchPaths {
		c.invalid(searches, config.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearchPaths))
	}
	if len(strings.Join(config.Searches, " ")) > maxSearchListChars {
		c.invalid(searches, config.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchListChars))
	}
	for i, search := range config.Searches {
		if search != "." {
			search = strings.TrimSuffix(search, ".")
			c.reasons(searches.Index(i), search, validation.IsDNS1123SubdomainWithUnderscore(search))
		}
	}
	for i, option := range config.Options {
		if option.Name == "" {
			c.required(p.Child("options").Index(i), "must not be empty")
		}
	}
}

// maxHostname is the longest name that the kernel takes, in bytes.
const maxHostname = 64

func (c *checker) hostnameOverride(at *field.Path, spec *corev1.PodSpec) {
	if spec.HostnameOverride == nil {
		return
	}
	p := at.Child("hostnameOverride")
	if isTrue(spec.SetHostnameAsFQDN) {
		c.forbidden(p, "may not be specified when setHostnameAsFQDN is true")
	}
	if spec.HostNetwork {
		c.forbidden(p, "may not be specified when hostNetwork is true")
	}
	if len(*spec.HostnameOverride) > maxHostname {
		c.add(field.TooLong(p, "", maxHostname))
	}
	c.dnsSubdomain(p, *spec.HostnameOverride)
}

func (c *checker) hostAliases(at *field.Path, aliases []corev1.HostAlias) {
	for i, alias := range aliases {
		c.ip(at.Index(i).Child("ip"), alias.IP, nil)
		for j, name := range alias.Hostnames {
			c.dnsSubdomain(at.Index(i).Child("hostnames").Index(j), name)
		}
	}
}
