package bootstraptoken_test

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/bootstraptoken"
)

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
func TestBootstrapTokens(t *testing.T) {
	good := map[string]string{
		"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
		"expiration": epoch.Add(time.Minute).Format(time.RFC3339),
	}
	for _, tt := range []struct {
		name   string
		change map[string]string // "": taken away
		edit   func(s *corev1.Secret)
		token  string
		groups string // "": not let in
		why    string // in the log
	}{
		{name: "good", groups: "system:bootstrappers"},
		{name: "without an end", change: map[string]string{"expiration": ""}, groups: "system:bootstrappers"},
		{name: "further groups", change: map[string]string{"auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"}, groups: "system:bootstrappers system:bootstrappers:a system:bootstrappers:b"},
		{name: "a group of others", change: map[string]string{"auth-extra-groups": "system:masters"}, why: `bootstrap group \"system:masters\" is invalid`},
		{name: "another secret", token: "abcdef.0123456789abcdee", why: "has invalid value for key token-secret"},
		{name: "another ID", token: "abcdeg.0123456789abcdef", why: "there is no secret for it"},
		{name: "not the ID of its name", change: map[string]string{"token-id": "abcdeg"}, why: "has invalid value for key token-id"},
		{name: "not of the form", token: "abcdef.0123456789abcdef0"},
		{name: "no token", token: "nonsense"},
		{name: "expired", change: map[string]string{"expiration": epoch.Format(time.RFC3339)}, why: "has expired"},
		{name: "an end that nobody can read", change: map[string]string{"expiration": "tomorrow"}, why: "has expired"},
		{name: "for signing alone", change: map[string]string{"usage-bootstrap-authentication": "", "usage-bootstrap-signing": "true"}, why: "not marked usage-bootstrap-authentication=true"},
		{name: "marked by another word", change: map[string]string{"usage-bootstrap-authentication": "yes"}, why: "not marked"},
		{name: "of another type", edit: func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }, why: "has invalid type"},
		{name: "in another namespace", edit: func(s *corev1.Secret) { s.Namespace = "default" }, why: "there is no secret"},
		{name: "deleted", edit: func(s *corev1.Secret) {
			s.Finalizers, s.DeletionTimestamp = []string{"a/b"}, &metav1.Time{Time: epoch}
		}, why: "is deleted and awaiting removal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := maps.Clone(good)
			maps.Copy(data, tt.change)
			s := &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"},
				Type:       "bootstrap.kubernetes.io/token", Data: map[string][]byte{},
			}
			for key, value := range data {
				if value != "" {
					s.Data[key] = []byte(value)
				}
			}
			if tt.edit != nil {
				tt.edit(s)
			}
			view := authtest.New(t, s)
			var logged bytes.Buffer
			log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			a := bootstraptoken.New(view.Registry, view, clocktesting.NewFakePassiveClock(epoch), log)
			token := tt.token
			if token == "" {
				token = "abcdef.0123456789abcdef"
			}
			got, ok, err := a.AuthenticateToken(t.Context(), token)
			if err != nil || ok != (tt.groups != "") {
				t.Fatalf("let in %v, %v", ok, err)
			}
			if !strings.Contains(logged.String(), tt.why) || strings.Contains(logged.String(), "0123456789") {
				t.Errorf("the log is %q, want %s", logged.String(), tt.why)
			}
			if ok && (got.User.GetName() != "system:bootstrap:abcdef" || !slices.Equal(got.User.GetGroups(), strings.Fields(tt.groups))) {
				t.Errorf("let in as %+v", got.User)
			}
		})
	}
}
