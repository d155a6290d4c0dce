package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/token"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func meta(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}
}

func account() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: meta("shop", "robot", "sa-1")}
}

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: meta("shop", "web", "pod-1"), Spec: corev1.PodSpec{ServiceAccountName: "robot", NodeName: "n1"}}
}

func secret() *corev1.Secret { return &corev1.Secret{ObjectMeta: meta("shop", "s", "secret-1")} }

func node() *corev1.Node { return &corev1.Node{ObjectMeta: meta("", "n1", "node-1")} }

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type fixture struct {
	*token.Tokens
	view  *authtest.View
	clock *clocktesting.FakePassiveClock
}

func setup(t testing.TB, o token.Options, objects ...api.Object) *fixture {
	t.Helper()
	f := &fixture{view: authtest.New(t, objects...), clock: clocktesting.NewFakePassiveClock(epoch)}
	o.Clock, o.NewID = f.clock, func() string { return "id-1" }
	if o.Keys == nil {
		o.Keys = []crypto.Signer{ecKey(t)}
	}
	var err error
	if f.Tokens, err = token.New(o, f.view.Registry, f.view); err != nil {
		t.Fatal(err)
	}
	return f
}

func boundTo(kind, name, uid string) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name, UID: types.UID(uid)}
}

func (f *fixture) issue(t testing.TB, spec authenticationv1.TokenRequestSpec) *authenticationv1.TokenRequest {
	t.Helper()
	req := &authenticationv1.TokenRequest{Spec: spec}
	kinds.DefaultTokenRequest(req)
	answer, err := f.Request(account(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// payload is what a token says, unverified.
func payload(t testing.TB, text string) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// The claims are those of KEP-1205 and KEP-4193.
func TestClaims(t *testing.T) {
	f := setup(t, token.Options{}, account(), pod(), secret(), node())
	now := float64(epoch.Unix())
	type object = map[string]any
	robot := object{"name": "robot", "uid": "sa-1"}
	for _, c := range []struct {
		name string
		spec authenticationv1.TokenRequestSpec
		want object // beside the usual ones
		exp  float64
	}{
		{"plain", authenticationv1.TokenRequestSpec{}, object{}, now + 3600},
		{"bound to a pod", authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", "pod-1"), ExpirationSeconds: ptr.To(int64(600))},
			object{"pod": object{"name": "web", "uid": "pod-1"}, "node": object{"name": "n1", "uid": "node-1"}}, now + 600},
		{"bound to a secret", authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Secret", "s", "")},
			object{"secret": object{"name": "s", "uid": "secret-1"}}, now + 3600},
		{"bound to a node", authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Node", "n1", "node-1")},
			object{"node": object{"name": "n1", "uid": "node-1"}}, now + 3600},
		{"as mounted", authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", "pod-1"), ExpirationSeconds: ptr.To(int64(3607))},
			object{"pod": object{"name": "web", "uid": "pod-1"}, "node": object{"name": "n1", "uid": "node-1"}, "warnafter": now + 3607},
			now + 365*24*3600},
		{"as mounted, for others", authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}, BoundObjectRef: boundTo("Pod", "web", "pod-1"), ExpirationSeconds: ptr.To(int64(3607))},
			object{"pod": object{"name": "web", "uid": "pod-1"}, "node": object{"name": "n1", "uid": "node-1"}}, now + 3607},
	} {
		answer := f.issue(t, c.spec)
		audience := "https://kubernetes.default.svc.cluster.local"
		if len(c.spec.Audiences) > 0 {
			audience = c.spec.Audiences[0]
		}
		c.want["namespace"], c.want["serviceaccount"] = "shop", robot
		want := object{
			"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:shop:robot", "aud": []any{audience},
			"iat": now, "nbf": now, "exp": c.exp, "jti": "id-1", "kubernetes.io": c.want,
		}
		if diff := cmp.Diff(want, payload(t, answer.Status.Token)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		seconds := ptr.Deref(c.spec.ExpirationSeconds, 3600)
		if got := answer.Status.ExpirationTimestamp.Time; !got.Equal(epoch.Add(time.Duration(seconds) * time.Second)) {
			t.Errorf("%s: to be renewed by %v", c.name, got)
		}
		if answer.Name != "robot" || answer.Namespace != "shop" || answer.UID != "sa-1" {
			t.Errorf("%s: metadata %v", c.name, answer.ObjectMeta)
		}
	}
}

func TestMaxLifetime(t *testing.T) {
	f := setup(t, token.Options{MaxLifetime: 2 * time.Hour}, account(), pod(), node())
	var warning string
	answer, err := f.Request(account(), &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(86400))}},
		func(text string) { warning = text })
	if err != nil {
		t.Fatal(err)
	}
	if warning != "requested expiration of 86400 seconds shortened to 7200 seconds" || *answer.Spec.ExpirationSeconds != 7200 {
		t.Errorf("%q, %d s", warning, *answer.Spec.ExpirationSeconds)
	}
	mounted := f.issue(t, authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", ""), ExpirationSeconds: ptr.To(int64(3607))})
	if exp := payload(t, mounted.Status.Token)["exp"].(float64); exp != float64(epoch.Unix()+7200) {
		t.Errorf("an extended token ends after %v s", exp-float64(epoch.Unix()))
	}
}

