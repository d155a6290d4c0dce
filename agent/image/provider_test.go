package image

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/runtime/fake"
)

const providerHead = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n"

// providers are those of a configuration, with one program, login, which notes
// what it is asked and answers with what the file answer has.
func providers(t *testing.T, config string, c clock.PassiveClock, given ...Accounts) (dir string, found []*provider, err error) {
	t.Helper()
	dir = t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncd %s\n{ cat; echo \" $* $MORE $GIVEN\"; } >> asked\n[ -f fail ] && { echo no luck >&2; exit 3; }\ncat answer\n", dir)
	for name, text := range map[string]string{"login": script, "config.yaml": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := ProviderFiles{Config: filepath.Join(dir, "config.yaml"), Dir: dir, Environ: []string{"GIVEN=yes", "PATH=/usr/bin:/bin"}}
	var accounts Accounts
	if len(given) > 0 {
		accounts = given[0]
	}
	found, err = loadProviders(files, c, accounts, nil)
	return dir, found, err
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func asked(dir string) []string {
	data, _ := os.ReadFile(filepath.Join(dir, "asked"))
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

const oneProvider = providerHead + `providers:
- name: login
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example.com"]
  defaultCacheDuration: 10m
  args: [get]
  env: [{name: MORE, value: set}]
`

const answer = `{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderResponse","cacheKeyType":%q,%s
"auth":{"*.example.com":{"username":"star","password":"secret"},"registry.example.com/team":{"username":"team","password":"secret"},"other.org":{"username":"no","password":"x"}}}`

// "Configure a kubelet image credential provider": the request, arguments and
// environment; matchImages; the answer's logins that fit, the most specific
// first; how long and for what an answer is kept.
func TestCredentialProviders(t *testing.T) {
	for _, c := range []struct {
		key, duration  string
		same, registry bool // whether the program is asked again for the image, another one there
		after          time.Duration
		again          bool
	}{
		{"Image", "", false, true, 9 * time.Minute, false},
		{"Image", "", false, true, 11 * time.Minute, true},
		{"Registry", "", false, false, 11 * time.Minute, true},
		{"Global", `"cacheDuration":"1h",`, false, false, 59 * time.Minute, false},
		{"Global", `"cacheDuration":"0s",`, true, true, 0, true},
	} {
		clock := testingclock.NewFakeClock(time.Unix(0, 0))
		dir, list, err := providers(t, oneProvider, clock)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		put(t, dir, "answer", fmt.Sprintf(answer, c.key, c.duration))
		get := func(image, want string) int {
			t.Helper()
			before := len(asked(dir))
			var names []string
			got, err := list[0].credentials(t.Context(), image, nil)
			for _, g := range got {
				names = append(names, g.auth.Username)
				if !g.holders().Everyone {
					t.Errorf("%s: the node's credential is not for all", image)
				}
			}
			if err != nil || strings.Join(names, ",") != want {
				t.Errorf("%s: %v, %v, want %s", image, names, err, want)
			}
			return len(asked(dir)) - before
		}
		put(t, dir, "asked", "")
		get(app, "team,star")
		want := `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"registry.example.com/team/app"} get set yes`
		if a := asked(dir); len(a) != 1 || a[0] != want {
			t.Fatalf("%s: asked %q", c.key, a)
		}
		if n := get(app, "team,star"); n == 1 != c.same {
			t.Errorf("%s %s: asked %d times for the same image", c.key, c.duration, n)
		}
		if n := get("registry.example.com/x@sha256:"+strings.Repeat("a", 64), "star"); n == 1 != c.registry {
			t.Errorf("%s %s: asked %d times for another image", c.key, c.duration, n)
		}
		if n := get("other.org/x", ""); n != 0 {
			t.Errorf("asked for an image that does not match")
		}
		clock.Step(c.after)
		if n := get(app, "team,star"); n == 1 != c.again {
			t.Errorf("%s %s: asked %d times after %v", c.key, c.duration, n, c.after)
		}
	}
}

// A provider that fails, or answers something else, gives none, and its answer
// is in no error.
func TestFailingCredentialProvider(t *testing.T) {
	dir, list, err := providers(t, oneProvider, clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ answer, want string }{
		{`{"auth":{"a":{"username":1,"password":"secret"}}}`, "its answer is no CredentialProviderResponse in JSON"},
		{"secret", "its answer is no CredentialProviderResponse in JSON"},
		{fmt.Sprintf(answer, "Never", ""), `its answer has cacheKeyType "Never", which is not Image, Registry or Global`},
		{strings.Replace(fmt.Sprintf(answer, "Image", ""), "k8s.io/v1", "k8s.io/v1beta1", 1), `its answer has apiVersion "credentialprovider.kubelet.k8s.io/v1beta1"`},
	} {
		put(t, dir, "answer", c.answer)
		if got, err := list[0].credentials(t.Context(), app, nil); got != nil || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", c.answer, got, err)
		}
	}
	put(t, dir, "fail", "")
	if _, err := list[0].credentials(t.Context(), app, nil); err == nil || !strings.HasSuffix(err.Error(), "exit status 3: no luck") {
		t.Error(err)
	}
}

// providing is a puller with the provider of a directory.
func providing(t *testing.T, r *fake.Runtime, dir, records string, accounts Accounts, metrics prometheus.Registerer) *Puller {
	t.Helper()
	p, err := New(Config{
		Runtime: r, Clock: clock.RealClock{}, Dir: records, Log: slog.New(slog.DiscardHandler), Accounts: accounts, Metrics: metrics,
		Providers: ProviderFiles{Config: filepath.Join(dir, "config.yaml"), Dir: dir, Environ: []string{"PATH=/usr/bin:/bin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// An image is pulled with what a provider gives, after the pod's own secrets,
// and is everyone's then.
func TestPullWithCredentialProvider(t *testing.T) {
	dir, _, err := providers(t, oneProvider, clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "answer", fmt.Sprintf(answer, "Image", ""))
	r := fake.New(clock.RealClock{})
	p := providing(t, r, dir, t.TempDir(), nil, nil)
	if reason, n := get(t, p, r, v1.PullIfNotPresent); reason != "" || n != 1 {
		t.Errorf("%q after %d pulls: %v", reason, n, r.Calls())
	}
	if reason, n := get(t, p, r, v1.PullNever); reason != "" || n != 0 {
		t.Errorf("another pod: %q, %d pulls", reason, n)
	}
}

// What is wrong with a configuration is said by file and field.
func TestCredentialProviderConfig(t *testing.T) {
	for change, want := range map[string]string{
		"kind: CredentialProviderConfig>kind: X":              `kind "X": it has to be kubelet.config.k8s.io/v1, CredentialProviderConfig`,
		"defaultCacheDuration: 10m>":                          "defaultCacheDuration: it has to be given",
		"defaultCacheDuration: 10m>defaultCacheDuration: -1s": "defaultCacheDuration: -1s is negative",
		`matchImages: ["*.example.com"]>matchImages: []`:      "matchImages: there has to be one at least",
		"k8s.io/v1\n  match>k8s.io/v3\n  match":               `apiVersion: "credentialprovider.kubelet.k8s.io/v3" is not`,
		"args: [get]>arguments: [get]":                        `unknown field "providers[0].arguments"`,
		"name: login>name: ../login":                          "name: it has to be the name of a file",
		"name: login>name: none":                              "its program:",
	} {
		from, to, _ := strings.Cut(change, ">")
		if !strings.Contains(oneProvider, from) {
			t.Fatalf("%q is not in the configuration", from)
		}
		_, _, err := providers(t, strings.Replace(oneProvider, from, to, 1), clock.RealClock{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "config.yaml") {
			t.Errorf("%s: %v", change, err)
		}
	}
	if _, err := loadProviders(ProviderFiles{Config: "x"}, clock.RealClock{}, nil, nil); err == nil || !strings.Contains(err.Error(), "give both") {
		t.Error(err)
	}
}
