package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

// The node's own API, asked without the API server between ("Kubelet
// authentication/authorization"): each path by whoever may, and by others.
var nodeAPIRows = []row{
	{"node API: /pods", func(s *space) {
		s.measuredPod()
		s.nodePaths("pods", true, map[string]string{"/pods": `"kind":"PodList".*"name":"p","namespace":"` + s.name + `"`})
	}},
	{"node API: /configz", func(s *space) {
		s.nodePaths("configz", true, map[string]string{"/configz": `"kubeletconfig":\{"kind":"KubeletConfiguration"`})
	}},
	{"node API: /flagz", func(s *space) {
		s.nodePaths("configz", false, map[string]string{"/flagz": `(?s)^\nkubelet flagz\nWarning: .*\nservice-cidr=10\.43\.0\.0/16\n`})
	}},
	{"node API: /statusz", func(s *space) {
		s.nodePaths("statusz", false, map[string]string{"/statusz": `(?s)^\nkubelet statusz\nWarning: .*\nEmulation version: 1\.37\nPaths: /configz /flagz /healthz /metrics /pods /stats\n$`})
	}},
	{"node API: /healthz and its checks", func(s *space) {
		s.nodePaths("healthz", true, map[string]string{
			"/healthz": `^ok$`, "/healthz/ping": `^ok$`, "/healthz/syncloop": `^ok$`, "/healthz?verbose": `(?m)^\[\+\]syncloop ok$`,
		})
	}},
	{"node API: /stats/summary", func(s *space) {
		s.measuredPod()
		s.nodePaths("stats", false, map[string]string{"/stats/summary": `"namespace": "` + s.name + `"`})
	}},
	{"node API: /metrics", func(s *space) {
		s.nodePaths("metrics", false, map[string]string{"/metrics": `(?m)^kubelet_node_name\{node="` + nodeName + `"\} 1$`})
	}},
	{"node API: /metrics/slis", func(s *space) {
		s.nodePaths("metrics", false, map[string]string{"/metrics/slis": `(?m)^process_start_time_seconds `})
	}},
	{"node API: /metrics/resource", func(s *space) {
		s.measuredPod()
		s.nodePaths("metrics", false, map[string]string{"/metrics/resource": `(?m)^pod_cpu_usage_seconds_total\{namespace="` + s.name + `",pod="p"\}`})
	}},
	{"node API: /metrics/cadvisor", func(s *space) {
		s.measuredPod()
		s.nodePaths("metrics", false, map[string]string{"/metrics/cadvisor": `(?m)^container_memory_working_set_bytes\{container="main",.*namespace="` + s.name + `"`})
	}},
	{"node API: /metrics/probes", func(s *space) {
		s.measuredPod()
		s.nodePaths("metrics", false, map[string]string{"/metrics/probes": `(?m)^prober_probe_total\{container="main",namespace="` + s.name + `"`})
	}},
	{"node API: logs", func(s *space) {
		s.measuredPod()
		s.nodePaths("proxy", true, map[string]string{"/containerLogs/" + s.name + "/p/main?limitBytes=5": `^said\n$`})
	}},
	{"node API: by certificate or token", nodeCallers},
	{"node API: exec over WebSocket and SPDY", nodeExec},
	{"node API: attach over WebSocket and SPDY", nodeAttach},
	{"node API: port-forward over WebSocket and SPDY", nodePortForward},
}

// asToken is a client of the node's API that holds a token; none if it is empty.
func (s *space) asToken(token string) *rest.Config {
	c := s.asOwner()
	c.CertData, c.KeyData, c.BearerToken = nil, nil, token
	return c
}

// asOwner is the administrator, by his certificate, at the node's API. The
// node's certificate is checked.
func (s *space) asOwner() *rest.Config {
	c := rest.CopyConfig(s.config)
	c.Host = "https://" + net.JoinHostPort(nodeIP, "10250")
	return c
}

