// Package rules has what the rows of kinds cannot say by themselves: what
// depends on who writes, on the time, or on the namespace of an object.
package rules

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/auth/signer"
	"hansa.dev/hansa/apiserver/request"
)

// View is what the rules need of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// New gives the rules by the names of request.HookName. z decides who may sign,
// who may write which part of a claim's status, and whose parameters a policy may
// show.
func New(reg *api.Registry, view View, z authorizer.UnconditionalAuthorizer) map[string]request.Rule {
	c := &claims{view: view, namespaces: reg.Must("", "namespaces"), authorizer: z}
	p := &policies{registry: reg, view: view, authorizer: z}
	const admission = "." + admissionregistrationv1.GroupName
	return map[string]request.Rule{
		"validatingadmissionpolicies" + admission:             {Validate: p.policy},
		"validatingadmissionpolicies" + admission + "/status": {Validate: typeChecking},
		"validatingadmissionpolicybindings" + admission:       {Validate: p.binding},
		"mutatingadmissionpolicies" + admission:               {Validate: p.policy},
		"mutatingadmissionpolicybindings" + admission:         {Validate: p.binding},
		"certificatesigningrequests.certificates.k8s.io":      {Prepare: setRequester},
		"podcertificaterequests.certificates.k8s.io/status":   {Validate: signs(z)},
		"resourceclaims.resource.k8s.io":                      {Validate: c.adminAccess},
		"resourceclaimtemplates.resource.k8s.io":              {Validate: c.adminAccess},
		"resourceclaims.resource.k8s.io/status":               {Validate: c.status},
	}
}

func setRequester(info *request.Info, obj api.Object) {
	if r, ok := obj.(*certificatesv1.CertificateSigningRequest); ok {
		u := info.User
		kinds.SetRequester(r, u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra())
	}
}

// signs lets only its signer write the status of a PodCertificateRequest.
func signs(z authorizer.UnconditionalAuthorizer) func(context.Context, *request.Info, api.Object, api.Object, field.ErrorList) field.ErrorList {
	return func(ctx context.Context, info *request.Info, obj, old api.Object, found field.ErrorList) field.ErrorList {
		r, was := obj.(*certificatesv1.PodCertificateRequest), old.(*certificatesv1.PodCertificateRequest)
		if len(found) > 0 || equality.Semantic.DeepEqual(r.Status, was.Status) {
			return found
		}
		if name := was.Spec.SignerName; !signer.Allows(ctx, z, info.User, "sign", name) {
			return field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
				fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", info.User.GetName(), name))}
		}
		return nil
	}
}
