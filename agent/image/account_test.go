package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/runtime/fake"

	"k8s.io/utils/clock"
)

// withTokens is the provider, given tokens.
func withTokens(attributes string) string {
	return strings.Replace(oneProvider, "args: [get]", "tokenAttributes: {serviceAccountTokenAudience: registry, "+attributes+"}\n  args: [get]", 1)
}

// people are service accounts, and the nth tokens that their pods have.
type people struct {
	accounts map[string]*v1.ServiceAccount // by name
	nth      int
	err      error
}

func (p *people) ServiceAccount(_ context.Context, namespace, name string) (*v1.ServiceAccount, error) {
	if a := p.accounts[name]; a != nil {
		return a, p.err
	}
	return nil, fmt.Errorf("there is no %s/%s", namespace, name)
}

func (p *people) PodToken(_ context.Context, pod *v1.Pod, audience string, account types.UID) (string, error) {
	return fmt.Sprintf("%s/%s/%s/%d", audience, account, pod.Name, p.nth), nil
}

func accountsOf(names ...string) *people {
	out := &people{accounts: map[string]*v1.ServiceAccount{}}
	for _, n := range names {
		out.accounts[n] = &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: n, UID: types.UID("uid-" + n), Annotations: map[string]string{
			"example.com/role": "puller of " + n, "example.com/other": "no matter",
		}}}
	}
	return out
}

// podOf is a pod of a service account, "" for none.
func podOf(name, account string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: v1.PodSpec{ServiceAccountName: account}}
}

// KEP-4412: a provider is given a token of the pod's service account for its
// audience, and those annotations of the account that it asks for; who lacks a
// required one, or an account, does not make it run.
func TestCredentialProviderTokens(t *testing.T) {
	const required, optional = `requiredServiceAccountAnnotationKeys: [example.com/role]`, `optionalServiceAccountAnnotationKeys: [example.com/role, example.com/more]`
	for _, c := range []struct {
		what, attributes, account string
		want                      string // the request, after its image; "" for none
	}{
		{"no annotations", "requireServiceAccount: true, cacheType: Token", "bob", `"serviceAccountToken":"registry/uid-bob/p/0"}`},
		{"a required one", "requireServiceAccount: true, cacheType: Token, " + required, "bob", `"serviceAccountToken":"registry/uid-bob/p/0","serviceAccountAnnotations":{"example.com/role":"puller of bob"}}`},
		{"an optional one", "requireServiceAccount: true, cacheType: ServiceAccount, " + optional, "bob", `"serviceAccountToken":"registry/uid-bob/p/0","serviceAccountAnnotations":{"example.com/role":"puller of bob"}}`},
		{"a required one that lacks", "requireServiceAccount: true, cacheType: Token, requiredServiceAccountAnnotationKeys: [example.com/none]", "bob", ""},
		{"no account", "requireServiceAccount: true, cacheType: Token", "", ""},
		{"no account, which will do", "requireServiceAccount: false, cacheType: Token", "", "}"},
	} {
		dir, list, err := providers(t, withTokens(c.attributes), clock.RealClock{}, accountsOf("bob"))
		if err != nil {
			t.Fatal(c.what, err)
		}
		put(t, dir, "answer", fmt.Sprintf(answer, "Image", ""))
		got, err := list[0].credentials(t.Context(), app, podOf("p", c.account))
		if err != nil {
			t.Error(c.what, err)
		}
		want := ""
		if c.want != "" {
			want = strings.TrimSuffix(`{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"registry.example.com/team/app",`+c.want, ",}")
			want = strings.TrimSuffix(want, "}") + "} get set yes"
		}
		if a := strings.Join(asked(dir), "\n"); a != want || (len(got) > 0) != (want != "") {
			t.Errorf("%s: asked %s, got %v", c.what, a, got)
		}
		for _, g := range got {
			if h := g.holders(); h.Everyone != (c.account == "") || !h.Everyone && h.Accounts[0] != (account{"uid-bob", "a", "bob"}) {
				t.Errorf("%s: for %+v", c.what, h)
			}
		}
	}
	_, list, err := providers(t, withTokens("requireServiceAccount: true, cacheType: Token"), clock.RealClock{}, accountsOf())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := list[0].credentials(t.Context(), app, podOf("p", "eve")); got != nil || err == nil || !strings.Contains(err.Error(), "service account of pod a/p: there is no a/eve") {
		t.Errorf("an account that is not there: %v, %v", got, err)
	}
}

