package encryption_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/encryption"
	"hansa.dev/hansa/store/memory"
	"hansa.dev/hansa/store/storetest"
)

const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"

// secret is a key of 32 equal bytes.
func secret(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }

// entry encrypts resources by providers, each NAME/KEY=BYTE or "identity".
func entry(resources string, providers ...string) string {
	var b strings.Builder
	b.WriteString("- resources: [" + resources + "]\n  providers:\n")
	for _, p := range providers {
		kind, key, ok := strings.Cut(p, "/")
		if !ok {
			b.WriteString("  - " + kind + ": {}\n")
			continue
		}
		name, letter, _ := strings.Cut(key, "=")
		b.WriteString("  - " + kind + ": {keys: [{name: " + name + ", secret: " + secret(letter[0]) + "}]}\n")
	}
	return b.String()
}

func parse(t *testing.T, text string) *encryption.Config {
	t.Helper()
	c, err := encryption.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The store passes its suite over an engine that encrypts everything.
func TestStore(t *testing.T) {
	for _, provider := range []string{"aesgcm/k=1", "aescbc/k=1", "secretbox/k=1", "identity"} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			c := parse(t, head+entry("'*.*'", provider))
			storetest.Run(t, func(t *testing.T) store.Engine {
				return encryption.Wrap(memory.New(memory.Options{}), storetest.Registry(), c)
			})
		})
	}
}

// lasting is an engine whose content outlives the stores over it.
type lasting struct{ store.Engine }

func (lasting) Close() error { return nil }

type fixture struct {
	*testing.T
	raw store.Engine
	reg *api.Registry
}

func newFixture(t *testing.T) *fixture {
	raw := memory.New(memory.Options{})
	t.Cleanup(func() { _ = raw.Close() })
	return &fixture{T: t, raw: raw, reg: storetest.Registry()}
}

// open starts a server with a configuration ("" has none), which ends before the
// next one starts.
func (f *fixture) open(config string) (*store.Store, error) {
	var e store.Engine = lasting{f.raw}
	if config != "" {
		e = encryption.Wrap(e, f.reg, parse(f.T, head+config))
	}
	return store.Open(f.Context(), e, f.reg, store.Options{DetectMutations: true})
}

func (f *fixture) with(config string, do func(s *store.Store)) {
	f.Helper()
	s, err := f.open(config)
	if err != nil {
		f.Fatal(err)
	}
	do(s)
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) value(key string) []byte {
	f.Helper()
	resp, err := f.raw.Range(f.Context(), store.RangeRequest{Start: key})
	if err != nil || len(resp.KVs) != 1 {
		f.Fatalf("%s: %v, %v", key, resp, err)
	}
	return resp.KVs[0].Value
}

const key = "/registry/configmaps/default/a"

func (f *fixture) create(s *store.Store) api.Object {
	f.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Data: map[string]string{"value": "hidden"}}
	obj, err := s.Create(f.Context(), f.reg.Must("", "configmaps"), cm, store.WriteOptions{})
	if err != nil {
		f.Fatal(err)
	}
	return obj
}

// touch is a write that changes nothing.
func (f *fixture) touch(s *store.Store) api.Object {
	f.Helper()
	ref := api.Ref{Resource: f.reg.Must("", "configmaps"), Namespace: "default", Name: "a"}
	obj, err := s.Update(f.Context(), ref, store.WriteOptions{}, func(api.Object) (store.Outcome, error) {
		return store.Outcome{Unchanged: true}, nil
	})
	if err != nil {
		f.Fatal(err)
	}
	if got := obj.(*corev1.ConfigMap).Data["value"]; got != "hidden" {
		f.Fatalf("the object has the value %q", got)
	}
	return obj
}

// The stored form is the one of Kubernetes: AES-GCM with a nonce of twelve bytes
// in front, behind the name of the key, authenticated by the key in etcd.
func TestStoredForm(t *testing.T) {
	f := newFixture(t)
	f.with(entry("configmaps", "aesgcm/key1=1"), func(s *store.Store) { f.create(s) })
	sealed, ok := bytes.CutPrefix(f.value(key), []byte("k8s:enc:aesgcm:v1:key1:"))
	if !ok {
		t.Fatalf("the value begins with %q", f.value(key)[:30])
	}
	block, err := aes.NewCipher(bytes.Repeat([]byte{'1'}, 32))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	value, err := gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], []byte(key))
	if err != nil || !bytes.HasPrefix(value, []byte("k8s\x00")) || !bytes.Contains(value, []byte("hidden")) {
		t.Errorf("decrypted: %q, %v", value, err)
	}
}

