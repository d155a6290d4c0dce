// Package jwt believes tokens of others: JSON Web Tokens that the issuers of an
// AuthenticationConfiguration have signed (OpenID Connect). What a token must
// say and whom it makes of its bearer is the configuration's; how that is found
// out is the library's. The configuration may change while tokens are checked.
package jwt

import (
	"cmp"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/utils/ptr"
)

var codecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
}()

// Parse reads an AuthenticationConfiguration (apiserver.config.k8s.io/v1, and
// its beta and alpha), strictly. Whether it makes sense, Validate says.
func Parse(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	if len(data) == 0 {
		return nil, errors.New("empty config data")
	}
	obj, err := runtime.Decode(codecs.UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthenticationConfiguration, got %T", obj)
	}
	return c, nil
}

// Validate compiles all expressions and gives every fault with its field. Tokens
// of own, the server's own issuers, are nobody else's to issue.
func Validate(c *apiserver.AuthenticationConfiguration, own []string) error {
	return validation.ValidateAuthenticationConfiguration(cel.NewDefaultCompiler(), c, own).ToAggregate()
}

// ValidateNext is Validate of a configuration that takes the place of another
// one: who is let in without a credential cannot change.
func ValidateNext(next, first *apiserver.AuthenticationConfiguration, own []string) error {
	errs := validation.ValidateAuthenticationConfiguration(cel.NewDefaultCompiler(), next, own)
	if !sameAnonymous(next.Anonymous, first.Anonymous) {
		errs = append(errs, field.Forbidden(field.NewPath("anonymous"), "changed from initial configuration file"))
	}
	return errs.ToAggregate()
}

func sameAnonymous(a, b *apiserver.AnonymousAuthConfig) bool {
	if a == nil || b == nil {
		return a == b
	}
	if a.Enabled != b.Enabled || len(a.Conditions) != len(b.Conditions) {
		return false
	}
	for i := range a.Conditions {
		if a.Conditions[i] != b.Conditions[i] {
			return false
		}
	}
	return true
}

// Flags say the same of a single issuer, as kube-apiserver's --oidc-* flags do.
type Flags struct {
	IssuerURL, ClientID string
	// CA is the issuer's authority in PEM; "": those that the host trusts.
	CA string
	// UsernameClaim is the claim with the name, "sub" when it is ""; UsernamePrefix
	// is what comes before it: for "" the issuer and a "#", unless the claim is
	// "email"; for "-" nothing.
	UsernameClaim, UsernamePrefix string
	// GroupsClaim is the claim with the groups; "": none.
	GroupsClaim, GroupsPrefix string
	// RequiredClaims must be in a token with these values.
	RequiredClaims map[string]string
}

// Config is what the flags mean.
func (f Flags) Config() apiserver.JWTAuthenticator {
	prefix, claim := f.UsernamePrefix, cmp.Or(f.UsernameClaim, "sub")
	switch {
	case prefix == "" && claim != "email":
		prefix = f.IssuerURL + "#"
	case prefix == "-":
		prefix = ""
	}
	j := apiserver.JWTAuthenticator{
		Issuer: apiserver.Issuer{URL: f.IssuerURL, Audiences: []string{f.ClientID}, CertificateAuthority: f.CA},
		ClaimMappings: apiserver.ClaimMappings{
			Username: apiserver.PrefixedClaimOrExpression{Prefix: ptr.To(prefix), Claim: claim},
		},
	}
	if f.GroupsClaim != "" {
		j.ClaimMappings.Groups = apiserver.PrefixedClaimOrExpression{Prefix: ptr.To(f.GroupsPrefix), Claim: f.GroupsClaim}
	}
	for claim, value := range f.RequiredClaims {
		j.ClaimValidationRules = append(j.ClaimValidationRules, apiserver.ClaimValidationRule{Claim: claim, RequiredValue: value})
	}
	return j
}