// cacheType: what a provider said is for the account, or only for the token by
// which it was asked.
func TestCredentialProviderTokenCache(t *testing.T) {
	for _, c := range []struct {
		kind                               string
		again, pod, token, annotated, them bool // whether it is asked again
	}{
		{"ServiceAccount", false, false, false, true, true},
		{"Token", false, true, true, true, true},
	} {
		all := accountsOf("bob", "eve")
		dir, list, err := providers(t, withTokens("requireServiceAccount: true, cacheType: "+c.kind+", requiredServiceAccountAnnotationKeys: [example.com/role]"), testingclock.NewFakeClock(time.Unix(0, 0)), all)
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, "answer", fmt.Sprintf(answer, "Global", ""))
		put(t, dir, "asked", "")
		ask := func(what, pod, account string, want bool) {
			t.Helper()
			put(t, dir, "asked", "")
			got, err := list[0].credentials(t.Context(), app, podOf(pod, account))
			if again := asked(dir)[0] != ""; err != nil || len(got) != 2 || again != want {
				t.Errorf("%s, %s: %v, %v, asked %v", c.kind, what, got, err, again)
			}
		}
		ask("first", "p", "bob", true)
		ask("once more", "p", "bob", c.again)
		ask("another pod", "q", "bob", c.pod)
		all.nth++
		ask("a new token", "p", "bob", c.token)
		all.accounts["bob"].Annotations["example.com/role"] = "guest"
		ask("another annotation", "p", "bob", c.annotated)
		ask("another account", "p", "eve", c.them)
	}
}

// A token that comes back as the password is refused where it would be kept
// for other pods than the one that it is bound to.
func TestCredentialProviderEchoesToken(t *testing.T) {
	for kind, want := range map[string]string{"Token": "", "ServiceAccount": "its answer has the service account's token as password, which wants cacheType Token"} {
		dir, list, err := providers(t, withTokens("requireServiceAccount: true, cacheType: "+kind), clock.RealClock{}, accountsOf("bob"))
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, "answer", strings.Replace(fmt.Sprintf(answer, "Image", ""), `"secret"`, `"registry/uid-bob/p/0"`, 1))
		got, err := list[0].credentials(t.Context(), app, podOf("p", "bob"))
		if err == nil != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) || len(got) == 0 != (err != nil) {
			t.Errorf("%s: %v, %v", kind, got, err)
		}
	}
}

// What was pulled by an account's token is the account's: pods of another one
// are sent to the registry, also after a restart.
func TestPulledByServiceAccount(t *testing.T) {
	dir, _, err := providers(t, withTokens("requireServiceAccount: true, cacheType: Token"), clock.RealClock{}, accountsOf())
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "answer", fmt.Sprintf(answer, "Image", ""))
	r, records := fake.New(clock.RealClock{}), t.TempDir()
	r.WantLogins()
	p := providing(t, r, dir, records, accountsOf("bob", "eve"), nil)
	expect := func(what, account, wantReason string, wantPulls int, policy v1.PullPolicy) {
		t.Helper()
		before := len(r.Calls())
		_, err := p.Ensure(t.Context(), Request{Image: app, Policy: policy, Pod: podOf("p", account), Event: func(_, _, _ string) {}})
		var failed *Error
		reason := ""
		if errors.As(err, &failed) {
			reason = failed.Reason
		}
		if pulls := len(r.Calls()) - before; reason != wantReason || pulls != wantPulls {
			t.Errorf("%s: %q, %d pulls; want %q, %d", what, reason, pulls, wantReason, wantPulls)
		}
	}
	expect("who pulls it", "bob", "", 1, v1.PullIfNotPresent)
	for range 2 {
		expect("the same account", "bob", "", 0, v1.PullNever)
		expect("no account", "", "ErrImageNeverPull", 0, v1.PullNever)
		expect("another account, Never", "eve", "ErrImageNeverPull", 0, v1.PullNever)
		p = providing(t, r, dir, records, accountsOf("bob", "eve"), nil)
	}
	expect("another account, whom the registry knows", "eve", "", 1, v1.PullIfNotPresent)
	expect("that one again", "eve", "", 0, v1.PullNever)
	expect("the first one still", "bob", "", 0, v1.PullNever)
	data, err := os.ReadFile(files(filepath.Join(records, "pulled"))[0])
	if err != nil || !strings.Contains(string(data), `"kubernetesServiceAccounts":[{"uid":"uid-bob","namespace":"a","name":"bob"},{"uid":"uid-eve"`) {
		t.Errorf("the record is %s, %v", data, err)
	}
}

