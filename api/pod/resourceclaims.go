package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// claimNames are the names under which containers may use the pod's claims.
func claimNames(claims []corev1.PodResourceClaim) sets.Set[string] {
	names := sets.New[string]()
	for _, claim := range claims {
		if claim.Name != "" {
			names.Insert(claim.Name)
		}
	}
	return names
}

func (c *checker) podResourceClaims(at *field.Path, claims []corev1.PodResourceClaim, meta *metav1.ObjectMeta) {
	names := sets.New[string]()
	for i, claim := range claims {
		p := at.Index(i)
		if hasMirrorAnnotation(meta) {
			c.forbidden(field.NewPath(""), "static pods do not support resource claims")
			continue
		}
		switch name := p.Child("name"); {
		case claim.Name == "":
			c.required(name, "")
		case names.Has(claim.Name):
			c.duplicate(name, claim.Name)
		default:
			c.dnsLabel(name, claim.Name)
			names.Insert(claim.Name)
		}
		switch {
		case claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil:
			c.invalid(p, claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		case claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil:
			c.invalid(p, claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		if n := claim.ResourceClaimName; n != nil {
			c.reasons(p.Child("resourceClaimName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
		}
		if n := claim.ResourceClaimTemplateName; n != nil {
			c.reasons(p.Child("resourceClaimTemplateName"), *n, apivalidation.NameIsDNSSubdomain(*n, false))
		}
	}
}

// usedClaims checks which of the pod's claims a container uses: each one once,
// as a whole or by single requests.
func (c *checker) usedClaims(at *field.Path, used []corev1.ResourceClaim, known sets.Set[string]) {
	seen := sets.New[string]()
	for i, claim := range used {
		p := at.Index(i)
		if claim.Name == "" {
			c.required(p, "")
			continue
		}
		c.claimUsedOnce(p, claim, seen)
		if known.Has(claim.Name) {
			continue
		}
		e := field.NotFound(p, claim.Name)
		e.Detail = "must be one of the names in pod.spec.resourceClaims"
		if known.Len() == 0 {
			e.Detail += " which is empty"
		} else {
			e.Detail += ": " + strings.Join(sets.List(known), ", ")
		}
		c.add(e)
	}
}

// claimUsedOnce keeps in seen "claim" and "claim/request".
func (c *checker) claimUsedOnce(at *field.Path, claim corev1.ResourceClaim, seen sets.Set[string]) {
	if seen.Has(claim.Name) {
		c.duplicate(at, claim.Name)
		return
	}
	key := claim.Name
	if claim.Request != "" {
		c.dnsLabel(at.Child("request"), claim.Request)
		key += "/" + claim.Request
	}
	if seen.Has(key) {
		c.duplicate(at, key)
	} else if claim.Request == "" {
		for other := range seen {
			if name, _, partial := strings.Cut(other, "/"); partial && name == claim.Name {
				c.duplicate(at, claim.Name)
			}
		}
	}
	seen.Insert(key)
}