func TestRequestRefuses(t *testing.T) {
	other := pod()
	other.Name, other.Spec.ServiceAccountName = "other", "default"
	f := setup(t, token.Options{}, account(), pod(), other)
	for _, c := range []struct {
		name string
		req  authenticationv1.TokenRequest
		code int32
		text string
	}{
		{"too short", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(599))}}, 422,
			`TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes`},
		{"too long", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(1)<<32 + 1)}}, 422,
			"may not specify a duration larger than 2^32 seconds"},
		{"attestations", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Attestations: map[string]authenticationv1.AttestationValue{"x": nil}}}, 422,
			"spec.attestations: Forbidden"},
		{"another name", authenticationv1.TokenRequest{ObjectMeta: meta("shop", "x", "")}, 422, "must match the service account name if specified"},
		{"another namespace", authenticationv1.TokenRequest{ObjectMeta: meta("x", "robot", "")}, 422, "must match the service account namespace if specified"},
		{"another UID", authenticationv1.TokenRequest{ObjectMeta: meta("shop", "robot", "sa-2")}, 409, "the UID in the token request (sa-2) does not match the UID of the service account (sa-1)"},
		{"a pod that is not there", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "gone", "")}}, 404, `pods "gone" not found`},
		{"a pod of another account", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "other", "")}}, 400,
			`cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name.`},
		{"a pod that was made anew", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", "pod-0")}}, 409,
			"the UID in the bound object reference (pod-0) does not match the UID in record. The object might have been deleted and then recreated"},
		{"something else", authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("ConfigMap", "c", "")}}, 400,
			"cannot bind token to object of type /v1, Kind=ConfigMap"},
	} {
		kinds.DefaultTokenRequest(&c.req)
		_, err := f.Request(account(), &c.req, nil)
		status, ok := err.(apierrors.APIStatus)
		if !ok || status.Status().Code != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want %d %s", c.name, err, c.code, c.text)
		}
	}
}

