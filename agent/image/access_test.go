package image

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/runtime/fake"
)

// login is a pull secret.
func login(namespace, name, user string) *v1.Secret {
	s := secret(v1.SecretTypeDockerConfigJson, v1.DockerConfigJsonKey, `{"auths":{"registry.example.com":{"username":%q,"password":"x"}}}`, user)
	s.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name)}
	return s
}

// get asks for the image, which only those who log in can pull, and answers
// with how that ended and how often the registry was asked.
func get(t *testing.T, p *Puller, r *fake.Runtime, policy v1.PullPolicy, secrets ...*v1.Secret) (reason string, asked int) {
	t.Helper()
	before := len(r.Calls())
	r.WantLogins()
	_, err := p.Ensure(t.Context(), Request{Image: app, Policy: policy, Secrets: secrets, Event: func(_, _, _ string) {}})
	var failed *Error
	if errors.As(err, &failed) {
		reason = failed.Reason
	}
	return reason, len(r.Calls()) - before
}

// "Ensure secret pulled images": what one pod pulled by its secret, another one
// without it does not get, and is not told of; who has the secret, or the same
// login, gets it without the registry. A restart changes nothing of that.
func TestCredentialsDoNotLeak(t *testing.T) {
	r := fake.New(clock.RealClock{})
	dir := t.TempDir()
	p := puller(t, r, Settings{}, dir)
	expect := func(what, wantReason string, wantAsked int, policy v1.PullPolicy, secrets ...*v1.Secret) {
		t.Helper()
		if reason, asked := get(t, p, r, policy, secrets...); reason != wantReason || asked != wantAsked {
			t.Errorf("%s: %q, the registry asked %d times; want %q, %d", what, reason, asked, wantReason, wantAsked)
		}
	}
	mine := login("a", "key", "bob")
	expect("who pulls it", "", 1, v1.PullIfNotPresent, mine)
	for _, when := range []string{"", "after a restart: "} {
		expect(when+"the same secret", "", 0, v1.PullIfNotPresent, mine)
		expect(when+"the same secret, Never", "", 0, v1.PullNever, mine)
		expect(when+"nobody", "ErrImagePull", 1, v1.PullIfNotPresent)
		expect(when+"nobody, Never", "ErrImageNeverPull", 0, v1.PullNever)
		expect(when+"another login, Never", "ErrImageNeverPull", 0, v1.PullNever, login("b", "key", "eve"))
		p = puller(t, r, Settings{}, dir)
	}
	expect("the same login in another namespace", "", 0, v1.PullIfNotPresent, login("c", "other", "bob"))
	expect("the same secret with a new login", "", 0, v1.PullIfNotPresent, login("c", "other", "robert"))
	expect("that new login elsewhere", "", 0, v1.PullIfNotPresent, login("d", "third", "robert"))
	expect("another login, which the registry knows", "", 1, v1.PullIfNotPresent, login("b", "key", "eve"))
	expect("again", "", 0, v1.PullIfNotPresent, login("b", "key", "eve"))
	data, err := os.ReadFile(files(filepath.Join(dir, "pulled"))[0])
	if err != nil || strings.Contains(string(data), "bob") || !strings.Contains(string(data), `"kubernetesSecrets":[{"uid":"uid-a-key"`) {
		t.Errorf("the record is %s, %v", data, err)
	}
}

func importApp(t *testing.T, r *fake.Runtime) {
	t.Helper()
	if _, err := r.ImportImage(t.Context(), fake.Archive(app)); err != nil {
		t.Fatal(err)
	}
}

// What was pulled without credentials is everybody's.
func TestPulledWithoutCredentials(t *testing.T) {
	r := fake.New(clock.RealClock{})
	p := puller(t, r, Settings{})
	for i := range 2 {
		if _, err := p.Ensure(t.Context(), Request{Image: app, Policy: v1.PullIfNotPresent, Event: func(_, _, _ string) {}}); err != nil || len(r.Calls()) != 1 {
			t.Errorf("time %d: %v, calls %v", i, err, r.Calls())
		}
	}
}

