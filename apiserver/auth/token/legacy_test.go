package token_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/apiserver/auth/token"
)

// filled is a fixture whose secret holds a token of the account.
func filled(t testing.TB, o token.Options) (f *fixture, text string) {
	t.Helper()
	f = setup(t, o, account())
	text, err := f.Legacy(account(), secret())
	if err != nil {
		t.Fatal(err)
	}
	f.view.Put(holding(text))
	return f, text
}

func holding(text string) *corev1.Secret {
	s := secret()
	s.Type, s.Data = corev1.SecretTypeServiceAccountToken, map[string][]byte{"token": []byte(text)}
	return s
}

// "Managing Service Accounts", "Manual Secret management for ServiceAccounts".
func TestLegacyToken(t *testing.T) {
	f, text := filled(t, token.Options{})
	want := map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:shop:robot",
		"kubernetes.io/serviceaccount/namespace":            "shop",
		"kubernetes.io/serviceaccount/secret.name":          "s",
		"kubernetes.io/serviceaccount/service-account.name": "robot",
		"kubernetes.io/serviceaccount/service-account.uid":  "sa-1",
	}
	if diff := cmp.Diff(want, payload(t, text)); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	f.clock.SetTime(epoch.AddDate(50, 0, 0))
	resp, ok, err := f.AuthenticateToken(t.Context(), text)
	if !ok {
		t.Fatal(err)
	}
	robot := &user.DefaultInfo{
		Name: "system:serviceaccount:shop:robot", UID: "sa-1",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:shop"},
	}
	if diff := cmp.Diff(&authenticator.Response{User: robot, Audiences: authenticator.Audiences{token.DefaultIssuer}}, resp); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if _, ok, err := f.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"vault"}), text); ok || err == nil {
		t.Errorf("good for others: %v", err)
	}
}

func TestDeadLegacyTokens(t *testing.T) {
	deleted := &metav1.Time{Time: epoch}
	for _, c := range []struct {
		name   string
		change func(f *fixture, held *corev1.Secret, robot *corev1.ServiceAccount)
		err    string
	}{
		{"the secret is gone", func(f *fixture, held *corev1.Secret, _ *corev1.ServiceAccount) { f.view.Remove(held) }, "Token has been invalidated"},
		{"the secret is ending", func(f *fixture, held *corev1.Secret, _ *corev1.ServiceAccount) {
			held.DeletionTimestamp, held.Finalizers = deleted, []string{"example.com/f"}
			f.view.Put(held)
		}, "Token has been invalidated"},
		{"the secret holds another", func(f *fixture, held *corev1.Secret, _ *corev1.ServiceAccount) {
			held.Data["token"] = []byte("other")
			f.view.Put(held)
		}, "Token does not match server's copy"},
		{"the secret holds none", func(f *fixture, held *corev1.Secret, _ *corev1.ServiceAccount) {
			held.Data = nil
			f.view.Put(held)
		}, "Token does not match server's copy"},
		{"the account is gone", func(f *fixture, _ *corev1.Secret, robot *corev1.ServiceAccount) { f.view.Remove(robot) }, `serviceaccounts "robot" not found`},
		{"the account is ending", func(f *fixture, _ *corev1.Secret, robot *corev1.ServiceAccount) {
			robot.DeletionTimestamp, robot.Finalizers = deleted, []string{"example.com/f"}
			f.view.Put(robot)
		}, "ServiceAccount shop/robot has been deleted"},
		{"the account was made anew", func(f *fixture, _ *corev1.Secret, robot *corev1.ServiceAccount) {
			robot.UID = "sa-2"
			f.view.Put(robot)
		}, "ServiceAccount UID (sa-2) does not match claim (sa-1)"},
		{"it is marked", func(f *fixture, held *corev1.Secret, _ *corev1.ServiceAccount) {
			held.Labels = map[string]string{"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}
			f.view.Put(held)
		}, "the token in secret shop/s for service account shop/robot has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, text := filled(t, token.Options{})
			if _, ok, err := f.AuthenticateToken(t.Context(), text); !ok {
				t.Fatalf("not good to begin with: %v", err)
			}
			c.change(f, holding(text), account())
			if _, ok, err := f.AuthenticateToken(t.Context(), text); ok || err == nil || err.Error() != c.err {
				t.Errorf("%v, %v; want %q", ok, err, c.err)
			}
		})
	}
}

// Only the account's own claims are taken, and the issuer that was signed.
func TestLegacyForgery(t *testing.T) {
	f, text := filled(t, token.Options{})
	_, strange := filled(t, token.Options{})
	f.view.Put(holding(strange))
	if _, ok, err := f.AuthenticateToken(t.Context(), strange); ok || err == nil {
		t.Errorf("signed by another key: %v", err)
	}
	forged := payload(t, text)
	forged["iss"] = token.DefaultIssuer
	changed, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	part := func(i int) string { return strings.Split(text, ".")[i] }
	if _, ok, err := f.AuthenticateToken(t.Context(), part(0)+"."+base64.RawURLEncoding.EncodeToString(changed)+"."+part(2)); ok || err == nil {
		t.Errorf("another issuer: %v", err)
	}
}

// The day of the last use is told of once, by UTC.
func TestLegacyTokenUse(t *testing.T) {
	var days []string
	var f *fixture
	f, text := filled(t, token.Options{Used: func(_ context.Context, s *corev1.Secret, day string) {
		days = append(days, day)
		s = s.DeepCopy()
		s.Labels = map[string]string{token.LastUsedLabel: day}
		f.view.Put(s)
	}})
	use := func(at time.Time) {
		f.clock.SetTime(at)
		if _, ok, err := f.AuthenticateToken(t.Context(), text); !ok {
			t.Fatal(err)
		}
	}
	use(epoch)
	use(epoch.Add(time.Hour))
	use(time.Date(2026, 1, 3, 0, 30, 0, 0, time.FixedZone("east", 3600)))
	use(epoch.AddDate(0, 0, -1)) // a server whose day has not begun
	use(epoch.AddDate(0, 0, 7))
	if !slices.Equal(days, []string{"2026-01-02", "2026-01-09"}) {
		t.Errorf("told of %v", days)
	}
}