func TestAuthenticate(t *testing.T) {
	f := setup(t, token.Options{}, account(), pod(), node())
	text := f.issue(t, authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", "pod-1")}).Status.Token
	for range 2 { // the second is answered from memory
		resp, ok, err := f.AuthenticateToken(t.Context(), text)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		want := &user.DefaultInfo{
			Name: "system:serviceaccount:shop:robot", UID: "sa-1",
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:shop"},
			Extra: map[string][]string{
				"authentication.kubernetes.io/credential-id": {"JTI=id-1"},
				"authentication.kubernetes.io/pod-name":      {"web"},
				"authentication.kubernetes.io/pod-uid":       {"pod-1"},
				"authentication.kubernetes.io/node-name":     {"n1"},
				"authentication.kubernetes.io/node-uid":      {"node-1"},
			},
		}
		if diff := cmp.Diff(want, resp.User); diff != "" {
			t.Errorf("user (-want +got):\n%s", diff)
		}
	}
}

// A token ends with what it stands for.
func TestDeadTokens(t *testing.T) {
	const invalidated = "service account token has been invalidated"
	deleted := func(obj api.Object, ago time.Duration) api.Object {
		obj.SetDeletionTimestamp(&metav1.Time{Time: epoch.Add(-ago)})
		obj.SetFinalizers([]string{"example.com/held"})
		return obj
	}
	for _, c := range []struct {
		name   string
		bound  *authenticationv1.BoundObjectReference
		change func(*fixture)
		err    string // empty: still good
	}{
		{"nothing changed", boundTo("Pod", "web", ""), func(*fixture) {}, ""},
		{"the pod is gone", boundTo("Pod", "web", ""), func(f *fixture) { f.view.Remove(pod()) }, invalidated},
		{"another pod has its name", boundTo("Pod", "web", ""), func(f *fixture) {
			other := pod()
			other.UID = "pod-2"
			f.view.Put(other)
		}, "pod UID (pod-2) does not match service account pod ref claim (pod-1)"},
		{"the pod is ending", boundTo("Pod", "web", ""), func(f *fixture) { f.view.Put(deleted(pod(), -30*time.Second)) }, ""},
		{"the pod should have ended", boundTo("Pod", "web", ""), func(f *fixture) { f.view.Put(deleted(pod(), 61*time.Second)) }, invalidated},
		{"the pod's node is gone", boundTo("Pod", "web", ""), func(f *fixture) { f.view.Remove(node()) }, ""},
		{"the secret is gone", boundTo("Secret", "s", ""), func(f *fixture) { f.view.Remove(secret()) }, invalidated},
		{"the node is gone", boundTo("Node", "n1", ""), func(f *fixture) { f.view.Remove(node()) }, invalidated},
		{"the node was made anew", boundTo("Node", "n1", ""), func(f *fixture) {
			other := node()
			other.UID = "node-2"
			f.view.Put(other)
		}, "node UID (node-2) does not match service account node ref claim (node-1)"},
		{"the account is gone", nil, func(f *fixture) { f.view.Remove(account()) }, `serviceaccounts "robot" not found`},
		{"the account was made anew", nil, func(f *fixture) {
			other := account()
			other.UID = "sa-2"
			f.view.Put(other)
		}, "service account UID (sa-2) does not match claim (sa-1)"},
		{"the account is held by a finalizer", nil, func(f *fixture) { f.view.Put(deleted(account(), time.Hour)) }, "service account shop/robot has been deleted"},
		{"its time is over", nil, func(f *fixture) { f.clock.SetTime(epoch.Add(62 * time.Minute)) }, "service account token has expired"},
		{"clocks differ a little", nil, func(f *fixture) { f.clock.SetTime(epoch.Add(-30 * time.Second)) }, ""},
		{"clocks differ", nil, func(f *fixture) { f.clock.SetTime(epoch.Add(-2 * time.Minute)) }, "service account token is not valid yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := setup(t, token.Options{}, account(), pod(), secret(), node())
			text := f.issue(t, authenticationv1.TokenRequestSpec{BoundObjectRef: c.bound}).Status.Token
			if _, ok, err := f.AuthenticateToken(t.Context(), text); !ok {
				t.Fatalf("not good to begin with: %v", err)
			}
			c.change(f)
			_, ok, err := f.AuthenticateToken(t.Context(), text)
			if c.err == "" && !ok || c.err != "" && (ok || err == nil || err.Error() != c.err) {
				t.Errorf("%v, %v; want %q", ok, err, c.err)
			}
		})
	}
}

func TestAudiences(t *testing.T) {
	f := setup(t, token.Options{Audiences: []string{"api", "api2"}}, account())
	own := f.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token
	vault := f.issue(t, authenticationv1.TokenRequestSpec{Audiences: []string{"vault", "api2"}}).Status.Token
	only := f.issue(t, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}).Status.Token
	wanted := func(audiences ...string) context.Context {
		return authenticator.WithAudiences(context.Background(), audiences)
	}
	for _, c := range []struct {
		name  string
		ctx   context.Context
		token string
		want  authenticator.Audiences // nil: refused
	}{
		{"own", t.Context(), own, authenticator.Audiences{"api", "api2"}},
		{"one of two", t.Context(), vault, authenticator.Audiences{"api2"}},
		{"of others", t.Context(), only, nil},
		{"asked by others", wanted("vault"), only, authenticator.Audiences{"vault"}},
		{"own, asked by others", wanted("vault"), own, nil},
	} {
		resp, ok, err := f.AuthenticateToken(c.ctx, c.token)
		if ok != (c.want != nil) || ok && !cmp.Equal(resp.Audiences, c.want) {
			t.Errorf("%s: %v, %v, %v; want %v", c.name, resp, ok, err, c.want)
		}
	}
}