// asNode is the client of an account that may do one thing with a subresource
// of nodes; nothing if verb is empty.
func (s *space) asNode(account, verb, subresource string) *rest.Config {
	s.t.Helper()
	ctx, name := s.t.Context(), s.name+"-"+account
	if _, err := s.client.CoreV1().ServiceAccounts(s.name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	if verb != "" {
		roles := s.client.RbacV1()
		rules := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes/" + subresource}, Verbs: []string{verb}}}
		if _, err := roles.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
		if _, err := roles.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.name, Name: account}},
		}, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() {
			for _, err := range []error{
				roles.ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{}),
				roles.ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{}),
			} {
				if err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	token, err := s.client.CoreV1().ServiceAccounts(s.name).CreateToken(ctx, account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.asToken(token.Status.Token)
}

// askNode gets a path of the node's API.
func askNode(t testing.TB, c *rest.Config, path string) (code int, body string) {
	t.Helper()
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// nodePaths demands of paths that they answer with what matches to whoever may
// get a subresource of the node, nodes/proxy too where that suffices, and to
// nobody else.
func (s *space) nodePaths(subresource string, proxySuffices bool, patterns map[string]string) {
	s.t.Helper()
	reader, proxy, stranger := s.asNode("reader", "get", subresource), s.asNode("proxy", "get", "proxy"), s.asNode("stranger", "", "")
	for path, pattern := range patterns {
		await(s.t, path+" answers who may", func() error {
			if code, body := askNode(s.t, reader, path); code != http.StatusOK || !regexp.MustCompile(pattern).MatchString(body) {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		})
		await(s.t, path+" answers who may proxy, where that suffices", func() error {
			if code, body := askNode(s.t, proxy, path); (code == http.StatusOK) != proxySuffices {
				return fmt.Errorf("%d %s", code, body)
			}
			return nil
		})
		if code, body := askNode(s.t, stranger, path); code != http.StatusForbidden || !strings.Contains(body, subresource) {
			s.t.Errorf("%s answers %d %s to a stranger", path, code, body)
		}
		if code, _ := askNode(s.t, s.asToken(""), path); code != http.StatusUnauthorized {
			s.t.Errorf("%s answers %d to nobody", path, code)
		}
	}
}

func nodeCallers(s *space) {
	reader := s.asNode("reader", "get", "healthz")
	await(s.t, "a token of an account with the role", func() error {
		if code, body := askNode(s.t, reader, "/healthz"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	if code, body := askNode(s.t, s.asOwner(), "/healthz"); code != http.StatusOK {
		s.t.Errorf("the administrator's certificate: %d %s", code, body)
	}
	if code, _ := askNode(s.t, s.asToken(reader.BearerToken+"x"), "/healthz"); code != http.StatusUnauthorized {
		s.t.Errorf("a token that nobody gave: %d", code)
	}
	if code, body := askNode(s.t, reader, "/pods"); code != http.StatusForbidden || !strings.Contains(body, "system:serviceaccount:"+s.name+":reader") {
		s.t.Errorf("pods, by who may ask for health: %d %s", code, body)
	}
}

// nodeStream runs a stream of a container over each protocol, as accounts that
// may get nodes/proxy (WebSocket) or create it (SPDY), and demands that one
// without a role is refused.
func nodeStream(s *space, path string, o func(out, errOut io.Writer) remotecommand.StreamOptions, check func(protocol, out, errOut string, err error)) {
	executors := map[string]struct {
		verb string
		make func(c *rest.Config) (remotecommand.Executor, error)
	}{
		"websocket": {"get", func(c *rest.Config) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(c, http.MethodGet, c.Host+path)
		}},
		"spdy": {"create", func(c *rest.Config) (remotecommand.Executor, error) {
			u, err := url.Parse(c.Host + path)
			if err != nil {
				return nil, err
			}
			return remotecommand.NewSPDYExecutor(c, http.MethodPost, u)
		}},
	}
	stranger := s.asNode("stranger", "", "")
	if code, body := askNode(s.t, stranger, path); code != http.StatusForbidden || !strings.Contains(body, "proxy") {
		s.t.Errorf("%s answers %d %s to a stranger", path, code, body)
	}
	for protocol, x := range executors {
		stream := func(c *rest.Config) (out, errOut bytes.Buffer, err error) {
			e, err := x.make(c)
			if err != nil {
				return out, errOut, err
			}
			ctx, cancel := context.WithTimeout(s.t.Context(), patience)
			defer cancel()
			err = e.StreamWithContext(ctx, o(&out, &errOut))
			return out, errOut, err
		}
		if out, _, err := stream(stranger); err == nil || out.Len() > 0 {
			s.t.Errorf("%s by a stranger: %q, %v", protocol, out.String(), err)
		}
		caller := s.asNode(protocol, x.verb, "proxy")
		s.roleCounts(caller, x.verb)
		out, errOut, err := stream(caller)
		check(protocol, out.String(), errOut.String(), err)
	}
}

// roleCounts waits until the node knows what a caller may.
func (s *space) roleCounts(c *rest.Config, verb string) {
	s.t.Helper()
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		s.t.Fatal(err)
	}
	await(s.t, "the role counts", func() error {
		method := map[string]string{"get": http.MethodGet, "create": http.MethodPost}[verb]
		r, err := http.NewRequestWithContext(s.t.Context(), method, c.Host+"/exec/"+s.name+"/p/main", nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest { // no command
			return fmt.Errorf("status %d", answer.StatusCode)
		}
		return nil
	})
}

func nodeExec(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	query := url.Values{"input": {"1"}, "output": {"1"}, "error": {"1"}, "command": {"sh", "-c", "cat; echo bad >&2; exit 3"}}
	nodeStream(s, "/exec/"+s.name+"/p/main?"+query.Encode(), func(out, errOut io.Writer) remotecommand.StreamOptions {
		return remotecommand.StreamOptions{Stdin: strings.NewReader("typed"), Stdout: out, Stderr: errOut}
	}, func(protocol, out, errOut string, err error) {
		if out != "typed" || errOut != "bad\n" || err == nil || err.Error() != "command terminated with exit code 3" {
			s.t.Errorf("%s: out %q, error %q, %v", protocol, out, errOut, err)
		}
	})
}

func nodeAttach(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, stdin: true, command: [sh, -c, "while read word; do echo got $word; test $word = end && exit; done"]}
`)
	s.ready("p")
	nodeStream(s, "/attach/"+s.name+"/p/main?input=1&output=1&error=1", func(out, errOut io.Writer) remotecommand.StreamOptions {
		// What comes back ends the stream.
		r, w := io.Pipe()
		answered := &onFirstWrite{Writer: out, then: func() { w.Close() }}
		go io.WriteString(w, "word\n") //nolint:errcheck // what comes back is looked at
		return remotecommand.StreamOptions{Stdin: r, Stdout: answered, Stderr: errOut}
	}, func(protocol, out, errOut string, err error) {
		if out != "got word\n" || errOut != "" || err != nil {
			s.t.Errorf("%s: out %q, error %q, %v", protocol, out, errOut, err)
		}
	})
}

// onFirstWrite calls then after the first write.
type onFirstWrite struct {
	io.Writer
	then func()
}

func (w *onFirstWrite) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if w.then != nil {
		w.then()
		w.then = nil
	}
	return n, err
}

func nodePortForward(s *space) {
	s.server("p", "p", "")
	s.ready("p")
	path := "/portForward/" + s.name + "/p"
	for protocol, verb := range map[string]string{"websocket": "get", "spdy": "create"} {
		dialer := func(c *rest.Config) httpstream.Dialer {
			u, err := url.Parse(c.Host + path)
			if err != nil {
				s.t.Fatal(err)
			}
			if protocol == "websocket" {
				d, err := portforward.NewSPDYOverWebsocketDialer(u, c)
				if err != nil {
					s.t.Fatal(err)
				}
				return d
			}
			rt, upgrader, err := spdy.RoundTripperFor(c)
			if err != nil {
				s.t.Fatal(err)
			}
			return spdy.NewDialer(upgrader, &http.Client{Transport: rt}, http.MethodPost, u)
		}
		if _, _, err := dialer(s.asNode("stranger-"+protocol, "", "")).Dial(portforward.PortForwardProtocolV1Name); err == nil {
			s.t.Errorf("%s by a stranger is let in", protocol)
		}
		caller := s.asNode(protocol, verb, "proxy")
		s.roleCounts(caller, verb)
		stop, ready, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		f, err := portforward.NewOnAddresses(dialer(caller), []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			s.t.Fatal(err)
		}
		go func() { done <- f.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-done:
			s.t.Fatalf("%s: %v", protocol, err)
		}
		ports, err := f.GetPorts()
		if err != nil {
			s.t.Fatal(err)
		}
		if got, err := fetch(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local)); got != "p\n" || err != nil {
			s.t.Errorf("%s: %q, %v", protocol, got, err)
		}
		close(stop)
		if err := <-done; err != nil {
			s.t.Errorf("%s: %v", protocol, err)
		}
	}
}
