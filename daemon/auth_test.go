package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	"hansa.dev/hansa/apiserver/auth/authz"
)

// Nobody in particular may do everything: kube-apiserver does not let them in
// where everything is allowed.
func TestAnonymousWithAlwaysAllow(t *testing.T) {
	for _, tt := range []struct {
		anonymous *bool
		modes     []string
		on        bool
		paths     int // 0: all
		doubt     string
	}{
		{nil, nil, true, 5, ""},
		{nil, []string{"AlwaysAllow"}, true, 5, ""},
		{ptr.To(true), []string{"RBAC"}, true, 0, ""},
		{ptr.To(false), []string{"RBAC"}, false, 0, ""},
		{ptr.To(true), []string{"RBAC", "AlwaysAllow"}, false, 0, "AnonymousAuth is not allowed with the AlwaysAllow authorizer"},
	} {
		read, err := Auth{Anonymous: tt.anonymous, Authorization: authz.Flags{Modes: tt.modes}}.read("https://own")
		if err != nil {
			t.Fatal(err)
		}
		if a := read.anonymous; a.Enabled != tt.on || len(a.Conditions) != tt.paths || !strings.Contains(read.doubt, tt.doubt) || (read.doubt == "") != (tt.doubt == "") {
			t.Errorf("%v with %q: %+v, %q", tt.anonymous, tt.modes, a, read.doubt)
		}
	}
}

// kube-apiserver lets anybody ask where nothing says otherwise; a file may.
func TestAnonymousByDefault(t *testing.T) {
	for text, want := range map[string]bool{"": true, "anonymous: {enabled: true}\n": true, "anonymous: {enabled: false}\n": false} {
		file := filepath.Join(t.TempDir(), "authentication.yaml")
		text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n" + text
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := Auth{AnonymousByDefault: true, AuthenticationFile: file}.read("https://own")
		if err != nil {
			t.Fatal(err)
		}
		if a := read.anonymous; a.Enabled != want || len(a.Conditions) > 0 {
			t.Errorf("%s: %+v", text, a)
		}
	}
}

// A file that was refused is not tried again until it changes, unless it may not
// have been its fault.
func TestReloading(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	var did []string
	note := func(what string) { did = append(did, what) }
	r := &reloading{
		file: file, what: "test", data: []byte("first"), log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		failed: func() { note("failed") }, succeeded: func(data string) { note("succeeded " + data) },
		use: func(_ context.Context, data []byte) (bool, error) {
			note("use " + string(data))
			if strings.HasPrefix(string(data), "bad") {
				return string(data) == "bad luck", errors.New("bad")
			}
			return false, nil
		},
	}
	for _, step := range []struct {
		text  string // "": the file is not there
		did   []string
		again bool
	}{
		{"first", nil, false},
		{"", []string{"failed"}, false},
		{"bad", []string{"use bad", "failed"}, false},
		{"bad", nil, false},
		{"bad luck", []string{"use bad luck", "failed"}, true},
		{"bad luck", []string{"use bad luck", "failed"}, true},
		{"second", []string{"use second", "succeeded second"}, false},
		{"second", nil, false},
	} {
		did = nil
		if step.text == "" {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if again := r.look(t.Context()); (again > 0) != step.again || !slices.Equal(did, step.did) {
			t.Errorf("%q: did %q, again after %s", step.text, did, again)
		}
	}
}
