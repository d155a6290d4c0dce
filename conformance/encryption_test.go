package conformance

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
)

// hidden is text that must not be found on the disk.
const hidden = "never-written-to-the-disk-in-plain-text"

// encrypted writes the configuration by which secrets are encrypted with the
// first provider and read with all of them, and gives the flag that names it. A
// provider is "identity" or KIND/KEY.
func (c *cluster) encrypted(t *testing.T, providers ...string) string {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n" +
		"- resources: [secrets]\n  providers:\n"
	for _, p := range providers {
		kind, key, encrypts := strings.Cut(p, "/")
		if !encrypts {
			text += "  - " + kind + ": {}\n"
			continue
		}
		secret := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(key[:1]), 32))
		text += fmt.Sprintf("  - %s: {keys: [{name: %s, secret: %s}]}\n", kind, key, secret)
	}
	file := filepath.Join(filepath.Dir(c.dir), "encryption.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--encryption-provider-config=" + file
}

// stored are the values of all secrets of a cluster that does not run, by key.
func (c *cluster) stored(t *testing.T) map[string]string {
	t.Helper()
	engine, err := etcd.Start(t.Context(), etcd.Options{Dir: filepath.Join(c.dir, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := engine.Range(t.Context(), store.RangeRequest{Start: "/registry/secrets/", End: "/registry/secrets0"})
	if err := errors.Join(err, engine.Close()); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, kv := range resp.KVs {
		values[kv.Key] = string(kv.Value)
	}
	return values
}

// holds says which files of the data directory contain a text.
func (c *cluster) holds(t *testing.T, text string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// "Encrypting Confidential Data at Rest": what is encrypted is nowhere on the
// disk in plain text; a key is rotated by putting the new one first, replacing
// all secrets by themselves, and taking the old one out.
func TestEncryptionAtRest(t *testing.T) {
	c, p := started(t, "encrypted")
	stop := func() {
		t.Helper()
		if err := c.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.http.CloseIdleConnections()
	}
	start := func(providers ...string) {
		t.Helper()
		if err := c.up(c.encrypted(t, providers...)); err != nil {
			t.Fatal(err)
		}
	}
	all := func(prefix string, n int) {
		t.Helper()
		values := c.stored(t)
		for key, value := range values {
			if !strings.HasPrefix(value, prefix) {
				t.Errorf("%s begins with %.40q, want %q", key, value, prefix)
			}
		}
		if len(values) != n {
			t.Errorf("%d secrets are stored, want %d", len(values), n)
		}
	}
	write := func(name, text string) {
		t.Helper()
		p.want(t, http.StatusCreated, call{method: "POST", path: at("secrets", "default"),
			body: "metadata: {name: " + name + "}\nstringData: {password: " + text + "}"}, nil)
	}
	rewrite := func() {
		t.Helper()
		list := c.run(t, "kubectl", "get", "secrets", "-A", "-o", "json")
		cmd := c.hansa(t.Context(), nil, "kubectl", "replace", "-f", "-")
		cmd.Stdin = strings.NewReader(list.out)
		if r := c.finish(t, cmd); r.code != 0 || strings.Count(r.out, "replaced\n") != 2 {
			t.Errorf("replace: %+v", r)
		}
	}
	write("plain", "from-before")
	stop()
	all("k8s\x00", 1)
	if len(c.holds(t, "from-before")) == 0 {
		t.Error("a plain value is not found: the search finds nothing")
	}

	start("aesgcm/one", "identity")
	write("hidden", hidden)
	rewrite()
	stop()
	all("k8s:enc:aesgcm:v1:one:", 2)
	if files := c.holds(t, hidden); len(files) > 0 {
		t.Errorf("the secret is in %v", files)
	}

	start("secretbox/two", "aesgcm/one")
	rewrite()
	stop()
	all("k8s:enc:secretbox:v1:two:", 2)

	start("secretbox/two")
	if got := c.run(t, "kubectl", "get", "secret", "hidden", "-o", "jsonpath={.data.password}"); got.out != base64.StdEncoding.EncodeToString([]byte(hidden)) {
		t.Errorf("the secret reads %+v", got)
	}
	stop()
	refusedRun(t, c.run(t, "up", c.encrypted(t, "secretbox/one")), 1, `.*/registry/secrets/default/(hidden|plain): decrypt it: .*--encryption-provider-config must have the key.*`)
	refusedRun(t, c.run(t, "up"), 1, `.*/registry/secrets/default/(hidden|plain): .*encrypted.*--encryption-provider-config.*`)
}
