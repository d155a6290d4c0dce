package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNetwork is about one node's pods and services.
func TestNetwork(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"pod addresses and routes", addresses},
		{"pods and the rest of the world", world},
		{"source addresses are checked", spoofing},
		{"ClusterIP", clusterIP},
		{"hairpin", hairpin},
		{"NodePort", nodePort},
		{"NodePort that keeps the caller's address", nodePortLocal},
		{"named and several ports", namedPorts},
		{"session affinity", affinity},
		{"headless service", headless},
		{"service without endpoints", noEndpoints},
		{"endpoints follow readiness", endpointsFollow},
		{"service with endpoints of one's own", ownEndpoints},
		{"service with Endpoints of one's own, mirrored", mirroredEndpoints},
		{"host port", hostPort},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// server makes a ready pod of the test image that service app=LABEL finds.
func (s *space) server(name, label, more string) *corev1.Pod {
	s.t.Helper()
	s.createPod(podOf(s.t, name, fmt.Sprintf(`
metadata: {labels: {app: %s}}
spec:
  %s
  containers:
  - name: main
    image: hansa.local/testimage:1
    ports: [{name: web, containerPort: 8080}, {name: greet, containerPort: 7000}]
    readinessProbe: {httpGet: {path: /healthz, port: web}, periodSeconds: 1}
`, label, more)))
	return s.ready(name)
}

// service makes a service of pods app=NAME with a spec, and returns it.
func (s *space) service(name, spec string) *corev1.Service {
	s.t.Helper()
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {%s}
`, name, spec))
	v, err := s.client.CoreV1().Services(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// answers awaits that a URL answers with the text, asked by f.
func (s *space) answers(f func(string) (string, error), url, want string) {
	s.t.Helper()
	await(s.t, url+" answers", func() error {
		got, err := f(url)
		if err == nil && got != want {
			err = fmt.Errorf("it answered %q, not %q", got, want)
		}
		return err
	})
}

// from asks a URL from within a pod of the test image.
func (s *space) from(p *corev1.Pod) func(string) (string, error) {
	return func(url string) (string, error) { return fetch("http://" + p.Status.PodIP + ":8080/get?url=" + url) }
}

func addresses(s *space) {
	a, b := s.server("a", "x", ""), s.server("b", "x", "")
	for _, p := range []*corev1.Pod{a, b} {
		if ip, err := netip.ParseAddr(p.Status.PodIP); err != nil || !netip.MustParsePrefix("10.42.0.0/24").Contains(ip) {
			s.t.Errorf("address %q", p.Status.PodIP)
		}
	}
	if a.Status.PodIP == b.Status.PodIP {
		s.t.Errorf("two pods have %s", a.Status.PodIP)
	}
	s.answers(fetch, "http://"+a.Status.PodIP+":8080/", "a\n")
	s.answers(s.from(a), "http://"+b.Status.PodIP+":8080/", "b\n")
	// The other pod sees this one's own address.
	s.seen(s.from(a), "http://"+b.Status.PodIP+":8080/client", a.Status.PodIP)
	s.create("shell", sleeper)
	p := s.ready("shell")
	if got := s.exec("shell", "ip", "-4", "addr", "show", "eth0"); !strings.Contains(got, "inet "+p.Status.PodIP+"/32") {
		s.t.Errorf("link:\n%s", got)
	}
	if got := s.exec("shell", "ip", "route"); !strings.Contains(got, "default via 169.254.1.1 dev eth0") {
		s.t.Errorf("routes:\n%s", got)
	}
	if got := s.exec("shell", "cat", "/etc/hosts"); !strings.Contains(got, p.Status.PodIP+"\tshell") {
		s.t.Errorf("/etc/hosts:\n%s", got)
	}
}

func world(s *space) {
	p := s.server("p", "x", "")
	// Others do not know the pods' addresses: they see the node's.
	s.seen(s.from(p), "http://"+outsideIP+"/", nodeIP)
	if got, err := s.from(p)("http://missing." + outsideDomain + "/"); err == nil {
		s.t.Errorf("a name that is not there answers %q", got)
	}
	s.seen(s.from(p), "http://www."+outsideDomain+"/", nodeIP)
	// The node is reached at its own address.
	if got, err := s.from(p)("http://" + nodeIP + ":5000/v2/"); err == nil {
		s.t.Errorf("what listens on the node's loopback answers: %q", got)
	}
	l, err := net.Listen("tcp", nodeIP+":0")
	if err != nil {
		s.t.Fatal(err)
	}
	// A server that reads the question: one that closes before resets the
	// connection, and whether the answer comes through is then chance.
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })}
	defer server.Close()
	go server.Serve(l) //nolint:errcheck // ends with Close
	s.seen(s.from(p), "http://"+l.Addr().String()+"/", p.Status.PodIP)
}

// seen awaits that a URL, which answers with its caller's address, has that of
// who asks by f.
func (s *space) seen(f func(string) (string, error), url, want string) {
	s.t.Helper()
	await(s.t, url+" sees "+want, func() error {
		got, err := f(url)
		if err == nil && !strings.HasPrefix(got, want+":") {
			err = fmt.Errorf("it saw %q", got)
		}
		return err
	})
}

func spoofing(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], securityContext: {capabilities: {add: [NET_ADMIN]}}}
`)
	s.ready("p")
	s.exec("p", "ip", "addr", "add", "10.42.77.77/32", "dev", "eth0")
	if out, code, err := s.execIn("p", "main", "ping", "-c", "1", "-W", "1", "-I", "10.42.77.77", nodeIP); code == 0 && err == nil {
		s.t.Errorf("an answer came to an address that is not the pod's: %s", out)
	}
	if out := s.exec("p", "ping", "-c", "1", "-W", "5", nodeIP); !strings.Contains(out, "1 packets received") {
		s.t.Errorf("ping: %s", out)
	}
}

