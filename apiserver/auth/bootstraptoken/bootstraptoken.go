// Package bootstraptoken lets machines in that want to join: by tokens of the
// form ID.SECRET, each the content of a secret in kube-system whose type is
// bootstrap.kubernetes.io/token
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
package bootstraptoken

import (
	"context"
	"crypto/subtle"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	tokens "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/util/secrets"
	form "k8s.io/cluster-bootstrap/util/tokens"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// View is what an Authenticator needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Authenticator knows who bears a bootstrap token. It is safe for use by any
// goroutine.
type Authenticator struct {
	view    View
	secrets *api.Resource
	clock   clock.PassiveClock
	log     *slog.Logger
}

// New is an authenticator by the secrets that the view shows.
func New(reg *api.Registry, view View, clk clock.PassiveClock, log *slog.Logger) *Authenticator {
	return &Authenticator{view: view, secrets: reg.Must("", "secrets"), clock: clk, log: log}
}

// AuthenticateToken implements authenticator.Token. It has no opinion of
// anything else than a good token; the log says, at level debug, what is wrong
// with the secret of one that is not.
func (a *Authenticator) AuthenticateToken(_ context.Context, token string) (*authenticator.Response, bool, error) {
	id, secret, err := form.ParseToken(token)
	if err != nil {
		return nil, false, nil //nolint:nilerr // it is a token of another kind
	}
	s, _ := a.view.Get(a.secrets, api.Key{Namespace: metav1.NamespaceSystem, Name: tokens.BootstrapTokenSecretPrefix + id}).(*corev1.Secret)
	groups, why := a.groups(s, id, secret)
	if why != "" {
		a.log.Debug("a bootstrap token is not good", "id", id, "reason", why)
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: tokens.BootstrapUserPrefix + id, Groups: groups}}, true, nil
}

// groups are those of the bearer, or why there are none.
func (a *Authenticator) groups(s *corev1.Secret, id, secret string) (groups []string, why string) {
	switch {
	case s == nil:
		return nil, "there is no secret for it"
	case s.DeletionTimestamp != nil:
		return nil, "is deleted and awaiting removal"
	case s.Type != tokens.SecretTypeBootstrapToken || s.Data == nil:
		return nil, "has invalid type, expected " + string(tokens.SecretTypeBootstrapToken)
	case subtle.ConstantTimeCompare(s.Data[tokens.BootstrapTokenSecretKey], []byte(secret)) != 1:
		return nil, "has invalid value for key " + tokens.BootstrapTokenSecretKey
	case string(s.Data[tokens.BootstrapTokenIDKey]) != id:
		return nil, "has invalid value for key " + tokens.BootstrapTokenIDKey
	case secrets.HasExpired(s, a.clock.Now()):
		return nil, "has expired"
	case string(s.Data[tokens.BootstrapTokenUsageAuthentication]) != "true":
		return nil, "not marked " + tokens.BootstrapTokenUsageAuthentication + "=true"
	}
	groups, err := secrets.GetGroups(s)
	if err != nil {
		return nil, "has invalid value for key " + tokens.BootstrapTokenExtraGroupsKey + ": " + err.Error()
	}
	return groups, ""
}
