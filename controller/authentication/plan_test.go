package authentication

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"
)

var now = time.Unix(1_700_000_000, 0)

func authority(t *testing.T, name string, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// What is missing is added, what others have put there stays, what has expired
// goes (Kubernetes: cluster_authentication_trust_controller).
func TestPlan(t *testing.T) {
	clients, proxies := authority(t, "clients", now.Add(time.Hour)), authority(t, "proxies", now.Add(time.Hour))
	info := Info{
		ClientCA: clients, ProxyCA: proxies, ProxyNames: []string{"front-proxy-client"},
		UserHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"}, GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"},
	}
	fresh, err := plan(nil, info, now)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"client-ca-file": string(clients), "requestheader-client-ca-file": string(proxies), "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`,
		"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
	}
	if !maps.Equal(fresh, want) {
		t.Errorf("made %v", fresh)
	}
	if again, err := plan(fresh, info, now); err != nil || !maps.Equal(again, fresh) {
		t.Errorf("not at rest: %v, %v", again, err)
	}
	other, old := authority(t, "other", now.Add(time.Hour)), authority(t, "old", now.Add(-time.Minute))
	joint, err := plan(map[string]string{
		"client-ca-file": string(old) + string(other), "requestheader-allowed-names": `["another"]`, "mine": "stays",
	}, info, now)
	if err != nil {
		t.Fatal(err)
	}
	if joint["client-ca-file"] != string(other)+string(clients) || joint["requestheader-allowed-names"] != `["another","front-proxy-client"]` || joint["mine"] != "stays" {
		t.Errorf("joined %v", joint)
	}
	for key, value := range map[string]string{"requestheader-group-headers": "{", "client-ca-file": "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"} {
		if _, err := plan(map[string]string{key: value}, info, now); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