func clusterIP(s *space) {
	s.server("client", "other", "")
	for _, name := range []string{"a", "b", "c"} {
		s.create(name, `
containers:
- {name: main, image: hansa.local/testimage:1}
`)
	}
	for _, name := range []string{"a", "b", "c"} {
		s.kubectl("label", "pod", name, "app=greeter", "--overwrite")
		s.ready(name)
	}
	v := s.service("greeter", "selector: {app: greeter}, ports: [{port: 80, targetPort: 8080}]")
	if ip := netip.MustParseAddr(v.Spec.ClusterIP); !netip.MustParsePrefix("10.43.0.0/16").Contains(ip) {
		s.t.Errorf("address %s", ip)
	}
	client := s.ready("client")
	for who, f := range map[string]func(string) (string, error){"a pod": s.from(client), "the node": fetch} {
		seen := map[string]bool{}
		await(s.t, "all three answer "+who, func() error {
			got, err := f("http://" + v.Spec.ClusterIP + "/")
			if seen[got] = true; err == nil && !(seen["a\n"] && seen["b\n"] && seen["c\n"]) {
				err = fmt.Errorf("there answered %v", seen)
			}
			return err
		})
	}
	s.seen(s.from(client), "http://"+v.Spec.ClusterIP+"/client", client.Status.PodIP)
}

func hairpin(s *space) {
	p := s.server("p", "p", "")
	v := s.service("p", "selector: {app: p}, ports: [{port: 80, targetPort: web}]")
	s.answers(s.from(p), "http://"+v.Spec.ClusterIP+"/", "p\n")
}

func nodePort(s *space) {
	p := s.server("p", "p", "")
	v := s.service("p", "type: NodePort, selector: {app: p}, ports: [{port: 80, targetPort: web}]")
	port := v.Spec.Ports[0].NodePort
	if port < 30000 || port > 32767 {
		s.t.Errorf("port %d", port)
	}
	url := fmt.Sprintf("http://%s:%d/", nodeIP, port)
	s.answers(fetchFromOutside, url, "p\n")
	s.answers(fetch, url, "p\n")
	s.answers(s.from(p), url, "p\n")
}

func nodePortLocal(s *space) {
	s.server("p", "p", "")
	v := s.service("p", "type: NodePort, externalTrafficPolicy: Local, selector: {app: p}, ports: [{port: 80, targetPort: web}]")
	s.seen(fetchFromOutside, fmt.Sprintf("http://%s:%d/client", nodeIP, v.Spec.Ports[0].NodePort), outsideIP)
}

