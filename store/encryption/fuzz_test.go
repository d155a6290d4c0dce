package encryption_test

import (
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/encryption"
	"hansa.dev/hansa/store/memory"
	"hansa.dev/hansa/store/storetest"
)

var secrets = regexp.MustCompile(`secret: *"?([0-9A-Za-z+/=]{24,})`)

// FuzzParse reads configurations. A refusal is one line and shows no secret;
// what is accepted writes what it can read.
// https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
func FuzzParse(f *testing.F) {
	for _, providers := range [][]string{{"aesgcm/k=1"}, {"aescbc/k=1", "identity"}, {"secretbox/k=1", "aesgcm/l=2"}, {"identity"}} {
		for _, resources := range []string{"configmaps", "secrets, configmaps", "'*.*'", "'*.'", "'*.apps'", "events.k8s.io", "", "x, x"} {
			f.Add(head + entry(resources, providers...))
		}
	}
	for _, text := range []string{
		"", "[", "null", head, head + "- {}", head + "- null", head + "- resources: [secrets]\n  providers: [null]", head + "- resources: [secrets]\n  providers: [{aesgcm: null}]",
		head + "- resources: [secrets]\n  providers: [{aesgcm: {keys: [null]}}]", head + "- resources: [secrets]\n  providers: [{kms: {}}]",
		head + "- resources: [secrets]\n  providers: [{aescbc: {keys: [{name: \"a:b\", secret: " + secret('1') + "}]}}]",
		head + "- resources: [secrets]\n  providers: [{aescbc: {keys: [{name: a, secret: " + secret('1') + "x}]}}]",
		"{secret:" + secret('1') + "}", head + "- resources: [secrets]\n  providers: [{aescbc: {keys: [{name: a, secret:" + secret('1') + "}]}}]",
		strings.Replace(head, "v1", "v2", 1),
	} {
		f.Add(text)
	}
	reg := storetest.Registry()
	row := reg.Must("", "configmaps")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := encryption.Parse([]byte(text))
		if err != nil {
			for _, found := range secrets.FindAllStringSubmatch(text, -1) {
				if strings.Contains(err.Error(), found[1]) {
					t.Errorf("%q shows %q: %v", text, found[1], err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is refused with lines: %v", text, err)
			}
			return
		}
		c.Unknown(reg)
		engine := memory.New(memory.Options{})
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", UID: "u"}, Data: map[string]string{"k": "v"}}
		open := func() *store.Store {
			st, err := store.Open(t.Context(), encryption.Wrap(engine, reg, c), reg, store.Options{DetectMutations: true})
			if err != nil {
				t.Fatalf("%q cannot read what it has written: %v", text, err)
			}
			t.Cleanup(func() { _ = st.Close() }) // with the engine, which both have
			return st
		}
		if _, err := open().Create(t.Context(), row, cm, store.WriteOptions{}); err != nil {
			t.Fatalf("%q writes nothing: %v", text, err)
		}
		if _, err := open().Get(t.Context(), api.RefTo(row, cm), ""); err != nil {
			t.Fatalf("%q reads nothing: %v", text, err)
		}
	})
}
