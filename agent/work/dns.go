package work

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resolver is the content of a resolv.conf.
type Resolver struct{ Servers, Searches, Options []string }

// Limits of a resolver configuration, as Kubernetes validates them.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// ParseResolver reads a resolv.conf: the last search or domain line counts, and
// the options of all lines.
func ParseResolver(r io.Reader) (Resolver, error) {
	var out Resolver
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			out.Servers = append(out.Servers, fields[1])
		case "search":
			out.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				out.Searches = append(out.Searches, s)
			}
		case "domain":
			out.Searches = fields[1:2]
		case "options":
			out.Options = append(out.Options, fields[1:]...)
		}
	}
	return out, lines.Err()
}

// nowhere is the host's resolver configuration of a node that has none: without a
// server in it a runtime would take the machine's.
var nowhere = Resolver{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}

// Resolve is the resolver configuration that a pod asks for. complaint, if not
// empty, says what of it did not fit.
func (d DNS) Resolve(p *v1.Pod) (out Resolver, complaint string, err error) {
	host, searches := nowhere, []string(nil)
	if d.Host != nil {
		if host, err = d.Host(); err != nil {
			return Resolver{}, "", err
		}
		searches = host.Searches
	}
	policy := p.Spec.DNSPolicy
	if policy == v1.DNSClusterFirst && p.Spec.HostNetwork {
		policy = v1.DNSDefault
	}
	switch policy {
	case v1.DNSNone:
	case v1.DNSDefault:
		out = host
	default: // ClusterFirst, and ClusterFirstWithHostNet
		if len(d.Servers) == 0 {
			out = host
			complaint = fmt.Sprintf("pod: %q. kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.",
				p.Name+"_"+p.Namespace+"("+string(p.UID)+")", policy, v1.DNSDefault)
			break
		}
		out = Resolver{
			Servers:  d.Servers,
			Searches: append([]string{p.Namespace + ".svc." + d.Domain, "svc." + d.Domain, d.Domain}, searches...),
			Options:  []string{"ndots:5"},
		}
	}
	if c := p.Spec.DNSConfig; c != nil {
		out.Servers = unique(out.Servers, c.Nameservers)
		out.Searches = unique(out.Searches, c.Searches)
		out.Options = mergeOptions(out.Options, c.Options)
	}
	out, cut := out.limit()
	if complaint == "" {
		complaint = cut
	}
	return out, complaint, nil
}

func unique(a, b []string) []string {
	var out []string
	for _, s := range slices.Concat(a, b) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// mergeOptions lets the pod's options replace those of the same name.
func mergeOptions(base []string, own []v1.PodDNSConfigOption) []string {
	names := map[string]bool{}
	var added []string
	for _, o := range own {
		if o.Name == "" {
			continue
		}
		names[o.Name] = true
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		added = append(added, text)
	}
	var out []string
	for _, o := range base {
		name, _, _ := strings.Cut(o, ":")
		if !names[name] {
			out = append(out, o)
		}
	}
	return append(out, added...)
}

// limit cuts off what resolvers do not take.
func (r Resolver) limit() (Resolver, string) {
	complaint := ""
	if len(r.Servers) > maxServers {
		r.Servers = r.Servers[:maxServers]
		complaint = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: " + strings.Join(r.Servers, " ")
	}
	n := len(r.Searches)
	for len(r.Searches) > maxSearches || len(strings.Join(r.Searches, " ")) > maxSearchChars {
		r.Searches = r.Searches[:len(r.Searches)-1]
	}
	if len(r.Searches) < n {
		complaint = "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(r.Searches, " ")
	}
	return r, complaint
}

func (r Resolver) cri() *cri.DNSConfig {
	return &cri.DNSConfig{Servers: r.Servers, Searches: r.Searches, Options: r.Options}
}