// What comes first for a resource counts: its own name, its group, everything.
func TestWhatIsEncrypted(t *testing.T) {
	for _, c := range []struct{ config, prefix string }{
		{entry("secrets", "aesgcm/k=1"), "k8s\x00"},
		{entry("'*.'", "aesgcm/k=1"), "k8s:enc:aesgcm:v1:k:"},
		{entry("'*.*'", "secretbox/k=1"), "k8s:enc:secretbox:v1:k:"},
		{entry("'*.apps'", "secretbox/k=1"), "k8s\x00"},
		{entry("configmaps", "identity") + entry("'*.*'", "aescbc/k=1"), "k8s\x00"},
		{entry("configmaps", "aescbc/k=1") + entry("'*.'", "identity"), "k8s:enc:aescbc:v1:k:"},
	} {
		f := newFixture(t)
		f.with(c.config, func(s *store.Store) { f.create(s) })
		if !bytes.HasPrefix(f.value(key), []byte(c.prefix)) {
			t.Errorf("%s\nthe value is %q", c.config, f.value(key))
		}
	}
}

// Claims are encrypted by the names that Kubernetes has for them.
func TestClaims(t *testing.T) {
	f := newFixture(t)
	f.with(entry("ipaddresses.networking.k8s.io", "aesgcm/net=1")+entry("'*.'", "aesgcm/core=1"), func(s *store.Store) {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}
		_, err := s.Create(t.Context(), f.reg.Must("", "configmaps"), cm, store.WriteOptions{With: []store.Side{
			{Key: "ipaddresses/10.0.0.1", Value: []byte("claim")},
			{Key: "ranges/servicenodeports", Value: []byte("bitmap")},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if value, _, err := s.Raw(t.Context(), "ranges/servicenodeports"); err != nil || string(value) != "bitmap" {
			t.Errorf("read back: %q, %v", value, err)
		}
	})
	for key, prefix := range map[string]string{
		"/registry/ipaddresses/10.0.0.1":    "k8s:enc:aesgcm:v1:net:",
		"/registry/ranges/servicenodeports": "k8s:enc:aesgcm:v1:core:",
	} {
		if !bytes.HasPrefix(f.value(key), []byte(prefix)) {
			t.Errorf("%s is %q", key, f.value(key))
		}
	}
}

// A key is rotated by putting the new one in front, writing everything once
// more, changed or not, and taking the old one out.
func TestRotation(t *testing.T) {
	f := newFixture(t)
	var version string
	f.with("", func(s *store.Store) { version = f.create(s).GetResourceVersion() })
	for _, c := range []struct{ config, prefix string }{
		{entry("configmaps", "aescbc/one=1", "identity"), "k8s:enc:aescbc:v1:one:"},
		{entry("configmaps", "aesgcm/two=2", "aescbc/one=1"), "k8s:enc:aesgcm:v1:two:"},
		{entry("configmaps", "aesgcm/three=3", "aesgcm/two=2"), "k8s:enc:aesgcm:v1:three:"},
		{entry("configmaps", "aesgcm/three=3"), "k8s:enc:aesgcm:v1:three:"},
		{entry("configmaps", "identity", "aesgcm/three=3"), "k8s\x00"},
		{"", "k8s\x00"},
	} {
		stays := bytes.HasPrefix(f.value(key), []byte(c.prefix))
		f.with(c.config, func(s *store.Store) {
			written := f.touch(s).GetResourceVersion()
			if (written == version) != stays {
				t.Errorf("%s\nversion %s after %s, want the same: %v", c.config, written, version, stays)
			}
			if again := f.touch(s).GetResourceVersion(); again != written {
				t.Errorf("%s\nit was written a second time", c.config)
			}
			version = written
		})
		if !bytes.HasPrefix(f.value(key), []byte(c.prefix)) {
			t.Errorf("%s\nthe value is %q", c.config, f.value(key))
		}
	}
}

// What cannot be decrypted keeps the store from opening, by the name of its key.
func TestUnreadable(t *testing.T) {
	f := newFixture(t)
	f.with(entry("configmaps", "aesgcm/one=1"), func(s *store.Store) { f.create(s) })
	for config, want := range map[string]string{
		"":                                  "it is encrypted; start with the configuration that has its key (--encryption-provider-config)",
		entry("secrets", "aesgcm/one=1"):    "identity transformer tried to read encrypted data",
		entry("configmaps", "aesgcm/two=1"): "no provider or key of the configuration fits it; --encryption-provider-config must have the key",
		entry("configmaps", "aesgcm/one=2"): "message authentication failed",
	} {
		_, err := f.open(config)
		if err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %s named and %q", config, err, key, want)
		}
	}
	// A value that was moved to another key is none of that key's.
	moved := store.Put{Key: key + "b", Value: f.value(key)}
	if _, err := f.raw.Txn(t.Context(), []store.Step{{Then: []store.Put{moved}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.open(entry("configmaps", "aesgcm/one=1")); err == nil || !strings.Contains(err.Error(), moved.Key) {
		t.Errorf("a value of another key: %v", err)
	}
}

// One that comes while the store runs ends it, as going on would show old data.
func TestUnreadableLater(t *testing.T) {
	f := newFixture(t)
	s, err := f.open(entry("configmaps", "aesgcm/one=1"))
	if err != nil {
		t.Fatal(err)
	}
	bad := store.Put{Key: key, Value: []byte("k8s:enc:aesgcm:v1:two:x")}
	if _, err := f.raw.Txn(t.Context(), []store.Step{{Then: []store.Put{bad}}}); err != nil {
		t.Fatal(err)
	}
	ref := api.Ref{Resource: f.reg.Must("", "configmaps"), Namespace: "default", Name: "a"}
	if _, err := s.Get(t.Context(), ref, ""); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("get: %v", err)
	}
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), key) {
		t.Errorf("ready: %v", err)
	}
	_ = s.Close()
}

// A watch from a time whose values cannot be read any more begins anew.
func TestHistoryOfALostKey(t *testing.T) {
	f := newFixture(t)
	var from string
	f.with(entry("configmaps", "aesgcm/one=1"), func(s *store.Store) {
		from = s.Revision()
		f.create(s)
	})
	f.with(entry("configmaps", "aesgcm/two=2", "aesgcm/one=1"), func(s *store.Store) { f.touch(s) })
	f.with(entry("configmaps", "aesgcm/two=2"), func(s *store.Store) {
		w, err := s.Watch(t.Context(), store.Query{Resource: f.reg.Must("", "configmaps")}, store.WatchOptions{ResourceVersion: from})
		if err == nil {
			defer w.Stop()
			_, _, err = w.Poll(t.Context())
		}
		if !apierrors.IsResourceExpired(err) {
			t.Errorf("watch from %s: %v, want Expired", from, err)
		}
	})
}

// A list that goes on at a time whose values cannot be read any more is told that
// it is too late, and how to go on.
func TestListOfALostKey(t *testing.T) {
	f := newFixture(t)
	rows := f.reg.Must("", "configmaps")
	var next, version string
	f.with(entry("configmaps", "aesgcm/one=1"), func(s *store.Store) {
		f.create(s)
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}
		if _, err := s.Create(t.Context(), rows, cm, store.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		list, err := s.List(t.Context(), store.Query{Resource: rows}, store.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		next, version = list.Continue, list.ResourceVersion
	})
	f.with(entry("configmaps", "aesgcm/two=2", "aesgcm/one=1"), func(s *store.Store) {
		for _, name := range []string{"a", "b"} {
			ref := api.Ref{Resource: rows, Namespace: "default", Name: name}
			if _, err := s.Update(t.Context(), ref, store.WriteOptions{}, func(api.Object) (store.Outcome, error) {
				return store.Outcome{Unchanged: true}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
	f.with(entry("configmaps", "aesgcm/two=2"), func(s *store.Store) {
		_, err := s.List(t.Context(), store.Query{Resource: rows}, store.ListOptions{ResourceVersion: version, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
		if !apierrors.IsResourceExpired(err) {
			t.Errorf("list of then: %v, want Expired", err)
		}
		_, err = s.List(t.Context(), store.Query{Resource: rows}, store.ListOptions{Continue: next})
		if !apierrors.IsResourceExpired(err) {
			t.Fatalf("list from then on: %v, want Expired", err)
		}
		token := err.(apierrors.APIStatus).Status().Continue
		rest, err := s.List(t.Context(), store.Query{Resource: rows}, store.ListOptions{Continue: token})
		if err != nil || len(rest.Items) != 1 || rest.Items[0].GetName() != "b" {
			t.Errorf("with the token of the refusal: %v, %v", rest.Items, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	key := "{name: k, secret: " + secret('1') + "}"
	for text, want := range map[string]string{
		"":                                  "it is a \"\" of \"\", where an EncryptionConfiguration",
		"kind: Pod\napiVersion: v1":         "it is a \"Pod\" of \"v1\"",
		"[":                                 "it is no EncryptionConfiguration: ",
		head + "- resorces: [secrets]\n":    `it is no EncryptionConfiguration: `,
		strings.TrimSuffix(head, "\n"):      "resources: at least one entry is required",
		head + "- providers: []\n":          "resources[0].resources: at least one resource is required",
		head + "- resources: [secrets]\n":   "resources[0].providers: at least one provider is required",
		head + entry("Secrets", "identity"): `resources[0].resources[0]: "Secrets": resource names have no capital letters`,
		head + entry("'*'", "identity"):     `resources[0].resources[0]: "*": use "*." for the core group`,
		head + entry("secrets, secrets", "identity"):                                                   `resources[0].resources: "secrets" is there twice`,
		head + entry("secrets, '*.'", "identity"):                                                      `resources[0].resources: "*." covers "secrets" already`,
		head + entry("secrets, '*.*'", "identity"):                                                     `resources[0].resources: "*.*" covers "secrets" already`,
		head + entry("'*.*'", "identity") + entry("secrets", "identity"):                               `resources[1].resources: "secrets" has no effect behind "*.*"`,
		head + entry("events.events.k8s.io", "identity"):                                               "events are stored in the core group",
		head + entry("pods.extensions", "identity"):                                                    "the group has been removed",
		head + entry("'pods.*'", "identity"):                                                           "a resource cannot be named in all groups at once",
		head + entry("servicenodeportallocations", "identity"):                                         "what is no resource of the API",
		head + "- resources: [secrets]\n  providers: [{}]":                                             "resources[0].providers[0]: exactly one of",
		head + "- resources: [secrets]\n  providers: [{identity: {}, aesgcm: {keys: [" + key + "]}}]":  "resources[0].providers[0]: exactly one of",
		head + "- resources: [secrets]\n  providers: [{kms: {name: a, endpoint: 'unix:///a'}}]":        "resources[0].providers[0].kms: key management services are not supported",
		head + "- resources: [secrets]\n  providers: [{aesgcm: {keys: []}}]":                           "resources[0].providers[0].aesgcm.keys: at least one key",
		head + "- resources: [secrets]\n  providers: [{aesgcm: {keys: [{secret: a}]}}]":                "resources[0].providers[0].aesgcm.keys[0].name: a key needs a name",
		head + "- resources: [secrets]\n  providers: [{aescbc: {keys: [{name: a, secret: '?'}]}}]":     "resources[0].providers[0].aescbc.keys[0].secret: the secret must be encoded in base64",
		head + "- resources: [secrets]\n  providers: [{secretbox: {keys: [{name: a, secret: YWJj}]}}]": "resources[0].providers[0].secretbox.keys[0].secret: the secret has 3 bytes; one of [32] is expected",
		head + "- resources: [secrets]\n  providers: [{aesgcm: {keys: [{name: a}]}}]":                  "the secret has 0 bytes; one of [16 24 32] is expected",
	} {
		_, err := encryption.Parse([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) && !strings.Contains(err.Error(), ": "+want) {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("the refusal has more than a line: %q", err)
		}
	}
}

// A name that no kind has is most likely a mistake, unless a definition may have it.
func TestUnknown(t *testing.T) {
	c := parse(t, head+entry("configmaps, secret, pandas.bears.example", "identity")+entry("'*.'", "identity")+entry("'*.bears.example'", "identity")+entry("'*.*'", "identity"))
	want := "secret"
	if got := strings.Join(c.Unknown(storetest.Registry()), " "); got != want {
		t.Errorf("unknown: %s, want %s", got, want)
	}
}
