package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	kubelet "k8s.io/kubelet/config/v1"
	exchange "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

// Accounts are what providers with tokenAttributes are told of pods ("Service
// Account Token for Image Pulls", KEP-4412).
type Accounts interface {
	// ServiceAccount is the account as the API has it now.
	ServiceAccount(ctx context.Context, namespace, name string) (*v1.ServiceAccount, error)
	// PodToken is a token of the pod's service account for an audience, bound to
	// the pod, and of no account but that of the UID. It may be one that was
	// given before.
	PodToken(ctx context.Context, p *v1.Pod, audience string, account types.UID) (string, error)
}

// identity is for whom a provider is asked. Zero is the node.
type identity struct {
	account     account
	annotations map[string]string
	token       string
	// key tells answers in the cache apart, flight those who ask at once.
	key, flight string
}

// identify finds out for whom the provider is asked for an image of a pod: for
// the node without tokenAttributes. nil is that it is not to be asked.
func (p *provider) identify(ctx context.Context, pod *v1.Pod) (*identity, error) {
	a := p.TokenAttributes
	if a == nil {
		return &identity{}, nil
	}
	if pod == nil || pod.Spec.ServiceAccountName == "" {
		if *a.RequireServiceAccount {
			return nil, nil
		}
		return &identity{}, nil // a static pod
	}
	sa, err := p.accounts.ServiceAccount(ctx, pod.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return nil, fmt.Errorf("service account of pod %s: %w", podName(pod), err)
	}
	who := &identity{account: account{UID: string(sa.UID), Namespace: sa.Namespace, Name: sa.Name}, annotations: map[string]string{}}
	for _, k := range a.RequiredServiceAccountAnnotationKeys {
		v, ok := sa.Annotations[k]
		if !ok {
			return nil, nil // whoever wants it says so by the annotation
		}
		who.annotations[k] = v
	}
	for _, k := range a.OptionalServiceAccountAnnotationKeys {
		if v, ok := sa.Annotations[k]; ok {
			who.annotations[k] = v
		}
	}
	if who.token, err = p.accounts.PodToken(ctx, pod, a.ServiceAccountTokenAudience, sa.UID); err != nil {
		return nil, fmt.Errorf("token of the service account of pod %s: %w", podName(pod), err)
	}
	var said strings.Builder
	for _, k := range slices.Sorted(maps.Keys(who.annotations)) {
		fmt.Fprintf(&said, "%q=%q ", k, who.annotations[k])
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(who.token)))
	who.key, who.flight = fmt.Sprintf("%+v %s", who.account, said.String()), said.String()+sum
	if a.CacheType == kubelet.TokenServiceAccountTokenCacheType {
		who.key += sum
	}
	return who, nil
}

// podName names a pod in what is logged.
func podName(p *v1.Pod) string {
	if p == nil {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

// checkToken looks at tokenAttributes.
func (p *provider) checkToken() error {
	a := p.TokenAttributes
	if a == nil {
		return nil
	}
	switch {
	case a.ServiceAccountTokenAudience == "":
		return errors.New("serviceAccountTokenAudience: it has to be given")
	case a.RequireServiceAccount == nil:
		return errors.New("requireServiceAccount: it has to be given")
	case p.APIVersion != exchange.SchemeGroupVersion.String():
		return fmt.Errorf("they are only for apiVersion %s", exchange.SchemeGroupVersion)
	case !*a.RequireServiceAccount && len(a.RequiredServiceAccountAnnotationKeys) > 0:
		return errors.New("requireServiceAccount: it cannot be false with requiredServiceAccountAnnotationKeys")
	case !slices.Contains([]kubelet.ServiceAccountTokenCacheType{kubelet.ServiceAccountServiceAccountTokenCacheType, kubelet.TokenServiceAccountTokenCacheType}, a.CacheType):
		return fmt.Errorf("cacheType: %q is not ServiceAccount or Token", a.CacheType)
	}
	seen := map[string]bool{}
	for _, k := range slices.Concat(a.RequiredServiceAccountAnnotationKeys, a.OptionalServiceAccountAnnotationKeys) {
		if wrong := validation.IsQualifiedName(strings.ToLower(k)); len(wrong) > 0 {
			return fmt.Errorf("annotation key %q: %s", k, strings.Join(wrong, "; "))
		}
		if seen[k] {
			return fmt.Errorf("annotation key %q is there twice", k)
		}
		seen[k] = true
	}
	return nil
}

// checkAnswer refuses a token that comes back as the login, to be kept for
// longer than it is good.
func (p *provider) checkAnswer(r *exchange.CredentialProviderResponse, who *identity) error {
	if who.token == "" || p.TokenAttributes.CacheType == kubelet.TokenServiceAccountTokenCacheType {
		return nil
	}
	for _, a := range r.Auth {
		if a.Password == who.token {
			return errors.New("its answer has the service account's token as password, which wants cacheType Token")
		}
	}
	return nil
}