// What is wrong with tokenAttributes is said by field.
func TestCredentialProviderTokenConfig(t *testing.T) {
	const good = "requireServiceAccount: true, cacheType: Token"
	for config, want := range map[string]string{
		strings.Replace(withTokens(good), "serviceAccountTokenAudience: registry", `serviceAccountTokenAudience: ""`, 1): "tokenAttributes: serviceAccountTokenAudience: it has to be given",
		withTokens("cacheType: Token"):                                                                              "tokenAttributes: requireServiceAccount: it has to be given",
		withTokens("requireServiceAccount: true"):                                                                   `tokenAttributes: cacheType: "" is not ServiceAccount or Token`,
		withTokens("requireServiceAccount: true, cacheType: Always"):                                                `tokenAttributes: cacheType: "Always" is not`,
		withTokens("requireServiceAccount: false, cacheType: Token, requiredServiceAccountAnnotationKeys: [a]"):     "requireServiceAccount: it cannot be false",
		withTokens(good + ", requiredServiceAccountAnnotationKeys: [a], optionalServiceAccountAnnotationKeys: [a]"): `annotation key "a" is there twice`,
		withTokens(good + ", optionalServiceAccountAnnotationKeys: [a/b/c]"):                                        `annotation key "a/b/c": a valid label key`,
		strings.Replace(withTokens(good), "k8s.io/v1\n  match", "k8s.io/v1beta1\n  match", 1):                       "they are only for apiVersion credentialprovider.kubelet.k8s.io/v1",
	} {
		if _, _, err := providers(t, config, clock.RealClock{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v", config, err)
		}
	}
}

// Metrics of providers, under the kubelet's names.
func TestCredentialProviderMetrics(t *testing.T) {
	dir, _, err := providers(t, oneProvider, clock.RealClock{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "answer", fmt.Sprintf(answer, "Image", `"cacheDuration":"0s",`))
	registry := prometheus.NewRegistry()
	p := providing(t, fake.New(clock.RealClock{}), dir, t.TempDir(), nil, registry)
	ask := func() { _, _ = p.providers[0].credentials(t.Context(), app, nil) }
	ask()
	put(t, dir, "fail", "")
	ask()
	ask()
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range all {
		m := f.GetMetric()[0]
		got[f.GetName()] = fmt.Sprintf("%s %v %d", m.GetLabel()[0].GetValue(), m.GetCounter().GetValue()+m.GetGauge().GetValue(), m.GetHistogram().GetSampleCount())
	}
	hash := strings.Fields(got["kubelet_credential_provider_config_info"])
	if got["kubelet_credential_provider_plugin_errors_total"] != "login 2 0" || got["kubelet_credential_provider_plugin_duration"] != "login 0 3" ||
		len(hash) != 3 || len(hash[0]) != len("sha256:")+64 || hash[1] != "1" {
		t.Errorf("metrics: %v", got)
	}
}
