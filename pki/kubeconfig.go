package pki

import (
	"context"
	"crypto/ecdsa"
	"encoding/pem"
	"fmt"
	"time"

	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/internal/whole"
)

// Kubeconfig is a client's configuration with one cluster and one user, all of
// it in one file.
type Kubeconfig struct {
	// Server is the API's address, as https://HOST:PORT.
	Server string
	// CA, Cert and Key are in PEM form.
	CA, Cert, Key []byte
	// User is a name within the file, for humans.
	User string
}

// clusterName is what cluster and context are called within a kubeconfig.
const clusterName = "hansa"

// Marshal gives the file's text (the v1 Config that client-go reads).
func (k Kubeconfig) Marshal() ([]byte, error) {
	type object = map[string]any
	return yaml.Marshal(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": clusterName,
		"clusters": []object{{
			"name":    clusterName,
			"cluster": object{"server": k.Server, "certificate-authority-data": k.CA},
		}},
		"users": []object{{
			"name": k.User,
			"user": object{"client-certificate-data": k.Cert, "client-key-data": k.Key},
		}},
		"contexts": []object{{
			"name":    clusterName,
			"context": object{"cluster": clusterName, "user": k.User},
		}},
	})
}

// Write puts the file at path, readable by its owner alone, whole or not at
// all.
func (k Kubeconfig) Write(path string) error {
	data, err := k.Marshal()
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	if err := whole.WriteSynced(path, data); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// WriteAdminKubeconfig writes a kubeconfig with a new certificate of the
// administrator, and says from when on it should be written again.
func (a *Authority) WriteAdminKubeconfig(path, server string) (renew time.Time, err error) {
	leaf := a.API.Leaf(AdminIdentity())
	cert, renew, err := leaf.Get()
	if err != nil {
		return time.Time{}, err
	}
	key, err := encodeKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return time.Time{}, err
	}
	return renew, Kubeconfig{
		Server: server,
		CA:     a.API.PEM(),
		Cert:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		Key:    key,
		User:   AdminName,
	}.Write(path)
}

// KeepAdminKubeconfig writes the administrator's kubeconfig anew whenever its
// time has come, beginning at renew, until the context ends. A failed write is
// tried again after a minute. The clock may be set meanwhile: it is looked at once
// an hour.
func (a *Authority) KeepAdminKubeconfig(ctx context.Context, path, server string, renew time.Time) {
	for {
		timer := a.clock.NewTimer(min(renew.Sub(a.clock.Now()), time.Hour))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
		if a.clock.Now().Before(renew) {
			continue
		}
		next, err := a.WriteAdminKubeconfig(path, server)
		if err != nil {
			a.log.Error("cannot renew the administrator's kubeconfig", "path", path, "error", err)
			next = a.clock.Now().Add(time.Minute)
		}
		renew = next
	}
}