// imagePullCredentialsVerificationPolicy: whether an image that is on the node
// is for a pod without credentials.
func TestVerificationPolicy(t *testing.T) {
	for _, c := range []struct {
		policy    Verification
		allowlist []string
		imported  bool // free for all
		preloaded bool
		pulled    bool // by another pod's secret
	}{
		{"", nil, true, true, false},
		{NeverVerifyPreloadedImages, nil, true, true, false},
		{NeverVerify, nil, true, true, true},
		{AlwaysVerify, nil, false, false, false},
		{NeverVerifyAllowlistedImages, nil, false, false, false},
		{NeverVerifyAllowlistedImages, []string{"registry.example.com/team/app"}, true, true, true},
		{NeverVerifyAllowlistedImages, []string{"registry.example.com/*"}, true, true, true},
		{NeverVerifyAllowlistedImages, []string{"registry.example.com/team/app2", "other/*"}, false, false, false},
	} {
		for how, want := range map[string]bool{"imported": c.imported, "preloaded": c.preloaded, "pulled": c.pulled} {
			r := fake.New(clock.RealClock{})
			p := puller(t, r, Settings{Verify: c.policy, Allowlist: c.allowlist})
			switch how {
			case "pulled":
				get(t, p, r, v1.PullIfNotPresent, login("a", "key", "bob"))
			case "imported":
				importApp(t, r)
			default:
				r.AddImage(app, nil)
			}
			if reason, _ := get(t, p, r, v1.PullNever); (reason == "") != want {
				t.Errorf("%s %v, %s: %q, want allowed %v", c.policy, c.allowlist, how, reason, want)
			}
		}
	}
}

// Imported images are nobody's secret, also when the same one was pulled by one.
func TestImportedIsForAll(t *testing.T) {
	r := fake.New(clock.RealClock{})
	p := puller(t, r, Settings{})
	get(t, p, r, v1.PullIfNotPresent, login("a", "key", "bob"))
	importApp(t, r)
	if reason, asked := get(t, p, r, v1.PullIfNotPresent); reason != "" || asked != 0 {
		t.Errorf("%q, asked %d times", reason, asked)
	}
}

