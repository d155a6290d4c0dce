package kinds

import (
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func lease() *api.Resource {
	return stored[coordinationv1.Lease, *coordinationv1.Lease, coordinationv1.LeaseList](coordinationv1.SchemeGroupVersion, &api.Resource{
		Plural:              "leases",
		Singular:            "lease",
		Kind:                "Lease",
		Namespaced:          true,
		Prefix:              "leases",
		PrepareCreate:       on(func(l *coordinationv1.Lease) { dropCoordination(l, &coordinationv1.Lease{}) }),
		PrepareUpdate:       onUpdate(dropCoordination),
		Validate:            validates(validateLease),
		ValidateUpdate:      validatesUpdate(func(l, _ *coordinationv1.Lease) field.ErrorList { return validateLease(l) }),
		AnyFinalizer:        true,
		AllowCreateOnUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
				ageColumn(),
			},
			Row: cells(func(l *coordinationv1.Lease, now time.Time) []any {
				return []any{l.Name, ptr.Deref(l.Spec.HolderIdentity, ""), age(l.CreationTimestamp, now)}
			}),
		},
	})
}

// dropCoordination removes what is behind the gate CoordinatedLeaderElection,
// unless the stored object has it.
func dropCoordination(l, old *coordinationv1.Lease) {
	if old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}

// leaseStrategies are those without a domain, which are Kubernetes' own.
var leaseStrategies = []coordinationv1.CoordinatedLeaseStrategy{coordinationv1.OldestEmulationVersion}

func validateLease(l *coordinationv1.Lease) field.ErrorList {
	var errs field.ErrorList
	spec, path := &l.Spec, field.NewPath("spec")
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := spec.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	if s := spec.Strategy; s != nil {
		// The doubled name is the path that Kubernetes reports.
		at := path.Child("strategy", "strategy")
		if strings.Contains(string(*s), "/") {
			for _, msg := range validation.IsQualifiedName(string(*s)) {
				errs = append(errs, field.Invalid(at, *s, msg))
			}
		} else if !slices.Contains(leaseStrategies, *s) {
			errs = append(errs, field.NotSupported(at, *s, leaseStrategies))
		}
	}
	if ptr.Deref(spec.PreferredHolder, "") != "" && ptr.Deref(spec.Strategy, "") == "" {
		errs = append(errs, field.Forbidden(path.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}
