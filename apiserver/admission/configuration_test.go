package admission_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hansa.dev/hansa/apiserver/admission"
)

func FuzzReadConfiguration(f *testing.F) {
	f.Add([]byte("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: [{name: PodSecurity, configuration: {a: b}}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := admission.ReadConfiguration(file); err == nil && all == nil {
			t.Error("neither a configuration nor an error")
		}
	})
}

// "Configure the Admission Controller" and the reference of
// --admission-control-config-file.
func TestReadConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("beside.yaml", "a: b")
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n"
	got, err := admission.ReadConfiguration(write("c.yaml", head+"plugins: [{name: PodSecurity, path: beside.yaml}, {name: ResourceQuota, path: '', configuration: {c: d}}]"))
	if err != nil || string(got["PodSecurity"]) != "a: b" || string(got["ResourceQuota"]) != `{"c":"d"}` {
		t.Errorf("%s, %v", got, err)
	}
	for text, want := range map[string]string{
		"apiVersion: v1": `apiVersion is "v1", want apiserver.config.k8s.io/v1`,
		"apiVersion: apiserver.config.k8s.io/v1\nkind: X":            `kind is "X", want AdmissionConfiguration`,
		head + "plugins: [{name: AlwaysDeny}]":                       `plugin "AlwaysDeny" takes no configuration`,
		head + "plugins: [{name: PodSecurity}, {name: PodSecurity}]": `plugin "PodSecurity" is configured twice`,
		head + "plugins: [{name: PodSecurity, path: none}]":          "configuration of PodSecurity: open ",
		head + "plugin: []": `unknown field "plugin"`,
	} {
		if _, err := admission.ReadConfiguration(write("bad.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, want %s", text, err, want)
		}
	}
}