// A pull whose end was not seen, for the agent died: the image may be there by
// somebody's secret. It is free only once the registry has given it.
func TestPullCutOff(t *testing.T) {
	dir := t.TempDir()
	r := fake.New(clock.RealClock{})
	first := puller(t, r, Settings{}, dir)
	if _, err := first.access.begin(app); err != nil {
		t.Fatal(err)
	}
	r.AddImage(app, nil)
	p := puller(t, r, Settings{}, dir)
	if reason, _ := get(t, p, r, v1.PullNever); reason != "ErrImageNeverPull" {
		t.Errorf("without credentials: %q", reason)
	}
	list, err := r.ListImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.Listed(list, time.Now())
	if reason, _ := get(t, p, r, v1.PullNever); reason != "ErrImageNeverPull" {
		t.Errorf("without credentials, after a look: %q", reason)
	}
	if reason, asked := get(t, p, r, v1.PullIfNotPresent); reason != "ErrImagePull" || asked != 1 {
		t.Errorf("a pull without credentials: %q, asked %d times", reason, asked)
	}
	if reason, _ := get(t, p, r, v1.PullNever); reason != "ErrImageNeverPull" {
		t.Errorf("without credentials, after a pull that failed: %q", reason)
	}
	if reason, asked := get(t, p, r, v1.PullIfNotPresent, login("a", "key", "bob")); reason != "" || asked != 1 {
		t.Errorf("with a secret: %q, asked %d times", reason, asked)
	}
	if left := files(filepath.Join(dir, "pulling")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Pulls of one image overlap, by the logins of several pods: until the last has
// ended the image may come without its owner being known, and the end of one is
// nothing to the others.
func TestPullsOverlap(t *testing.T) {
	dir := t.TempDir()
	p := puller(t, fake.New(clock.RealClock{}), Settings{}, dir)
	var ends []func(string, *credential) error
	for range 3 {
		done, err := p.access.begin(app)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, done)
	}
	for i, id := range []string{"", "id", "id"} {
		if left := files(filepath.Join(dir, "pulling")); len(left) != 1 || !p.access.beingPulled(&cri.Image{RepoTags: []string{app}}) {
			t.Errorf("after %d of 3 ends: noted %v", i, left)
		}
		if err := ends[i](id, nil); err != nil {
			t.Errorf("end %d: %v", i, err)
		}
	}
	if left := files(filepath.Join(dir, "pulling")); len(left) != 0 || len(p.access.pulling) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Images that are gone are forgotten, with what was begun for them; what was
// pulled since the look is not.
func TestForgotten(t *testing.T) {
	dir := t.TempDir()
	r := fake.New(clock.RealClock{})
	p := puller(t, r, Settings{}, dir)
	if _, err := p.access.begin("registry.example.com/never:1"); err != nil {
		t.Fatal(err)
	}
	p = puller(t, r, Settings{}, dir)
	before := time.Now()
	get(t, p, r, v1.PullIfNotPresent, login("a", "key", "bob"))
	p.Listed(nil, before)
	if n := len(files(filepath.Join(dir, "pulled"))); n != 1 {
		t.Errorf("%d records of what was just pulled", n)
	}
	p.Listed(nil, time.Now().Add(time.Second))
	if left := slices.Concat(files(filepath.Join(dir, "pulled")), files(filepath.Join(dir, "pulling"))); len(left) != 0 || len(p.access.pulled)+len(p.access.pulling) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A damaged record counts as none; the agent starts.
func TestDamagedRecord(t *testing.T) {
	dir := t.TempDir()
	r := fake.New(clock.RealClock{})
	get(t, puller(t, r, Settings{}, dir), r, v1.PullIfNotPresent, login("a", "key", "bob"))
	if err := os.WriteFile(files(filepath.Join(dir, "pulled"))[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	_, err := New(Config{Runtime: r, Clock: clock.RealClock{}, Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil || !strings.Contains(log.String(), "some pulled images will be asked for again") {
		t.Errorf("%v, log %s", err, log.String())
	}
}

// serializeImagePulls and maxParallelImagePulls: how many pulls there are at
// once.
func TestSerialAndParallelPulls(t *testing.T) {
	for parallel, want := range map[int]int{1: 1, 2: 2, 0: DefaultParallel, -1: 8} {
		r := fake.New(clock.RealClock{})
		begun, release := make(chan string), make(chan struct{})
		r.HoldPulls(begun, release)
		p := puller(t, r, Settings{Parallel: parallel})
		var done sync.WaitGroup
		for i := range 8 {
			done.Go(func() {
				if _, err := p.Ensure(t.Context(), Request{Image: fmt.Sprintf("%s%d", app, i), Policy: v1.PullIfNotPresent, Event: func(_, _, _ string) {}}); err != nil {
					t.Error(err)
				}
			})
		}
		for range want {
			<-begun
		}
		if n := len(p.slots); p.slots != nil && n != cap(p.slots) {
			t.Errorf("%d at once: %d of %d pull", parallel, n, cap(p.slots))
		}
		go func() {
			for range 8 - want {
				<-begun
			}
		}()
		close(release)
		done.Wait()
	}
}

// A pull that takes long says how far it is, ever less often.
func TestPullProgress(t *testing.T) {
	c := testingclock.NewFakeClock(time.Now())
	r := fake.New(c)
	begun, release := make(chan string), make(chan struct{})
	r.HoldPulls(begun, release)
	p, err := New(Config{Runtime: r, Clock: c, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	events, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		_, err := p.Ensure(t.Context(), Request{Image: app, Policy: v1.PullIfNotPresent, Event: func(_, reason, message string) { events <- reason + ": " + message }})
		ended <- err
	}()
	next := func(want string) {
		t.Helper()
		if got := <-events; !strings.HasPrefix(got, want) {
			t.Errorf("event %q, want %q", got, want)
		}
	}
	next(`Pulling: Pulling image "` + app)
	<-begun
	for _, step := range []time.Duration{10, 20, 40} {
		for !c.HasWaiters() {
			goruntime.Gosched() // let the other one come to its timer
		}
		c.Step(step * time.Second)
		next(`Pulling: Still pulling image "` + app + `" after ` + (map[time.Duration]string{10: "10s", 20: "30s", 40: "1m10s"})[step] + ": 50 of 100 bytes fetched")
	}
	close(release)
	next("Pulled: Successfully pulled image")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What a runtime marks as its reason is the container's; several refusals are
// one message.
func TestPullReasons(t *testing.T) {
	for said, want := range map[string]string{
		"RegistryUnavailable: 503":               "RegistryUnavailable: image pull failed for " + app + " because the registry is unavailable: 503",
		"SignatureValidationFailed: no such key": "SignatureValidationFailed: image pull failed for " + app + " because the signature validation failed: no such key",
		"not found":                              "ErrImagePull: not found",
	} {
		r := fake.New(clock.RealClock{})
		r.Fail("PullImage", errors.New(said))
		_, err := ensure(t, r, v1.PullAlways, app)
		var failed *Error
		if !errors.As(err, &failed) || failed.Reason+": "+failed.Error() != want {
			t.Errorf("%q: %v", said, err)
		}
	}
	r := fake.New(clock.RealClock{})
	r.Fail("PullImage", errors.New("one"))
	r.Fail("PullImage", errors.New("two"))
	if _, err := ensure(t, r, v1.PullAlways, app, login("a", "x", "bob"), login("a", "y", "eve")); err == nil || err.Error() != "[one, two]" {
		t.Errorf("two refusals: %v", err)
	}
}
