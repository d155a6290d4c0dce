package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// keys sign with the first signer and verify with all of them and with the public
// keys given beside them. It is never written to.
type keys struct {
	signer     jose.Signer
	public     []jose.JSONWebKey
	algorithms []jose.SignatureAlgorithm
}

func newKeys(signers []crypto.Signer, others []crypto.PublicKey) (*keys, error) {
	if len(signers) == 0 {
		return nil, errors.New("service-account tokens need a key")
	}
	k := &keys{}
	public := make([]crypto.PublicKey, len(signers), len(signers)+len(others))
	for i, signer := range signers {
		public[i] = signer.Public()
	}
	for i, key := range append(public, others...) {
		algorithm, err := algorithmOf(key)
		if err != nil {
			return nil, fmt.Errorf("service-account key %d: %w", i, err)
		}
		id, err := keyID(key)
		if err != nil {
			return nil, fmt.Errorf("service-account key %d: %w", i, err)
		}
		if i == 0 {
			private := jose.JSONWebKey{Key: signers[0], KeyID: id, Algorithm: string(algorithm), Use: "sig"}
			if k.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: private}, nil); err != nil {
				return nil, fmt.Errorf("service-account key %d: %w", i, err)
			}
		}
		if slices.ContainsFunc(k.public, func(had jose.JSONWebKey) bool { return had.KeyID == id }) {
			continue // the same key, given as the other half of a signer
		}
		k.public = append(k.public, jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(algorithm), Use: "sig"})
		k.algorithms = append(k.algorithms, algorithm)
	}
	return k, nil
}

func algorithmOf(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		return jose.RS256, nil
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return jose.ES256, nil
		case 384:
			return jose.ES384, nil
		case 521:
			return jose.ES512, nil
		}
		return "", fmt.Errorf("curve %s cannot be used", key.Curve.Params().Name)
	}
	return "", fmt.Errorf("%T cannot be used; RSA and ECDSA can", public)
}

// keyID derives, as Kubernetes does, a name from a public key that does not
// lead back to it.
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

func (k *keys) sign(c any) (string, error) {
	return jwt.Signed(k.signer).Claims(c).Serialize()
}

// verify checks the signature with the key that the token names, or with each
// when it names none. It is nil without an error for what is not a signed JWT.
func (k *keys) verify(token string) (*claims, error) {
	parsed, err := jwt.ParseSigned(token, k.algorithms)
	if err != nil {
		return nil, nil
	}
	var id string
	for _, header := range parsed.Headers {
		id = header.KeyID
	}
	var errs []error
	for _, key := range k.public {
		if id != "" && id != key.KeyID {
			continue
		}
		c := &claims{}
		if err := parsed.Claims(key.Key, c); err != nil {
			errs = append(errs, err)
			continue
		}
		return c, nil
	}
	if len(errs) == 0 {
		return nil, errors.New("invalid signature, no keys found")
	}
	return nil, utilerrors.NewAggregate(errs)
}

// JWKS is the set of public keys that verify tokens (RFC 7517), served at
// /openid/v1/jwks.
func (t *Tokens) JWKS() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: t.keys.public})
}

// Discovery is the OpenID provider document, served at
// /.well-known/openid-configuration; jwksURI is where the keys are.
func (t *Tokens) Discovery(jwksURI string) ([]byte, error) {
	return json.Marshal(struct {
		Issuer        string                    `json:"issuer"`
		JWKSURI       string                    `json:"jwks_uri"`
		ResponseTypes []string                  `json:"response_types_supported"`
		SubjectTypes  []string                  `json:"subject_types_supported"`
		Algorithms    []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
	}{t.o.Issuer, jwksURI, []string{"id_token"}, []string{"public"}, slices.Compact(slices.Sorted(slices.Values(t.keys.algorithms)))})
}
