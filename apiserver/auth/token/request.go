package token

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// Tokens that are mounted into every pod ask for this odd number of seconds.
// Since clients that read their token only once would fail after an hour, such
// a token lives for a year and its use is only remarked upon after the hour.
const (
	injectedSeconds  = 60*60 + 7
	extendedLifetime = 365 * 24 * time.Hour
)

var requestKind = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// Request answers a TokenRequest for an account: the subresource "token" of
// service accounts. req has its defaults and belongs to the callee. warn, which may be nil, gets
// sentences for the client.
func (t *Tokens) Request(account *corev1.ServiceAccount, req *authenticationv1.TokenRequest, warn func(string)) (*authenticationv1.TokenRequest, error) {
	now := t.o.Clock.Now()
	if err := t.complete(account, req, now); err != nil {
		return nil, err
	}
	bound, err := t.bind(account, req.Spec.BoundObjectRef)
	if err != nil {
		return nil, err
	}
	seconds := *req.Spec.ExpirationSeconds
	if longest := int64(t.o.MaxLifetime / time.Second); longest > 0 && seconds > longest {
		if warn != nil {
			warn(fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", seconds, longest))
		}
		seconds = longest
		req.Spec.ExpirationSeconds = &seconds
	}
	requested := time.Duration(seconds) * time.Second
	lifetime := requested
	if bound.Pod != nil && seconds == injectedSeconds && t.own(req.Spec.Audiences) {
		bound.WarnAfter = jwt.NewNumericDate(now.Add(requested))
		lifetime = extendedLifetime
		if t.o.MaxLifetime > 0 {
			lifetime = min(lifetime, t.o.MaxLifetime)
		}
	}
	text, err := t.keys.sign(&claims{
		Claims: jwt.Claims{
			Issuer:    t.o.Issuer,
			Subject:   serviceaccount.MakeUsername(account.Namespace, account.Name),
			Expiry:    jwt.NewNumericDate(now.Add(lifetime)),
			NotBefore: jwt.NewNumericDate(now),
			IssuedAt:  jwt.NewNumericDate(now),
			ID:        t.o.NewID(),
		},
		Audience:   req.Spec.Audiences,
		Kubernetes: *bound,
	})
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("failed to generate token: %v", err))
	}
	// Whoever asked refreshes by the time asked for, extended or not.
	req.Status = authenticationv1.TokenRequestStatus{Token: text, ExpirationTimestamp: metav1.NewTime(now.Add(requested))}
	return req, nil
}

// complete fills in what was left out and checks the rest.
func (t *Tokens) complete(account *corev1.ServiceAccount, req *authenticationv1.TokenRequest, now time.Time) error {
	if req.Name != "" && req.Name != account.Name {
		return apierrors.NewInvalid(requestKind.GroupKind(), account.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "name"), req.Name, "must match the service account name if specified")})
	}
	if req.Namespace != "" && req.Namespace != account.Namespace {
		return apierrors.NewInvalid(requestKind.GroupKind(), account.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "namespace"), req.Namespace, "must match the service account namespace if specified")})
	}
	if req.UID != "" && req.UID != account.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: requestKind.Group, Resource: requestKind.Kind}, account.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", req.UID, account.UID))
	}
	req.Name, req.Namespace, req.UID = account.Name, account.Namespace, account.UID
	req.CreationTimestamp = metav1.NewTime(now)
	req.Status = authenticationv1.TokenRequestStatus{}
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = t.o.Audiences
	}
	errs := kinds.ValidateTokenRequest(req)
	if len(req.Spec.Attestations) > 0 {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "attestations"), "this server issues no tokens for admission webhooks"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(requestKind.GroupKind(), "", errs)
	}
	return nil
}

// bind makes the claims for what the request binds the token to.
func (t *Tokens) bind(account *corev1.ServiceAccount, to *authenticationv1.BoundObjectReference) (*kubernetesClaims, error) {
	c := &kubernetesClaims{
		Namespace:      account.Namespace,
		ServiceAccount: ref{account.Name, string(account.UID)},
	}
	if to == nil {
		return c, nil
	}
	gvk := schema.FromAPIVersionAndKind(to.APIVersion, to.Kind)
	var obj api.Object
	var err error
	switch gvk.GroupKind() {
	case schema.GroupKind{Kind: "Pod"}:
		if obj, err = t.find(t.pods, account.Namespace, to.Name); err != nil {
			return nil, err
		}
		pod := obj.(*corev1.Pod)
		if pod.Spec.ServiceAccountName != account.Name {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account.Name))
		}
		c.Pod = refTo(obj)
		if node := pod.Spec.NodeName; node != "" {
			c.Node = &ref{Name: node}
			if obj := t.view.Get(t.nodes, api.Key{Name: node}); obj != nil {
				c.Node.UID = string(obj.GetUID())
			}
		}
	case schema.GroupKind{Kind: "Node"}:
		if obj, err = t.find(t.nodes, "", to.Name); err != nil {
			return nil, err
		}
		c.Node = refTo(obj)
	case schema.GroupKind{Kind: "Secret"}:
		if obj, err = t.find(t.secrets, account.Namespace, to.Name); err != nil {
			return nil, err
		}
		c.Secret = refTo(obj)
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk))
	}
	if to.UID != "" && to.UID != obj.GetUID() {
		return nil, apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, to.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", to.UID))
	}
	return c, nil
}

func (t *Tokens) find(r *api.Resource, namespace, name string) (api.Object, error) {
	obj := t.view.Get(r, api.Key{Namespace: namespace, Name: name})
	if obj == nil {
		return nil, apierrors.NewNotFound(r.GroupResource(), name)
	}
	return obj, nil
}

func refTo(obj api.Object) *ref { return &ref{obj.GetName(), string(obj.GetUID())} }
