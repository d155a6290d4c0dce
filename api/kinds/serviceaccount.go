package kinds

import (
	"math"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func serviceAccount() *api.Resource {
	return stored[corev1.ServiceAccount, *corev1.ServiceAccount, corev1.ServiceAccountList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:        "serviceaccounts",
		Singular:      "serviceaccount",
		Kind:          "ServiceAccount",
		ShortNames:    []string{"sa"},
		Namespaced:    true,
		Prefix:        "serviceaccounts",
		ChecksBase:    true,
		PrepareCreate: on(keepSecretNames),
		PrepareUpdate: onUpdate(func(sa, _ *corev1.ServiceAccount) { keepSecretNames(sa) }),
		Warnings:      warns(warnServiceAccount),

		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				ageColumn(),
			},
			Row: cells(func(sa *corev1.ServiceAccount, now time.Time) []any {
				return []any{sa.Name, age(sa.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"token": {
				Verbs:   []string{"create"},
				Kind:    authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"),
				New:     func() runtime.Object { return &authenticationv1.TokenRequest{} },
				Default: func(body runtime.Object) { DefaultTokenRequest(body.(*authenticationv1.TokenRequest)) },
				Connect: true,
			},
		},
	})
}

// keepSecretNames reduces the references to what they mean: a name in the
// account's own namespace.
func keepSecretNames(sa *corev1.ServiceAccount) {
	for i := range sa.Secrets {
		sa.Secrets[i] = corev1.ObjectReference{Name: sa.Secrets[i].Name}
	}
}

// enforceMountableSecrets is the annotation that limits an account's pods to
// the secrets it lists.
const enforceMountableSecrets = "kubernetes.io/enforce-mountable-secrets"

func warnServiceAccount(sa, old *corev1.ServiceAccount) []string {
	if _, set := sa.Annotations[enforceMountableSecrets]; !set {
		return nil
	}
	if old != nil {
		if _, before := old.Annotations[enforceMountableSecrets]; before {
			return nil
		}
	}
	return []string{"metadata.annotations[" + enforceMountableSecrets + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}

// DefaultTokenRequest asks for an hour when the client does not say how long
// the token is to live.
func DefaultTokenRequest(tr *authenticationv1.TokenRequest) {
	if tr.Spec.ExpirationSeconds == nil {
		hour := int64(time.Hour / time.Second)
		tr.Spec.ExpirationSeconds = &hour
	}
}

// ValidateTokenRequest checks a defaulted body of serviceaccounts/token.
func ValidateTokenRequest(tr *authenticationv1.TokenRequest) field.ErrorList {
	const shortest = int64(10 * time.Minute / time.Second)
	path := field.NewPath("spec", "expirationSeconds")
	switch seconds := *tr.Spec.ExpirationSeconds; {
	case seconds < shortest:
		return field.ErrorList{field.Invalid(path, seconds, "may not specify a duration less than 10 minutes")}
	case seconds > math.MaxUint32+1:
		return field.ErrorList{field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")}
	}
	return nil
}
