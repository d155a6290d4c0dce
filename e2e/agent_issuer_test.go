package e2e

import (
	"encoding/json"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// "Service account issuer discovery": with its token and the cluster's authority,
// both of them mounted, a pod finds who signs tokens and by which keys; these verify
// the token of another pod.
func issuerDiscovery(s *space) {
	ask := func(pod, path string, into any) {
		s.t.Helper()
		got := s.output(pod, `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/testimage:1, args: [ask, `+path+`]}
`)
		body, ok := strings.CutPrefix(got, "200 OK\n")
		if !ok {
			s.t.Fatalf("%s: %s", path, got)
		}
		if err := json.Unmarshal([]byte(body), into); err != nil {
			s.t.Fatalf("%s: %v in %s", path, err, body)
		}
	}
	var provider struct {
		Issuer  string   `json:"issuer"`
		JWKSURI string   `json:"jwks_uri"`
		Types   []string `json:"response_types_supported"`
	}
	ask("provider", "/.well-known/openid-configuration", &provider)
	if provider.Issuer != "https://kubernetes.default.svc.cluster.local" || !strings.HasSuffix(provider.JWKSURI, "/openid/v1/jwks") || len(provider.Types) == 0 {
		s.t.Errorf("the provider is %+v", provider)
	}
	var keys jose.JSONWebKeySet
	ask("keys", "/openid/v1/jwks", &keys)
	text := s.output("token", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /var/run/secrets/kubernetes.io/serviceaccount/token]}
`)
	token, err := jwt.ParseSigned(strings.TrimSpace(text), []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		s.t.Fatal(err)
	}
	var claims jwt.Claims
	if err := token.Claims(&keys, &claims); err != nil || claims.Issuer != provider.Issuer || claims.Subject != "system:serviceaccount:"+s.name+":default" {
		s.t.Errorf("the token says %+v, %v", claims, err)
	}
}
