package conformance

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// kubectlProxy runs kubectl proxy until the test ends and answers with where it
// says that it listens.
func kubectlProxy(t *testing.T, args ...string) string {
	t.Helper()
	p, err := shared.begin(shared.hansa(t.Context(), nil, append([]string{"kubectl", "proxy"}, args...)...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which the test has seen
		<-p.ended
	})
	said := regexp.MustCompile(`Starting to serve on (\S+)\n`)
	eventually(t, "the proxy listens", func() bool { return said.MatchString(p.out.String()) })
	return said.FindStringSubmatch(p.out.String())[1]
}

// through is what a path gives over a connection made by dial, unless it is no
// success.
func through(t *testing.T, dial func() (net.Conn, error), path string) string {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s, %v", path, resp.Status, body, err)
	}
	return string(body)
}

// "kubectl proxy": at a port that the system chooses, and below a prefix.
func TestKubectlProxy(t *testing.T) {
	at := kubectlProxy(t, "--port=0", "--api-prefix=/k8s/")
	dial := func() (conn net.Conn, err error) {
		err = shared.enter(func() error {
			conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
			return err
		})
		return conn, err
	}
	if got := through(t, dial, "/k8s/api/"); !strings.Contains(got, `"APIVersions"`) {
		t.Errorf("/k8s/api/ is %s", got)
	}
}

// "kubectl proxy --unix-socket".
func TestKubectlProxyAtASocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	kubectlProxy(t, "--unix-socket="+socket)
	dial := func() (net.Conn, error) { return (&net.Dialer{}).DialContext(t.Context(), "unix", socket) }
	if got := through(t, dial, "/api/"); !strings.Contains(got, `"APIVersions"`) {
		t.Errorf("/api/ is %s", got)
	}
}
