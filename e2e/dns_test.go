package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

// TestDNS is about the names of the Kubernetes DNS specification, version 1.1.0
// (https://github.com/kubernetes/dns/blob/master/docs/specification.md), and
// about names that others know.
func TestDNS(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"service with an address", dnsService},
		{"headless service", dnsHeadless},
		{"pods by their addresses", dnsPods},
		{"endpoints that are not ready but published", dnsPublished},
		{"ExternalName", dnsExternal},
		{"names that are not there", dnsMissing},
		{"search path of a pod", dnsSearch},
		{"policies and settings of a pod", dnsPolicies},
		{"forwarding and cache", dnsForward},
		{"over TCP", dnsTCP},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

const clusterDNS = "10.43.0.10:53"

// ask asks the cluster's name server. The records of the answer are printed
// without name, class and TTL, and sorted.
func ask(name string, kind uint16) (string, error) {
	m, err := dns.Exchange(new(dns.Msg).SetQuestion(name, kind), clusterDNS)
	if err != nil {
		return "", err
	}
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode], nil
	}
	records := []string{}
	for _, r := range m.Answer {
		h := r.Header()
		records = append(records, dns.TypeToString[h.Rrtype]+" "+strings.TrimPrefix(r.String(), h.String()))
	}
	slices.Sort(records)
	return strings.Join(records, ", "), nil
}

