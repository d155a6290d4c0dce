// Package signer decides who may act for a signer of certificates: approve or
// sign in its name, or attest that certificates are its own. A signer is a
// resource of the authorizer only, named DOMAIN/PATH; who may act for DOMAIN/*
// may act for all signers of the domain.
package signer

import (
	"context"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Allows says whether u may do verb ("approve", "sign", "attest") for a signer.
func Allows(ctx context.Context, z authorizer.UnconditionalAuthorizer, u user.Info, verb, name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	for _, signer := range []string{name, domain + "/*"} {
		decision, _, _ := z.Authorize(ctx, authorizer.AttributesRecord{
			User:            u,
			Verb:            verb,
			Name:            signer,
			APIGroup:        certificatesv1.GroupName,
			APIVersion:      "*",
			Resource:        "signers",
			ResourceRequest: true,
		})
		if decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}
