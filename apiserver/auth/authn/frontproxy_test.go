package authn_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/apiserver/auth/authn"
)

// A front proxy is believed by its certificate and its name, before anything else
// that the request shows (Kubernetes: "Authenticating Proxy").
func TestFrontProxies(t *testing.T) {
	clients, proxies := newCA(t), newCA(t)
	clk := clocktesting.NewFakePassiveClock(epoch)
	client := func(ca *ca, name string, usage x509.ExtKeyUsage) *x509.Certificate {
		return ca.client(pkix.Name{CommonName: name}, usage)
	}
	const auth = x509.ExtKeyUsageClientAuth
	says := []string{"X-Remote-User", "jane", "X-Remote-Uid", "u", "X-Remote-Group", "dev", "X-Remote-Group", "", "X-Remote-Group", "ops", "X-Remote-Extra-Example.com%2fkey", "v", "X-Remote-Extra-Bad%ZZ", "w"}
	for _, c := range []struct {
		name    string
		names   []string
		request *http.Request
		user    string // and groups; "": refused
		reason  string
	}{
		{"a proxy", []string{"front"}, shows(request("/api", says...), client(proxies, "front", auth)), "jane u [dev ops system:authenticated] map[bad%zz:[w] example.com/key:[v]]", ""},
		{"any name", nil, shows(request("/api", says...), client(proxies, "other", auth)), "jane u [dev ops system:authenticated] map[bad%zz:[w] example.com/key:[v]]", ""},
		{"with a token", []string{"front"}, shows(request("/api", append([]string{"Authorization", "Bearer good"}, says...)...), client(proxies, "front", auth)), "jane u [dev ops system:authenticated] map[bad%zz:[w] example.com/key:[v]]", ""},
		{"as nobody", []string{"front"}, shows(request("/api", "X-Remote-User", "system:anonymous", "X-Remote-Group", "system:unauthenticated"), client(proxies, "front", auth)), "system:anonymous  [system:unauthenticated] map[]", ""},
		{"another name", []string{"front"}, shows(request("/api", says...), client(proxies, "other", auth)), "", "x509: subject with cn=other is not in the allowed list"},
		{"of a server", []string{"front"}, shows(request("/api", says...), client(proxies, "front", x509.ExtKeyUsageServerAuth)), "", "incompatible key usage"},
		{"no certificate", []string{"front"}, request("/api", says...), "", ""},
		{"a client", []string{"front"}, shows(request("/api", says...), client(clients, "kim", auth)), "kim  [system:authenticated] map[", ""},
		{"nobody named", []string{"front"}, shows(request("/api", "X-Remote-Group", "system:masters"), client(proxies, "front", auth)), "", "signed by unknown authority"},
	} {
		z := authn.New(authn.NewCertificates(clients.pool(), clk), tokens, nil, authn.DefaultAnonymous()).
			WithFrontProxies(authn.NewFrontProxies(proxies.pool(), c.names, authn.DefaultProxyHeaders(), clk))
		resp, ok, err := z.AuthenticateRequest(c.request)
		if c.user == "" {
			if ok || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
				t.Errorf("%s: %v, %v, want %q", c.name, ok, err, c.reason)
			}
			continue
		}
		if !ok {
			t.Errorf("%s: not let in, because of %v", c.name, err)
			continue
		}
		u := resp.User
		got := fmt.Sprint(u.GetName(), " ", u.GetUID(), " ", u.GetGroups(), " ", u.GetExtra())
		if !strings.HasPrefix(got, c.user) {
			t.Errorf("%s: %s, want %s", c.name, got, c.user)
		}
		for header := range c.request.Header {
			if u.GetName() == "jane" && strings.HasPrefix(header, "X-Remote-") {
				t.Errorf("%s: %s is still there", c.name, header)
			}
		}
	}
	z := authn.NewFrontProxies(proxies.pool(), nil, authn.DefaultProxyHeaders(), clk)
	cert := client(proxies, "front", auth)
	clk.SetTime(epoch.Add(2 * time.Hour))
	if _, ok, err := z.AuthenticateRequest(shows(request("/api", says...), cert)); ok || err == nil {
		t.Errorf("an expired proxy: %v, %v", ok, err)
	}
}