// says awaits that a question has the answer.
func (s *space) says(name string, kind uint16, want string) {
	s.t.Helper()
	await(s.t, dns.TypeToString[kind]+" of "+name, func() error {
		got, err := ask(name, kind)
		if err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

// resolves awaits that a name has just these addresses.
func (s *space) resolves(name string, addresses ...string) {
	s.t.Helper()
	for i := range addresses {
		addresses[i] = "A " + addresses[i]
	}
	slices.Sort(addresses)
	s.says(name, dns.TypeA, strings.Join(addresses, ", "))
}

// reversed is the name under which an address is found.
func (s *space) reversed(address string) string {
	s.t.Helper()
	name, err := dns.ReverseAddr(address)
	if err != nil {
		s.t.Fatal(err)
	}
	return name
}

func dnsService(s *space) {
	v := s.service("v", "selector: {app: p}, ports: [{name: http, port: 80, targetPort: 8080}, {name: names, port: 53, protocol: UDP}]")
	name := "v." + s.name + ".svc.cluster.local."
	s.resolves(name, v.Spec.ClusterIP)
	s.says(name, dns.TypeAAAA, "")
	s.says("_http._tcp."+name, dns.TypeSRV, "SRV 0 100 80 "+name)
	s.says("_names._udp."+name, dns.TypeSRV, "SRV 0 100 53 "+name)
	s.says("_http._udp."+name, dns.TypeSRV, "NXDOMAIN")
	s.says(s.reversed(v.Spec.ClusterIP), dns.TypePTR, "PTR "+name)
	s.says("dns-version.cluster.local.", dns.TypeTXT, `TXT "1.1.0"`)
	s.resolves("kubernetes.default.svc.cluster.local.", "10.43.0.1")
	s.resolves("kube-dns.kube-system.svc.cluster.local.", "10.43.0.10")
	s.kubectl("delete", "service", "v")
	s.says(name, dns.TypeA, "NXDOMAIN")
}

func dnsHeadless(s *space) {
	a := s.server("a", "h", "hostname: first\n  subdomain: h")
	b := s.server("b", "h", "hostname: second\n  subdomain: h")
	s.service("h", "clusterIP: None, selector: {app: h}, ports: [{name: http, port: 80, targetPort: 8080}]")
	name := "h." + s.name + ".svc.cluster.local."
	s.resolves(name, a.Status.PodIP, b.Status.PodIP)
	s.resolves("first."+name, a.Status.PodIP)
	s.resolves("second."+name, b.Status.PodIP)
	s.says("_http._tcp."+name, dns.TypeSRV, "SRV 0 100 8080 first."+name+", SRV 0 100 8080 second."+name)
	s.says(s.reversed(a.Status.PodIP), dns.TypePTR, "PTR first."+name)
	// A pod knows itself by that name.
	s.create("shell", "hostname: third\nsubdomain: h\n"+strings.TrimSpace(sleeper))
	s.ready("shell")
	if got := s.exec("shell", "hostname", "-f"); got != "third."+strings.TrimSuffix(name, ".")+"\n" {
		s.t.Errorf("full host name %q", got)
	}
	// Who is not ready is not there.
	s.turn(a, "sick")
	s.resolves(name, b.Status.PodIP)
	s.says("first."+name, dns.TypeA, "NXDOMAIN")
}

func dnsPods(s *space) {
	s.says("10-42-0-7."+s.name+".pod.cluster.local.", dns.TypeA, "A 10.42.0.7")
	s.says("10-42-0-7.none.pod.cluster.local.", dns.TypeA, "NXDOMAIN")
	s.says("nobody."+s.name+".pod.cluster.local.", dns.TypeA, "NXDOMAIN")
}

func dnsPublished(s *space) {
	s.service("early", "clusterIP: None, publishNotReadyAddresses: true, selector: {app: early}, ports: [{port: 80}]")
	s.service("late", "clusterIP: None, selector: {app: early}, ports: [{port: 80}]")
	s.createPod(podOf(s.t, "p", `
metadata: {labels: {app: early}}
spec:
  containers:
  - {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], readinessProbe: {exec: {command: ["false"]}}}
`))
	p := s.until("p", "it has an address", func(p *corev1.Pod) bool { return p.Status.PodIP != "" })
	s.resolves("early."+s.name+".svc.cluster.local.", p.Status.PodIP)
	s.says("late."+s.name+".svc.cluster.local.", dns.TypeA, "NXDOMAIN")
}

func dnsExternal(s *space) {
	s.service("e", "type: ExternalName, externalName: www."+outsideDomain)
	s.says("e."+s.name+".svc.cluster.local.", dns.TypeCNAME, "CNAME www."+outsideDomain+".")
	s.says("e."+s.name+".svc.cluster.local.", dns.TypeA, "A "+outsideIP+", CNAME www."+outsideDomain+".")
}

func dnsMissing(s *space) {
	for _, name := range []string{
		"none." + s.name + ".svc.cluster.local.", "v.none.svc.cluster.local.", "none.cluster.local.", "missing." + outsideDomain + ".",
	} {
		s.says(name, dns.TypeA, "NXDOMAIN")
	}
	// A name that only others hang below exists, without records.
	s.says(s.name+".svc.cluster.local.", dns.TypeA, "")
	s.says("svc.cluster.local.", dns.TypeA, "")
}

func dnsSearch(s *space) {
	v := s.service("v", "selector: {app: p}, ports: [{port: 80}]")
	s.create("p", sleeper)
	s.ready("p")
	want := "search " + s.name + ".svc.cluster.local svc.cluster.local cluster.local " + outsideDomain + "\nnameserver 10.43.0.10\noptions ndots:5\n"
	if got := s.exec("p", "cat", "/etc/resolv.conf"); got != want {
		s.t.Errorf("/etc/resolv.conf:\n%swant:\n%s", got, want)
	}
	for name, want := range map[string]string{
		"v": v.Spec.ClusterIP, "v." + s.name: v.Spec.ClusterIP, "v." + s.name + ".svc": v.Spec.ClusterIP,
		"v." + s.name + ".svc.cluster.local": v.Spec.ClusterIP, "kubernetes.default": "10.43.0.1",
		"www": outsideIP, "www." + outsideDomain: outsideIP,
	} {
		await(s.t, name+" is found", func() error {
			out, _, err := s.execIn("p", "main", "ping", "-c", "1", "-W", "1", name)
			if err == nil && !strings.Contains(out, "("+want+")") {
				err = fmt.Errorf("got %q, want %s", out, want)
			}
			return err
		})
	}
}

func dnsPolicies(s *space) {
	for name, c := range map[string]struct{ spec, want string }{
		"default": {"dnsPolicy: Default", "nameserver " + outsideIP + "\nsearch " + outsideDomain + "\n"},
		"none":    {"dnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.1], searches: [a.test, b.test], options: [{name: ndots, value: '2'}, {name: edns0}]}", "search a.test b.test\nnameserver 192.0.2.1\noptions ndots:2 edns0\n"},
		"more":    {"dnsConfig: {searches: [a.test]}", "search " + s.name + ".svc.cluster.local svc.cluster.local cluster.local " + outsideDomain + " a.test\nnameserver 10.43.0.10\noptions ndots:5\n"},
		"host":    {"hostNetwork: true\ndnsPolicy: ClusterFirstWithHostNet", "search " + s.name + ".svc.cluster.local svc.cluster.local cluster.local " + outsideDomain + "\nnameserver 10.43.0.10\noptions ndots:5\n"},
	} {
		got := s.output(name, c.spec+`
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /etc/resolv.conf]}
`)
		lines := func(text string) []string {
			all := strings.Split(strings.TrimSpace(text), "\n")
			slices.Sort(all)
			return all
		}
		if !slices.Equal(lines(got), lines(c.want)) {
			s.t.Errorf("%s:\n%swant:\n%s", name, got, c.want)
		}
	}
	got := s.output("hosts", `
restartPolicy: Never
hostname: mine
hostAliases: [{ip: 192.0.2.7, hostnames: [alias, alias.test]}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "cat /etc/hosts; hostname"]}
`)
	if !strings.Contains(got, "192.0.2.7\talias\talias.test\n") || !strings.HasSuffix(got, "mine\n") {
		s.t.Errorf("/etc/hosts and hostname:\n%s", got)
	}
}

// dnsForward asks for names that nobody else asks for.
func dnsForward(s *space) {
	name := s.name + "." + outsideDomain + "."
	for range 5 {
		s.resolves(name, outsideIP)
		s.says("missing."+name, dns.TypeA, "NXDOMAIN")
	}
	if n := upstream.asked(name); n != 1 {
		s.t.Errorf("the outside was asked %d times for a name that is there", n)
	}
	if n := upstream.asked("missing." + name); n != 1 {
		s.t.Errorf("the outside was asked %d times for a name that is not there", n)
	}
}

func dnsTCP(s *space) {
	c := dns.Client{Net: "tcp"}
	m, _, err := c.Exchange(new(dns.Msg).SetQuestion("kubernetes.default.svc.cluster.local.", dns.TypeA), clusterDNS)
	if err != nil || len(m.Answer) != 1 {
		s.t.Errorf("%v, %v", m, err)
	}
	// More than fits into a packet is cut short, and whole over TCP.
	spec := "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: many-1, labels: {kubernetes.io/service-name: many}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints:\n"
	for i := range 60 {
		spec += fmt.Sprintf("- {addresses: [192.0.2.%d]}\n", i+1)
	}
	s.service("many", "clusterIP: None, ports: [{port: 80}]")
	s.apply(spec)
	name := "many." + s.name + ".svc.cluster.local."
	await(s.t, "the whole answer", func() error {
		m, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), clusterDNS)
		if err == nil && len(m.Answer) != 60 {
			err = fmt.Errorf("there are %d records", len(m.Answer))
		}
		return err
	})
	m, err = dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), clusterDNS)
	if err != nil || !m.Truncated {
		s.t.Errorf("over UDP: %v, %v", m, err)
	}
}