func TestForgery(t *testing.T) {
	f := setup(t, token.Options{}, account())
	text := f.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token
	parts := strings.Split(text, ".")
	stranger := setup(t, token.Options{}, account())
	elsewhere := setup(t, token.Options{Issuer: "https://elsewhere"}, account())
	forged := payload(t, text)
	forged["sub"] = "system:serviceaccount:kube-system:admin"
	changed, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	for _, c := range []struct {
		name, token string
		noOpinion   bool
	}{
		{"another key", stranger.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token, false},
		{"another issuer", elsewhere.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token, true},
		{"changed claims", parts[0] + "." + encode(changed) + "." + parts[2], false},
		{"no signature", parts[0] + "." + parts[1] + ".", false},
		{"no algorithm", encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", true},
		{"a symmetric algorithm", encode([]byte(`{"alg":"HS256"}`)) + "." + parts[1] + "." + parts[2], true},
		{"not a token", "abc", true},
		{"nothing", "", true},
	} {
		_, ok, err := f.AuthenticateToken(t.Context(), c.token)
		if ok || (err == nil) != c.noOpinion {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
	}
}

// A new first key signs, and what the old one signed stays good.
func TestKeyRotation(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old := ecKey(t)
	before := setup(t, token.Options{Keys: []crypto.Signer{old}}, account())
	text := before.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token
	after := setup(t, token.Options{Keys: []crypto.Signer{rsaKey, old}}, account())
	if _, ok, err := after.AuthenticateToken(t.Context(), text); !ok {
		t.Error(err)
	}
	text = after.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token
	if _, ok, err := after.AuthenticateToken(t.Context(), text); !ok {
		t.Error(err)
	}
	if _, ok, _ := before.AuthenticateToken(t.Context(), text); ok {
		t.Error("the old server knows the new key")
	}
	data, err := after.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 2 || set.Keys[0]["alg"] != "RS256" || set.Keys[1]["alg"] != "ES256" || set.Keys[0]["d"] != "" || set.Keys[1]["d"] != "" {
		t.Errorf("keys %s", data)
	}
	data, err = after.Discovery("https://h/openid/v1/jwks")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"issuer":"https://kubernetes.default.svc.cluster.local","jwks_uri":"https://h/openid/v1/jwks",` +
		`"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256","RS256"]}`
	if string(data) != want {
		t.Errorf("discovery %s", data)
	}
}

// Public keys verify as well, those of a signer once; and tokens of a former issuer
// stay good.
func TestGivenKeysAndIssuers(t *testing.T) {
	old, current := ecKey(t), ecKey(t)
	before := setup(t, token.Options{Issuer: "https://old", Keys: []crypto.Signer{old}}, account())
	text := before.issue(t, authenticationv1.TokenRequestSpec{}).Status.Token
	after := setup(t, token.Options{
		Issuer: "https://new", OtherIssuers: []string{"https://old"}, Keys: []crypto.Signer{current},
		Verify: []crypto.PublicKey{current.Public(), old.Public()},
	}, account())
	if _, ok, err := after.AuthenticateToken(t.Context(), text); !ok {
		t.Errorf("the old token: %v", err)
	}
	strict := setup(t, token.Options{Issuer: "https://new", Keys: []crypto.Signer{current}, Verify: []crypto.PublicKey{old.Public()}}, account())
	if _, ok, err := strict.AuthenticateToken(t.Context(), text); ok || err != nil {
		t.Errorf("the token of a stranger: %v, %v", ok, err)
	}
	data, err := after.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), `"kid"`); n != 2 {
		t.Errorf("%d keys: %s", n, data)
	}
}

func TestNewRefusesKeys(t *testing.T) {
	view := authtest.New(t)
	if _, err := token.New(token.Options{}, view.Registry, view); err == nil {
		t.Error("no key is taken")
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.New(token.Options{Keys: []crypto.Signer{small}}, view.Registry, view); err == nil || err.Error() != "service-account key 0: curve P-224 cannot be used" {
		t.Errorf("a small curve: %v", err)
	}
}

// Whatever is sent as a token, the answer is a refusal.
func FuzzAuthenticateToken(f *testing.F) {
	fix := setup(f, token.Options{}, account(), pod(), node())
	good := fix.issue(f, authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", "")}).Status.Token
	parts := strings.Split(good, ".")
	f.Add(good)
	f.Add(parts[0] + ".." + parts[2])
	f.Add(parts[0] + "." + parts[1])
	f.Add("." + parts[1] + ".")
	f.Add(`{"payload":"` + parts[1] + `"}`)
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":1}`)) + "." + parts[1] + "." + parts[2])
	f.Add(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://kubernetes.default.svc.cluster.local","kubernetes.io":null}`)) + "." + parts[2])
	f.Fuzz(func(t *testing.T, text string) {
		_, ok, _ := fix.AuthenticateToken(context.Background(), text)
		if ok && text != good && !sameBytes(text, good) {
			t.Errorf("%q is good", text)
		}
	})
}

// sameBytes is true for two spellings of one token: the last character of
// base64 has bits that mean nothing.
func sameBytes(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		p, err := base64.RawURLEncoding.DecodeString(x[i])
		q, err2 := base64.RawURLEncoding.DecodeString(y[i])
		if err != nil || err2 != nil || string(p) != string(q) {
			return false
		}
	}
	return true
}

func BenchmarkAuthenticate(b *testing.B) {
	f := setup(b, token.Options{}, account(), pod(), node())
	text := f.issue(b, authenticationv1.TokenRequestSpec{BoundObjectRef: boundTo("Pod", "web", "")}).Status.Token
	b.ReportAllocs()
	for b.Loop() {
		f.AuthenticateToken(context.Background(), text)
	}
}
