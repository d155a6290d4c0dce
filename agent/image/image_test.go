package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/runtime/fake"
)

const app = "registry.example.com/team/app:1"

// puller is one with a folder of its own, or dir.
func puller(t *testing.T, r *fake.Runtime, s Settings, dir ...string) *Puller {
	t.Helper()
	p, err := New(Config{Runtime: r, Clock: clock.RealClock{}, Dir: append(dir, t.TempDir())[0], Settings: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ensure(t *testing.T, r *fake.Runtime, policy v1.PullPolicy, ref string, secrets ...*v1.Secret) (events string, err error) {
	t.Helper()
	var log []string
	_, err = puller(t, r, Settings{}).Ensure(t.Context(), Request{Image: ref, Policy: policy, Secrets: secrets,
		Event: func(_, reason, message string) { log = append(log, reason+": "+message) }})
	return strings.Join(log, "\n"), err
}

// "Image pull policy": when an image is pulled, and what is said of it.
func TestPolicy(t *testing.T) {
	const present = `Pulled: Container image "` + app + `" already present on machine and can be accessed by the pod`
	for _, c := range []struct {
		policy  v1.PullPolicy
		present bool
		fail    bool
		reason  string
		event   string
		pulls   int
	}{
		{v1.PullIfNotPresent, true, false, "", present, 0},
		{v1.PullIfNotPresent, false, false, "", "Pulling: Pulling image", 1},
		{v1.PullAlways, true, false, "", "Pulling: Pulling image", 1},
		{v1.PullNever, true, false, "", present, 0},
		{v1.PullNever, false, false, "ErrImageNeverPull", `ErrImageNeverPull: Container image "` + app + `" is not present with pull policy of Never`, 0},
		{v1.PullIfNotPresent, false, true, "ErrImagePull", `Failed: Failed to pull image "` + app + `": no registry`, 1},
	} {
		r := fake.New(clock.RealClock{})
		if c.present {
			r.AddImage(app, nil)
		}
		if c.fail {
			r.Fail("PullImage", errors.New("no registry"))
		}
		events, err := ensure(t, r, c.policy, app)
		var failed *Error
		if (c.reason == "") != (err == nil) || errors.As(err, &failed) && failed.Reason != c.reason {
			t.Errorf("%+v: %v", c, err)
		}
		if !strings.Contains(events, c.event) {
			t.Errorf("%+v: events:\n%s", c, events)
		}
		if n := len(r.Calls()); n != c.pulls {
			t.Errorf("%+v: %d pulls", c, n)
		}
	}
}

func TestInvalidName(t *testing.T) {
	_, err := ensure(t, fake.New(clock.RealClock{}), v1.PullAlways, "Bad/NAME:x y")
	var failed *Error
	if !errors.As(err, &failed) || failed.Reason != "InvalidImageName" {
		t.Errorf("%v", err)
	}
}

// Several who want the same image wait for one pull.
func TestOnePull(t *testing.T) {
	r := fake.New(clock.RealClock{})
	p := puller(t, r, Settings{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := p.Ensure(t.Context(), Request{Image: app, Policy: v1.PullIfNotPresent, Event: func(_, _, _ string) {}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Who looked before a pull ended, and asks only then, looks once more.
	if len(r.Calls()) != 1 {
		t.Errorf("calls: %v", r.Calls())
	}
}

func secret(t v1.SecretType, key, format string, args ...any) *v1.Secret {
	return &v1.Secret{Type: t, Data: map[string][]byte{key: fmt.Appendf(nil, format, args...)}}
}

// "Pull an image from a private registry": which logins fit an image, in which
// order; each is tried.
func TestCredentials(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("bob:pass:word"))
	s := secret(v1.SecretTypeDockerConfigJson, v1.DockerConfigJsonKey, `{"auths":{
		"registry.example.com": {"auth": %q},
		"https://registry.example.com/team": {"username":"team","password":"t"},
		"registry.example.com/other": {"username":"other"},
		"*.example.com": {"username":"star"},
		"other.org": {"username":"no"},
		"https://index.docker.io/v1/": {"username":"hub"}}}`, auth)
	for ref, want := range map[string]string{
		app:                           "bob,team,star",
		"registry.example.com/x":      "bob,star",
		"nginx":                       "hub",
		"sub.registry.example.com/":   "",
		"registry.example.com:5000/x": "",
	} {
		var got []string
		for _, a := range credentials(ref, []*v1.Secret{s, {Type: v1.SecretTypeOpaque}}) {
			got = append(got, a.auth.Username)
		}
		wantSet := strings.Split(want, ",")
		if want == "" {
			wantSet = nil
		}
		if len(got) != len(wantSet) {
			t.Errorf("%s: got %v, want %v", ref, got, wantSet)
			continue
		}
		for _, w := range wantSet {
			if !strings.Contains(strings.Join(got, ","), w) {
				t.Errorf("%s: got %v, want %v", ref, got, wantSet)
			}
		}
	}
	r := fake.New(clock.RealClock{})
	r.Fail("PullImage", errors.New("unauthorized"))
	if _, err := ensure(t, r, v1.PullAlways, app, s); err != nil {
		t.Fatal(err)
	}
	if calls := r.Calls(); len(calls) != 2 || calls[0] == calls[1] {
		t.Errorf("calls: %v", calls)
	}
	legacy := secret(v1.SecretTypeDockercfg, v1.DockerConfigKey, `{"registry.example.com":{"username":"old"}}`)
	if got := credentials(app, []*v1.Secret{legacy}); len(got) != 1 || got[0].auth.Username != "old" {
		t.Errorf("dockercfg: %v", got)
	}
}
