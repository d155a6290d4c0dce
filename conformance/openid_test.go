package conformance

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// "Service account issuer discovery": who has a token of a service account can
// find out who signed it, and verify it without asking the API.
func TestIssuerDiscovery(t *testing.T) {
	ns := namespace(t)
	create(t, "serviceaccounts", ns, "metadata: {name: robot}")
	text := tokenOf(t, ns, "robot", "{}").Status.Token
	robot := withToken(t, text)

	var provider struct {
		Issuer  string   `json:"issuer"`
		JWKSURI string   `json:"jwks_uri"`
		Types   []string `json:"response_types_supported"`
	}
	found := robot.do(t, call{path: "/.well-known/openid-configuration"})
	if err := json.Unmarshal(found.body, &provider); err != nil || found.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s: %v", found.code, found.body, err)
	}
	path, ok := strings.CutSuffix(provider.JWKSURI, "/openid/v1/jwks")
	if !ok || !strings.HasPrefix(path, "https://") || provider.Issuer != "https://kubernetes.default.svc.cluster.local" || len(provider.Types) == 0 {
		t.Errorf("the provider is %s", found.body)
	}

	var keys jose.JSONWebKeySet
	found = robot.do(t, call{path: "/openid/v1/jwks"})
	if err := json.Unmarshal(found.body, &keys); err != nil || found.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%d %s: %v", found.code, found.body, err)
	}
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.Claims
	if err := token.Claims(&keys, &claims); err != nil || claims.Issuer != provider.Issuer || claims.Subject != "system:serviceaccount:"+ns+":robot" {
		t.Errorf("the token says %+v, %v", claims, err)
	}
	for _, key := range keys.Keys {
		if !key.IsPublic() {
			t.Error("a private key is shown")
		}
	}
}
