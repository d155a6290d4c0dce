package daemon

import (
	"fmt"
	"net/http"

	"hansa.dev/hansa/apiserver/auth/token"
)

// jwksPath is where the keys are by which tokens of service accounts are
// verified.
const jwksPath = "/openid/v1/jwks"

// openIDPaths tell who signs the tokens of service accounts, and with which
// keys, so that others can verify them (OpenID Connect Discovery 1.0). Keys do
// not change while the process lives.
func openIDPaths(tokens *token.Tokens, jwksURI string) (map[string]http.Handler, error) {
	provider, err := tokens.Discovery(jwksURI)
	if err != nil {
		return nil, fmt.Errorf("describe the issuer of tokens: %w", err)
	}
	keys, err := tokens.JWKS()
	if err != nil {
		return nil, fmt.Errorf("list the keys of tokens: %w", err)
	}
	return map[string]http.Handler{
		"/.well-known/openid-configuration": document("application/json", provider),
		jwksPath:                            document("application/jwk-set+json", keys),
	}, nil
}

// document serves bytes that do not change, and may be kept for an hour.
func document(contentType string, data []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Write(data) //nolint:errcheck // the client has gone
	})
}
