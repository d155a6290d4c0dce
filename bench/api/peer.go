package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/utils/clock"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/pki"
)

// peerProgram is where bench/peer is linked to; peerPort is where it listens,
// in a network namespace that nobody shares.
const (
	peerProgram = ".cache/linked/peer"
	peerPort    = 16443
)

func buildPeer(ctx context.Context) error {
	if !*peer {
		return nil
	}
	return rig.Build(ctx, "bench/peer", peerProgram)
}

// records are the custom resources that stand for ConfigMaps.
var records = kind{"/apis/bench.hansa.dev/v1", "bench.hansa.dev/v1", "Record", "records"}

// definition has the fields that a ConfigMap has.
const definition = `{
	"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
	"metadata": {"name": "records.bench.hansa.dev"},
	"spec": {
		"group": "bench.hansa.dev", "scope": "Namespaced",
		"names": {"kind": "Record", "listKind": "RecordList", "plural": "records", "singular": "record"},
		"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
			"immutable": {"type": "boolean"},
			"data": {"type": "object", "additionalProperties": {"type": "string"}},
			"binaryData": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}
		}}}}]
	}
}`

func startPeer(ctx context.Context, _ *rig.Rig) (_ *server, err error) {
	dir, err := os.MkdirTemp("", "hansa-bench-peer-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := writeIdentities(dir); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, peerProgram, "-dir", dir, "-port", fmt.Sprint(peerPort))
	s, err := startProgram(ctx, dir, records, cmd)
	if err != nil {
		return nil, err
	}
	if err := define(ctx, s.target); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// writeIdentities writes what the peer proves itself with, what it knows clients
// by, and the administrator's kubeconfig.
func writeIdentities(dir string) error {
	authority, err := pki.Open(filepath.Join(dir, "pki"), pki.Options{Clock: clock.RealClock{}})
	if err != nil {
		return err
	}
	leaf, err := authority.API.Issue(pki.Identity{CommonName: "peer", Names: []string{"127.0.0.1"}, Server: true})
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt":     authority.API.PEM(),
		"server.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		"server.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	_, err = authority.WriteAdminKubeconfig(filepath.Join(dir, "kubeconfig"), fmt.Sprintf("https://127.0.0.1:%d", peerPort))
	return err
}

// define makes the kind and returns when it is served.
func define(ctx context.Context, target rig.Target) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := target.Connect()
	defer c.Close()
	const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	// The port may answer a moment after the line.
	if err := eventually(ctx, func() error {
		return c.Call(ctx, http.MethodPost, definitions, json.RawMessage(definition), nil)
	}); err != nil {
		return fmt.Errorf("define records: %w", err)
	}
	if err := eventually(ctx, func() error {
		_, err := c.Discard(ctx, http.MethodGet, records.collection("load"), "", nil)
		return err
	}); err != nil {
		return fmt.Errorf("records are not served: %w", err)
	}
	return nil
}

// eventually calls do until it succeeds or the context ends.
func eventually(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		if rig.Wait(ctx, 10*time.Millisecond) != nil {
			return err
		}
	}
}
