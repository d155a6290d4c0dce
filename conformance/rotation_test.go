package conformance

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// killed ends the daemon as a crash would, and starts it again.
func (c *cluster) killed(t *testing.T, p *peer, flags ...string) {
	t.Helper()
	if err := c.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.daemon.ended
	p.http.CloseIdleConnections()
	if err := c.up(flags...); err != nil {
		t.Fatalf("start after kill -9: %v", err)
	}
}

// reloads is how many times the daemon has read another configuration of
// encryption, with this outcome.
func reloads(t *testing.T, p *peer, status string) int {
	t.Helper()
	text := string(p.want(t, http.StatusOK, call{path: "/metrics"}, nil).body)
	_, rest, ok := strings.Cut(text, `apiserver_encryption_config_controller_automatic_reloads_total{status="`+status+`"} `)
	if !ok {
		return 0
	}
	number, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// "Rotate a decryption key" and "Configure automatic reloading": without a
// restart, and with a crash between any two steps, nothing is lost and nothing
// left behind with the old key. A configuration without a key that is in use is
// refused.
func TestKeyRotation(t *testing.T) {
	const secrets = 20
	c := own(t, "rotated")
	flags := []string{c.encrypted(t, "aesgcm/one"), "--encryption-provider-config-automatic-reload"}
	if err := c.up(flags...); err != nil {
		t.Fatal(err)
	}
	p := c.peer(t)
	for i := range secrets {
		p.want(t, http.StatusCreated, call{method: "POST", path: at("secrets", "default"),
			body: fmt.Sprintf("metadata: {name: s%02d}\nstringData: {password: secret-%d}", i, i)}, nil)
	}
	readable := func() {
		t.Helper()
		var list unstructured.UnstructuredList
		if err := list.UnmarshalJSON(p.want(t, http.StatusOK, call{path: at("secrets", "default"), accept: "application/json"}, nil).body); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != secrets {
			t.Errorf("%d secrets, want %d", len(list.Items), secrets)
		}
	}
	reload := func(status string, providers ...string) {
		t.Helper()
		before := reloads(t, p, status)
		c.encrypted(t, providers...)
		eventually(t, "the configuration is read", func() bool { return reloads(t, p, status) > before })
	}
	// rewrite replaces every secret by itself, and crashes in between.
	rewrite := func() {
		t.Helper()
		for i := range secrets {
			path := at("secrets", "default", fmt.Sprintf("s%02d", i))
			obj := p.want(t, http.StatusOK, call{path: path}, nil).object(t)
			next := p.want(t, http.StatusOK, call{method: "PUT", path: path, body: encode(t, obj)}, nil).object(t)
			if next.GetResourceVersion() == obj.GetResourceVersion() {
				t.Errorf("%s was not written anew", path)
			}
			if i == secrets/2 {
				c.killed(t, p, flags...)
			}
		}
	}
	page := p.want(t, http.StatusOK, call{path: at("secrets", "default") + "?limit=5", accept: "application/json"}, nil).object(t)
	next, _, err := nested[string](page.Object, "metadata", "continue")
	if err != nil || next == "" {
		t.Fatalf("no continue: %v", err)
	}

	reload("success", "secretbox/two", "aesgcm/one")
	c.killed(t, p, flags...)
	readable()
	rewrite()
	reload("failure", "secretbox/three")
	readable()
	reload("success", "secretbox/two")
	readable()
	c.killed(t, p, flags...)
	readable()

	// The history has values that no key is there for: a list that goes on there
	// is too late.
	a := p.do(t, call{path: at("secrets", "default") + "?limit=5&continue=" + next})
	s := a.refused(t, http.StatusGone, metav1.StatusReasonExpired, "The provided continue parameter is too old")
	p.want(t, http.StatusOK, call{path: at("secrets", "default") + "?limit=5&continue=" + s.Continue}, nil)
	p.do(t, call{path: at("secrets", "default") + "?resourceVersionMatch=Exact&resourceVersion=" + page.GetResourceVersion()}).
		refused(t, http.StatusGone, metav1.StatusReasonExpired, "too old resource version")

	if err := c.daemon.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.daemon.ended
	values := c.stored(t)
	for key, value := range values {
		if !strings.HasPrefix(value, "k8s:enc:secretbox:v1:two:") {
			t.Errorf("%s begins with %.40q", key, value)
		}
	}
	if len(values) != secrets {
		t.Errorf("%d secrets are stored, want %d", len(values), secrets)
	}
}
