package work

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Hostname is the pod's host name, and its fully qualified name if it has one.
func (n *Node) Hostname(p *v1.Pod) (name, fqdn string, err error) {
	if p.Spec.HostNetwork {
		return n.Name, "", nil
	}
	if o := p.Spec.HostnameOverride; o != nil && *o != "" {
		return *o, "", nil
	}
	const limit = 63 // of a label, and 64 of the kernel's host name
	name = p.Name
	if p.Spec.Hostname != "" {
		name = p.Spec.Hostname
	} else if len(name) > limit {
		name = strings.TrimRight(name[:limit], "-.")
	}
	if p.Spec.Subdomain != "" {
		fqdn = name + "." + p.Spec.Subdomain + "." + p.Namespace + ".svc." + n.DNS.Domain
	}
	if p.Spec.SetHostnameAsFQDN != nil && *p.Spec.SetHostnameAsFQDN && fqdn != "" {
		if len(fqdn) > limit+1 {
			return "", "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", fqdn, limit+1, len(fqdn))
		}
		return fqdn, fqdn, nil
	}
	return name, fqdn, nil
}

// hostsFile writes the pod's /etc/hosts and answers with its path.
func (n *Node) hostsFile(p *v1.Pod, ips []string) (string, error) {
	var b bytes.Buffer
	if p.Spec.HostNetwork {
		own, err := os.ReadFile(n.HostsFile)
		if err != nil {
			return "", fmt.Errorf("read hosts file of the node: %w", err)
		}
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(own)
	} else {
		name, fqdn, err := n.Hostname(p)
		if err != nil {
			return "", err
		}
		writePodHosts(&b, ips, name, fqdn)
	}
	if len(p.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range p.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	path := filepath.Join(n.Volumes.PodDir(p.UID), "etc-hosts")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write hosts file of pod: %w", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		return "", fmt.Errorf("write hosts file of pod: %w", err)
	}
	return path, nil
}

func writePodHosts(b *bytes.Buffer, ips []string, name, fqdn string) {
	b.WriteString(`# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`)
	for _, ip := range ips {
		if fqdn != "" && fqdn != name {
			fmt.Fprintf(b, "%s\t%s\t%s\n", ip, fqdn, name)
		} else {
			fmt.Fprintf(b, "%s\t%s\n", ip, name)
		}
	}
}
