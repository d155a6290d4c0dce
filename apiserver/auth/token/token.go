// Package token issues service-account tokens and tells whether one still
// means something.
//
// A token is a JWT as Kubernetes makes it: beside the registered claims it
// names, under "kubernetes.io", the account and what it is bound to (a pod, a
// secret or a node) with their UIDs. It is good only while all of these exist:
// the signature is checked once and remembered, the objects are looked at on
// every use. Tokens that live in secrets are older in form: see legacy.go.
package token

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	tokenjwt "k8s.io/apiserver/pkg/authentication/token/jwt"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// DefaultIssuer is who signs, unless said otherwise, in a cluster with the
// default domain.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// Options of New.
type Options struct {
	// Issuer is DefaultIssuer when empty.
	Issuer string
	// OtherIssuers are those whose tokens are taken as well, while a cluster moves
	// from one issuer to another.
	OtherIssuers []string
	// Audiences are the API server's own: those of tokens that ask for none,
	// and those that it accepts. The issuers when empty.
	Audiences []string
	// Keys: the first signs, all verify. There must be one.
	Keys []crypto.Signer
	// Verify are keys that verify as well.
	Verify []crypto.PublicKey
	// MaxLifetime shortens tokens that ask for more. 0: no limit of ours.
	MaxLifetime time.Duration
	// Clock and NewID (for the claim "jti") are the real ones when nil.
	Clock clock.PassiveClock
	NewID func() string
	// Used, unless nil, is told of a secret whose token was used for the first
	// time on a day. The secret is frozen; day is for its label LastUsedLabel.
	Used func(ctx context.Context, secret *corev1.Secret, day string)
}

// View is what tokens need of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Tokens issues and authenticates. It is safe for use by any goroutine.
type Tokens struct {
	o    Options
	keys *keys
	view View

	pods, secrets, nodes, accounts *api.Resource

	mu       sync.Mutex
	verified map[[sha256.Size]byte]*claims
}