func namedPorts(s *space) {
	s.server("p", "p", "")
	v := s.service("p", "selector: {app: p}, ports: [{name: http, port: 80, targetPort: web}, {name: greet, port: 7, targetPort: greet}]")
	s.answers(fetch, "http://"+v.Spec.ClusterIP+"/", "p\n")
	await(s.t, "the other port answers", func() error {
		c, err := net.Dial("tcp", v.Spec.ClusterIP+":7")
		if err != nil {
			return err
		}
		defer c.Close()
		got := make([]byte, 2)
		if _, err := c.Read(got); err != nil || string(got) != "p\n" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
}

func affinity(s *space) {
	client := s.server("client", "other", "")
	for _, name := range []string{"a", "b", "c"} {
		s.server(name, "greeter", "")
	}
	v := s.service("greeter", "sessionAffinity: ClientIP, selector: {app: greeter}, ports: [{port: 80, targetPort: web}]")
	url := "http://" + v.Spec.ClusterIP + "/"
	var first string
	await(s.t, "somebody answers", func() (err error) {
		first, err = s.from(client)(url)
		return err
	})
	for range 20 {
		if got, err := s.from(client)(url); got != first || err != nil {
			s.t.Fatalf("%q answered first, then %q, %v", first, got, err)
		}
	}
}

func headless(s *space) {
	a, b := s.server("a", "greeter", ""), s.server("b", "greeter", "")
	v := s.service("greeter", "clusterIP: None, selector: {app: greeter}, ports: [{port: 8080}]")
	if v.Spec.ClusterIP != corev1.ClusterIPNone {
		s.t.Errorf("address %s", v.Spec.ClusterIP)
	}
	s.resolves("greeter."+s.name+".svc.cluster.local.", a.Status.PodIP, b.Status.PodIP)
	s.answers(s.from(a), "http://greeter."+s.name+":8080/healthz", "")
}

func noEndpoints(s *space) {
	v := s.service("nobody", "selector: {app: nobody}, ports: [{port: 80}]")
	await(s.t, "the connection is refused", func() error {
		_, err := net.Dial("tcp", v.Spec.ClusterIP+":80")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

func endpointsFollow(s *space) {
	p := s.server("p", "p", "")
	v := s.service("p", "selector: {app: p}, ports: [{port: 80, targetPort: web}]")
	url := "http://" + v.Spec.ClusterIP + "/"
	s.answers(fetch, url, "p\n")
	s.turn(p, "sick")
	await(s.t, "nobody answers", func() error {
		if got, err := fetch(url); err == nil {
			return fmt.Errorf("%q answers", got)
		}
		return nil
	})
	s.turn(p, "healthy")
	s.answers(fetch, url, "p\n")
	s.kubectl("delete", "pod", "p", "--wait=false")
	await(s.t, "the slice is empty", func() error {
		list, err := s.client.DiscoveryV1().EndpointSlices(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=p"})
		if err != nil {
			return err
		}
		for _, slice := range list.Items {
			if len(slice.Endpoints) > 0 {
				return fmt.Errorf("there is %+v", slice.Endpoints)
			}
		}
		return nil
	})
}

func ownEndpoints(s *space) {
	p := s.server("p", "p", "")
	v := s.service("world", "ports: [{port: 8000, targetPort: 80}]")
	s.apply(fmt.Sprintf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: world-1, labels: {kubernetes.io/service-name: world}}
addressType: IPv4
endpoints: [{addresses: [%s]}]
ports: [{port: 80}]
`, outsideIP))
	s.seen(s.from(p), "http://"+v.Spec.ClusterIP+":8000/", nodeIP)
}

func mirroredEndpoints(s *space) {
	p := s.server("p", "p", "")
	v := s.service("world", "ports: [{name: web, port: 8000, targetPort: 80}]")
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: Endpoints
metadata: {name: world}
subsets: [{addresses: [{ip: %s}], ports: [{name: web, port: 80}]}]
`, outsideIP))
	s.seen(s.from(p), "http://"+v.Spec.ClusterIP+":8000/", nodeIP)
	list, err := s.client.DiscoveryV1().EndpointSlices(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=world"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Labels[discoveryv1.LabelManagedBy] != "endpointslicemirroring-controller.k8s.io" {
		s.t.Errorf("slices %v, %v", list, err)
	}
	s.kubectl("delete", "endpoints", "world")
	await(s.t, "the service is closed", func() error {
		if got, err := s.from(p)("http://" + v.Spec.ClusterIP + ":8000/"); err == nil {
			return fmt.Errorf("%q answers", got)
		}
		return nil
	})
}

func hostPort(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/testimage:1, ports: [{containerPort: 8080, hostPort: 18080}]}
`)
	s.ready("p")
	s.answers(fetchFromOutside, "http://"+nodeIP+":18080/", "p\n")
	s.answers(fetch, "http://"+nodeIP+":18080/", "p\n")
	s.kubectl("delete", "pod", "p")
	await(s.t, "the port is closed", func() error {
		if got, err := fetch("http://" + nodeIP + ":18080/"); err == nil {
			return fmt.Errorf("%q answers", got)
		}
		return nil
	})
}
