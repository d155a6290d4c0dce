// Package tokens fills the secrets of type kubernetes.io/service-account-token
// with a token of the account that they name, and deletes them with it.
package tokens

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Loop is the tokens controller. In Kubernetes it is the one loop that has no
// account of its own, and acts as the controller manager.
type Loop struct {
	client            client.Interface
	secrets, accounts *api.Resource
	bundle            []byte
	sign              Sign
}

// Sign makes the token of an account that lives in a secret.
type Sign func(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error)

// New makes the loop; bundle is the authority in PEM.
func New(c client.Interface, bundle []byte, sign Sign) *Loop {
	return &Loop{client: c, secrets: c.Registry().Must("", "secrets"), accounts: c.Registry().Must("", "serviceaccounts"), bundle: bundle, sign: sign}
}

// Name is the loop's name; its identity is system:kube-controller-manager.
func (l *Loop) Name() string { return "tokens-controller" }

// Sources are secrets with tokens, and accounts that are gone. The key of a
// secret is its own; of an account that still lists a secret that is gone, see
// referenceKey.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.secrets, Keys: func(old, new api.Object) []api.Key {
			if new != nil {
				if !holdsToken(new) {
					return nil
				}
				return []api.Key{{Namespace: new.GetNamespace(), Name: new.GetName()}}
			}
			if !holdsToken(old) {
				return nil
			}
			return l.references(old)
		}},
		{Resource: l.accounts, Keys: func(old, new api.Object) []api.Key {
			if old == nil || new != nil && new.GetUID() == old.GetUID() {
				return nil
			}
			return l.secretsOf(old)
		}},
	}
}

func holdsToken(o api.Object) bool {
	return o.(*corev1.Secret).Type == corev1.SecretTypeServiceAccountToken
}

func (l *Loop) secretsOf(account api.Object) (keys []api.Key) {
	for o := range l.client.View().List(l.secrets, account.GetNamespace()) {
		if holdsToken(o) && o.GetAnnotations()[corev1.ServiceAccountNameKey] == account.GetName() {
			keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
		}
	}
	return keys
}

// A reference is a secret in the list of an account. Its key is
// "references/ACCOUNT/SECRET", which no secret's name can be.
const referencePrefix = "references/"

// references are the keys for a secret that is gone.
func (l *Loop) references(secret api.Object) []api.Key {
	name := secret.GetAnnotations()[corev1.ServiceAccountNameKey]
	account, ok := l.client.View().Get(l.accounts, api.Key{Namespace: secret.GetNamespace(), Name: name}).(*corev1.ServiceAccount)
	if !ok || !lists(account, secret.GetName()) {
		return nil
	}
	return []api.Key{{Namespace: secret.GetNamespace(), Name: referencePrefix + name + "/" + secret.GetName()}}
}

func lists(account *corev1.ServiceAccount, secret string) bool {
	return slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret })
}

// Step fills or deletes one secret, or takes one that is gone off its
// account's list.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	if reference, ok := strings.CutPrefix(key.Name, referencePrefix); ok {
		account, secret, _ := strings.Cut(reference, "/")
		return 0, l.forget(ctx, key.Namespace, account, secret)
	}
	secret, ok := l.client.View().Get(l.secrets, key).(*corev1.Secret)
	if !ok || !holdsToken(secret) || secret.DeletionTimestamp != nil {
		return 0, nil
	}
	account, err := l.accountOf(ctx, secret)
	switch {
	case err != nil:
		return 0, fmt.Errorf("find service account of secret %s: %w", key, err)
	case account == nil:
		err = l.client.Delete(ctx, api.RefTo(l.secrets, secret), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete token of service account that is gone, secret %s: %w", key, err)
		}
		return 0, nil
	}
	if err := l.fill(ctx, account, secret); err != nil {
		return 0, fmt.Errorf("fill secret %s with a token: %w", key, err)
	}
	return 0, nil
}

// accountOf is the account that a secret names, nil if there is none. Since a
// secret is deleted for that, the newest state is asked.
func (l *Loop) accountOf(ctx context.Context, secret *corev1.Secret) (*corev1.ServiceAccount, error) {
	uid := secret.Annotations[corev1.ServiceAccountUIDKey]
	is := func(o api.Object) *corev1.ServiceAccount {
		if account, ok := o.(*corev1.ServiceAccount); ok && (uid == "" || uid == string(account.UID)) {
			return account
		}
		return nil
	}
	key := api.Key{Namespace: secret.Namespace, Name: secret.Annotations[corev1.ServiceAccountNameKey]}
	if account := is(l.client.View().Get(l.accounts, key)); account != nil {
		return account, nil
	}
	o, err := l.client.Get(ctx, api.Ref{Resource: l.accounts, Namespace: key.Namespace, Name: key.Name})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return is(o), nil
}

// fill adds what a secret lacks. Nobody can fill one that is immutable.
func (l *Loop) fill(ctx context.Context, account *corev1.ServiceAccount, have *corev1.Secret) error {
	lacksToken := len(have.Data[corev1.ServiceAccountTokenKey]) == 0
	lacksNamespace := len(have.Data[corev1.ServiceAccountNamespaceKey]) == 0
	lacksCA := !bytes.Equal(have.Data[corev1.ServiceAccountRootCAKey], l.bundle)
	if !lacksToken && !lacksNamespace && !lacksCA || have.Immutable != nil && *have.Immutable {
		return nil
	}
	secret := have.DeepCopy()
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	if lacksCA {
		secret.Data[corev1.ServiceAccountRootCAKey] = l.bundle
	}
	if lacksNamespace {
		secret.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
	}
	if lacksToken {
		text, err := l.sign(account, secret)
		if err != nil {
			return err
		}
		secret.Data[corev1.ServiceAccountTokenKey] = []byte(text)
	}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, corev1.ServiceAccountNameKey, account.Name)
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, corev1.ServiceAccountUIDKey, string(account.UID))
	if _, err := l.client.Update(ctx, l.secrets, secret, ""); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// forget takes a secret that is gone off an account's list.
func (l *Loop) forget(ctx context.Context, namespace, account, secret string) error {
	have, ok := l.client.View().Get(l.accounts, api.Key{Namespace: namespace, Name: account}).(*corev1.ServiceAccount)
	if !ok || !lists(have, secret) || l.client.View().Get(l.secrets, api.Key{Namespace: namespace, Name: secret}) != nil {
		return nil
	}
	changed := have.DeepCopy()
	changed.Secrets = slices.DeleteFunc(changed.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret })
	if _, err := l.client.Update(ctx, l.accounts, changed, ""); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take secret %s off service account %s/%s: %w", secret, namespace, account, err)
	}
	return nil
}