// New checks the keys.
func New(o Options, reg *api.Registry, view View) (*Tokens, error) {
	if o.Issuer == "" {
		o.Issuer = DefaultIssuer
	}
	if len(o.Audiences) == 0 {
		o.Audiences = append([]string{o.Issuer}, o.OtherIssuers...)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.NewID == nil {
		o.NewID = func() string { return string(uuid.NewUUID()) }
	}
	k, err := newKeys(o.Keys, o.Verify)
	if err != nil {
		return nil, err
	}
	return &Tokens{
		o:        o,
		keys:     k,
		view:     view,
		pods:     reg.Must("", "pods"),
		secrets:  reg.Must("", "secrets"),
		nodes:    reg.Must("", "nodes"),
		accounts: reg.Must("", "serviceaccounts"),
		verified: map[[sha256.Size]byte]*claims{},
	}, nil
}

// Audiences are the API server's own. Not to be written to.
func (t *Tokens) Audiences() []string { return t.o.Audiences }

// claims are all that a token says.
type claims struct {
	jwt.Claims
	// Audience hides the field of that name, which a single audience makes a
	// string; Kubernetes' tokens always have a list.
	Audience   []string         `json:"aud,omitempty"`
	Kubernetes kubernetesClaims `json:"kubernetes.io"`
	// legacyClaims are there instead in the token of a secret.
	legacyClaims
}

type kubernetesClaims struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *ref             `json:"node,omitempty"`
	Pod            *ref             `json:"pod,omitempty"`
	Secret         *ref             `json:"secret,omitempty"`
	ServiceAccount ref              `json:"serviceaccount"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// AuthenticateToken implements authenticator.Token. Of tokens that somebody
// else issued it has no opinion.
func (t *Tokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	c, err := t.verify(token)
	if c == nil || err != nil {
		return nil, false, err
	}
	audiences, err := t.audiences(ctx, c)
	if err != nil {
		return nil, false, err
	}
	var info *serviceaccount.ServiceAccountInfo
	if c.Issuer == legacyIssuer {
		info, err = t.validateLegacy(ctx, c, token)
	} else {
		info, err = t.validate(c)
	}
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

// maxVerified bounds the memory; with more tokens in use than that, signatures
// are checked again.
const maxVerified = 16384

// verify checks the signature. The claims are nil, without an error, for what
// is no token of this issuer.
func (t *Tokens) verify(token string) (*claims, error) {
	fingerprint := sha256.Sum256([]byte(token))
	t.mu.Lock()
	known := t.verified[fingerprint]
	t.mu.Unlock()
	if known != nil {
		return known, nil
	}
	issuer := unverifiedIssuer(token)
	if issuer != t.o.Issuer && issuer != legacyIssuer && !slices.Contains(t.o.OtherIssuers, issuer) {
		return nil, nil
	}
	c, err := t.keys.verify(token)
	if c == nil || err != nil {
		return nil, err
	}
	if c.Issuer != issuer {
		return nil, fmt.Errorf("token issuer %q is invalid", c.Issuer)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.verified) >= maxVerified {
		clear(t.verified)
	}
	t.verified[fingerprint] = c
	return c, nil
}

// unverifiedIssuer is who a compact JWT says that it is of; nobody has checked
// that yet.
func unverifiedIssuer(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &c) != nil {
		return ""
	}
	return c.Issuer
}

// audiences are those that the token and the request share.
func (t *Tokens) audiences(ctx context.Context, c *claims) (authenticator.Audiences, error) {
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		wanted = t.o.Audiences
	}
	has := authenticator.Audiences(c.Audience)
	if len(has) == 0 {
		has = t.o.Audiences // tokens of secrets have none
	}
	shared := has.Intersect(wanted)
	if len(shared) == 0 {
		return nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", has, wanted)
	}
	return shared, nil
}

var errInvalidated = errors.New("service account token has been invalidated")

// validate compares the claims with the time and with the objects they name.
func (t *Tokens) validate(c *claims) (*serviceaccount.ServiceAccountInfo, error) {
	now := t.o.Clock.Now()
	switch err := c.Validate(jwt.Expected{Time: now}); {
	case err == nil:
	case errors.Is(err, jwt.ErrExpired):
		return nil, errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet):
		return nil, errors.New("service account token is not valid yet")
	case errors.Is(err, jwt.ErrIssuedInTheFuture):
		return nil, errors.New("service account token is issued in the future")
	default:
		return nil, errors.New("service account token claims could not be validated due to unexpected validation error")
	}
	k := &c.Kubernetes
	name := k.ServiceAccount.Name
	account := t.view.Get(t.accounts, api.Key{Namespace: k.Namespace, Name: name})
	switch {
	case account == nil:
		return nil, apierrors.NewNotFound(corev1.Resource("serviceaccounts"), name)
	case string(account.GetUID()) != k.ServiceAccount.UID:
		return nil, fmt.Errorf("service account UID (%s) does not match claim (%s)", account.GetUID(), k.ServiceAccount.UID)
	case gone(account, now):
		return nil, fmt.Errorf("service account %s/%s has been deleted", k.Namespace, name)
	}
	info := &serviceaccount.ServiceAccountInfo{
		Namespace:    k.Namespace,
		Name:         name,
		UID:          k.ServiceAccount.UID,
		CredentialID: tokenjwt.CredentialIDForJTI(c.ID),
	}
	if k.Secret != nil {
		if err := t.alive(t.secrets, k.Namespace, k.Secret, now); err != nil {
			return nil, err
		}
	}
	if k.Pod != nil {
		if err := t.alive(t.pods, k.Namespace, k.Pod, now); err != nil {
			return nil, err
		}
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Node != nil {
		// Of a pod's token the node is a remark, and no binding.
		if k.Pod == nil {
			if err := t.alive(t.nodes, "", k.Node, now); err != nil {
				return nil, err
			}
		}
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}
	return info, nil
}

// alive finds the very object that a token is bound to.
func (t *Tokens) alive(r *api.Resource, namespace string, bound *ref, now time.Time) error {
	obj := t.view.Get(r, api.Key{Namespace: namespace, Name: bound.Name})
	switch {
	case obj == nil:
		return errInvalidated
	case string(obj.GetUID()) != bound.UID:
		kind := strings.ToLower(r.Kind)
		return fmt.Errorf("%s UID (%s) does not match service account %s ref claim (%s)", kind, obj.GetUID(), kind, bound.UID)
	case gone(obj, now):
		return errInvalidated
	}
	return nil
}

// gone is true for an object that is being deleted and whose time to end in
// order is over.
func gone(obj api.Object, now time.Time) bool {
	deleted := obj.GetDeletionTimestamp()
	return deleted != nil && deleted.Time.Before(now.Add(-jwt.DefaultLeeway))
}

// own says whether all audiences are the API server's.
func (t *Tokens) own(audiences []string) bool {
	return !slices.ContainsFunc(audiences, func(a string) bool { return !slices.Contains(t.o.Audiences, a) })
}
