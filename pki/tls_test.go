package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
)

// handshake connects the two, over a real socket since the last flight of a
// handshake is not waited for, and says whom the client and the server saw.
func handshake(t *testing.T, server, client *tls.Config) (byClient, byServer *tls.ConnectionState, err error) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	type result struct {
		state *tls.ConnectionState
		err   error
	}
	accepted := make(chan result, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			accepted <- result{err: err}
			return
		}
		defer conn.Close()
		srv := conn.(*tls.Conn)
		err = srv.HandshakeContext(t.Context())
		state := srv.ConnectionState()
		accepted <- result{&state, err}
	}()
	conn, clientErr := tls.Dial("tcp", listener.Addr().String(), client)
	if clientErr == nil {
		defer conn.Close()
	}
	srv := <-accepted
	if err := errors.Join(clientErr, srv.err); err != nil {
		return nil, nil, err
	}
	state := conn.ConnectionState()
	return &state, srv.state, nil
}

// Two thirds into its life, a leaf is replaced on the next handshake of the
// same configuration; nothing is restarted.
func TestRotation(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	server := a.NodeServerTLS("n1", "192.0.2.7")
	client := a.KubeletClientTLS()
	client.ServerName = "n1"

	seen := func() (serverSerial, clientSerial string) {
		t.Helper()
		s, c, err := handshake(t, server, client)
		if err != nil {
			t.Fatalf("at %s: %v", clk.Now(), err)
		}
		if cn := c.PeerCertificates[0].Subject.CommonName; cn != KubeletClientName {
			t.Fatalf("the node sees %q", cn)
		}
		return s.PeerCertificates[0].SerialNumber.String(), c.PeerCertificates[0].SerialNumber.String()
	}

	s1, c1 := seen()
	clk.Step(20*24*time.Hour - time.Second)
	if s, c := seen(); s != s1 || c != c1 {
		t.Error("replaced before two thirds of the life were over")
	}
	clk.Step(time.Second)
	s2, c2 := seen()
	if s2 == s1 || c2 == c1 {
		t.Error("not replaced after two thirds of the life")
	}
	clk.Step(365 * 24 * time.Hour)
	if s, c := seen(); s == s2 || c == c2 {
		t.Error("not replaced after a long rest")
	}
}

func TestNodeServerRefuses(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	server := a.NodeServerTLS("n1")

	nobody := &tls.Config{RootCAs: a.API.Pool(), ServerName: "n1", Time: clk.Now}
	if _, state, err := handshake(t, server, nobody); err != nil || len(state.PeerCertificates) != 0 {
		t.Errorf("a client without a certificate, which may have a token: %v", err)
	}
	stranger := nobody.Clone()
	stranger.GetClientCertificate = a.FrontProxy.Leaf(Identity{CommonName: KubeletClientName, Client: true}).ForClient
	if _, _, err := handshake(t, server, stranger); err == nil {
		t.Error("a client of another authority is served")
	}
	other := a.KubeletClientTLS()
	other.ServerName = "n2"
	if _, _, err := handshake(t, server, other); err == nil {
		t.Error("node n1 passes as n2")
	}
}

// The API server lets everybody finish the handshake and tells the
// authenticator what was shown.
func TestServerAsksForCertificate(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	server := a.ServerTLS([]string{"localhost"})
	nobody := &tls.Config{RootCAs: a.API.Pool(), ServerName: "localhost", Time: clk.Now}
	_, state, err := handshake(t, server, nobody)
	if err != nil || len(state.PeerCertificates) != 0 {
		t.Errorf("without a certificate: %v", err)
	}
	admin := a.ClientTLS(AdminIdentity())
	admin.ServerName = "localhost"
	_, state, err = handshake(t, server, admin)
	if err != nil || len(state.PeerCertificates) != 1 || state.PeerCertificates[0].Subject.CommonName != AdminName {
		t.Errorf("as administrator: %v", err)
	}
}

func TestEtcdTLS(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	member := a.EtcdServerTLS("m1", "m1.example")
	client := a.EtcdClientTLS()
	client.ServerName = "m1.example"
	if _, _, err := handshake(t, member, client); err != nil {
		t.Errorf("client: %v", err)
	}
	peer := member.Clone()
	peer.ServerName = "m1.example"
	if _, _, err := handshake(t, member, peer); err != nil {
		t.Errorf("peer: %v", err)
	}
	api := a.KubeletClientTLS()
	api.RootCAs, api.ServerName = a.Etcd.Pool(), "m1.example"
	if _, _, err := handshake(t, member, api); err == nil {
		t.Error("etcd serves a client of the API authority")
	}
}

// client-go's own loader reads the file, and a request made with it reaches a
// server as the administrator.
func TestKubeconfig(t *testing.T) {
	a, err := Open(filepath.Join(t.TempDir(), "pki"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", a.ServerTLS([]string{"127.0.0.1"}))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.String())
	})}
	go srv.Serve(listener)
	defer srv.Close()

	path := filepath.Join(t.TempDir(), "kubeconfig")
	if _, err := a.WriteAdminKubeconfig(path, "https://"+listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: loaded(t, config.CAData, config.CertData, config.KeyData)}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "CN=hansa-admin,O=system:masters" {
		t.Errorf("the server saw %q, %v", body, err)
	}
}

func loaded(t *testing.T, ca, cert, key []byte) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: poolOf(t, ca), Certificates: []tls.Certificate{pair}}
}

// The clock jumps: a certificate that is not valid yet is replaced, and its time is
// the time of day, not what passed while the machine was awake.
func TestLeafAfterClockJump(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	ca := open(t, filepath.Join(t.TempDir(), "pki"), clk).API
	leaf := ca.Leaf(AdminIdentity())
	first, _, err := leaf.Get()
	if err != nil {
		t.Fatal(err)
	}
	clk.SetTime(first.Leaf.NotBefore.Add(-time.Second))
	early, renew, err := leaf.Get()
	if err != nil || early == first || early.Leaf.NotBefore.After(clk.Now()) {
		t.Errorf("a certificate from %v at %v: %v", early.Leaf.NotBefore, clk.Now(), err)
	}
	clk.SetTime(renew)
	if late, _, err := leaf.Get(); err != nil || late == early {
		t.Errorf("at %v there is the certificate from %v still: %v", renew, early.Leaf.NotBefore, err)
	}
	a, err := Open(filepath.Join(t.TempDir(), "pki"), Options{Clock: clock.RealClock{}})
	if err != nil {
		t.Fatal(err)
	}
	_, renew, err = a.API.Leaf(AdminIdentity()).Get()
	if err != nil || renew != renew.Round(0) {
		t.Errorf("renewed at %v, by the clock that cannot be set: %v", renew, err)
	}
}

func TestKeepAdminKubeconfig(t *testing.T) {
	clk := clocktesting.NewFakeClock(epoch)
	a := open(t, filepath.Join(t.TempDir(), "pki"), clk)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	renew, err := a.WriteAdminKubeconfig(path, "https://127.0.0.1:6443")
	if err != nil {
		t.Fatal(err)
	}
	if want := epoch.Add(20 * 24 * time.Hour); !renew.Equal(want) {
		t.Errorf("to be renewed %s, want %s", renew, want)
	}
	before := read(t, path)

	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		a.KeepAdminKubeconfig(ctx, path, "https://127.0.0.1:6443", renew)
		close(stopped)
	}()
	until(t, clk.HasWaiters)
	clk.Step(20 * 24 * time.Hour)
	until(t, func() bool { return !bytes.Equal(before, read(t, path)) })
	cancel()
	<-stopped
}
