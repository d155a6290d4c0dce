package token

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"hansa.dev/hansa/api"
)

// A token that lives in a secret of type kubernetes.io/service-account-token
// has no end and is for the API server alone. It is good while the secret holds
// it and the account is there.
const legacyIssuer = "kubernetes/serviceaccount"

// LastUsedLabel of a secret is the day on which its token was last used.
const LastUsedLabel = "kubernetes.io/legacy-token-last-used"

// invalidSinceLabel, with any value, takes a token out of use.
const invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"

type legacyClaims struct {
	AccountName string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	AccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
	SecretName  string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	Namespace   string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
}

// Legacy makes the token of an account that is to live in a secret.
func (t *Tokens) Legacy(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	return t.keys.sign(&struct {
		jwt.Claims
		legacyClaims
	}{
		jwt.Claims{Issuer: legacyIssuer, Subject: serviceaccount.MakeUsername(account.Namespace, account.Name)},
		legacyClaims{AccountName: account.Name, AccountUID: string(account.UID), SecretName: secret.Name, Namespace: account.Namespace},
	})
}

// validateLegacy compares the claims with the secret and account they name.
func (t *Tokens) validateLegacy(ctx context.Context, c *claims, token string) (*serviceaccount.ServiceAccountInfo, error) {
	for _, claim := range []struct{ name, value string }{
		{"sub", c.Subject}, {"namespace", c.Namespace}, {"secretName", c.SecretName},
		{"serviceAccountName", c.AccountName}, {"serviceAccountUID", c.AccountUID},
	} {
		if claim.value == "" {
			return nil, fmt.Errorf("%s claim is missing", claim.name)
		}
	}
	if c.Subject != serviceaccount.MakeUsername(c.Namespace, c.AccountName) {
		return nil, errors.New("sub claim is invalid")
	}
	secret, ok := t.view.Get(t.secrets, api.Key{Namespace: c.Namespace, Name: c.SecretName}).(*corev1.Secret)
	switch {
	case !ok || secret.DeletionTimestamp != nil:
		return nil, errors.New("Token has been invalidated")
	case subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) == 0:
		return nil, errors.New("Token does not match server's copy")
	}
	account := t.view.Get(t.accounts, api.Key{Namespace: c.Namespace, Name: c.AccountName})
	switch {
	case account == nil:
		return nil, apierrors.NewNotFound(corev1.Resource("serviceaccounts"), c.AccountName)
	case account.GetDeletionTimestamp() != nil:
		return nil, fmt.Errorf("ServiceAccount %s/%s has been deleted", c.Namespace, c.AccountName)
	case string(account.GetUID()) != c.AccountUID:
		return nil, fmt.Errorf("ServiceAccount UID (%s) does not match claim (%s)", account.GetUID(), c.AccountUID)
	}
	t.used(ctx, secret)
	if secret.Labels[invalidSinceLabel] != "" {
		return nil, fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token",
			c.Namespace, c.SecretName, c.Namespace, c.AccountName, invalidSinceLabel)
	}
	return &serviceaccount.ServiceAccountInfo{Namespace: c.Namespace, Name: c.AccountName, UID: c.AccountUID}, nil
}

// used notes the day, once. Another server's day may have begun already.
func (t *Tokens) used(ctx context.Context, secret *corev1.Secret) {
	now := t.o.Clock.Now().UTC()
	day := func(ahead int) string { return now.AddDate(0, 0, ahead).Format("2006-01-02") }
	if had := secret.Labels[LastUsedLabel]; t.o.Used != nil && had != day(0) && had != day(1) {
		t.o.Used(ctx, secret, day(0))
	}
}
