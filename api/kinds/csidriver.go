package kinds

import (
	"slices"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// noVolumeDrivers is what all kinds of CSI lack.
const noVolumeDrivers = "no node runs volume drivers"

func csiDriver() *api.Resource {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return stored[storagev1.CSIDriver, *storagev1.CSIDriver, storagev1.CSIDriverList](storagev1.SchemeGroupVersion, &api.Resource{
		Plural:   "csidrivers",
		Singular: "csidriver",
		Kind:     "CSIDriver",
		Prefix:   "csidrivers",
		Inert:    noVolumeDrivers,
		Default:  on(defaultCSIDriver),
		PrepareUpdate: onUpdate(func(d, old *storagev1.CSIDriver) {
			defaultCSIDriver(d)
			countChange(d, old, d.Spec, old.Spec)
		}),
		Validate:       validates(validateCSIDriver),
		ValidateUpdate: validatesUpdate(validateCSIDriverUpdate),
		Warnings:       warns(warnCSIDriver),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("AttachRequired", "boolean", doc["attachRequired"]),
				column("PodInfoOnMount", "boolean", doc["podInfoOnMount"]),
				column("StorageCapacity", "boolean", doc["storageCapacity"]),
				column("TokenRequests", "string", doc["tokenRequests"]),
				column("RequiresRepublish", "boolean", doc["requiresRepublish"]),
				column("Modes", "string", doc["volumeLifecycleModes"]),
				ageColumn(),
			},
			Row: cells(csiDriverCells),
		},
	})
}

func defaultCSIDriver(d *storagev1.CSIDriver) {
	spec := &d.Spec
	for _, flag := range []struct {
		field **bool
		value bool
	}{
		{&spec.AttachRequired, true}, {&spec.PodInfoOnMount, false}, {&spec.StorageCapacity, false},
		{&spec.RequiresRepublish, false}, {&spec.SELinuxMount, false}, {&spec.PreventPodSchedulingIfMissing, false},
	} {
		if *flag.field == nil {
			*flag.field = ptr.To(flag.value)
		}
	}
	if spec.FSGroupPolicy == nil {
		spec.FSGroupPolicy = ptr.To(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(spec.VolumeLifecycleModes) == 0 {
		spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

const (
	minAllocatablePeriod = 10      // seconds
	minTokenLifetime     = 600     // seconds
	maxTokenLifetime     = 1 << 32 // seconds
)

func validateCSIDriver(d *storagev1.CSIDriver) field.ErrorList {
	var errs field.ErrorList
	spec, path := &d.Spec, field.NewPath("spec")
	if p, known := spec.FSGroupPolicy, []storagev1.FSGroupPolicy{
		storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy,
	}; p != nil && !slices.Contains(known, *p) {
		errs = append(errs, field.NotSupported(path.Child("fsGroupPolicy"), *p, known))
	}
	errs = append(errs, validateTokenRequests(spec.TokenRequests, path.Child("tokenRequests"))...)
	modes := []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral, storagev1.VolumeLifecyclePersistent}
	for _, mode := range spec.VolumeLifecycleModes {
		if !slices.Contains(modes, mode) {
			errs = append(errs, field.NotSupported(path.Child("volumeLifecycleModes"), mode,
				[]storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}))
		}
	}
	if p := spec.NodeAllocatableUpdatePeriodSeconds; p != nil && *p < minAllocatablePeriod {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *p, "must be greater than or equal to 10 seconds"))
	}
	if in := spec.ServiceAccountTokenInSecrets; in != nil && len(spec.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(path.Child("serviceAccountTokenInSecrets"), *in, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

// validateTokenRequests wants an audience once at most, the API server's ("")
// among them.
func validateTokenRequests(requests []storagev1.TokenRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, r := range requests {
		at := path.Index(i)
		if slices.ContainsFunc(requests[:i], func(o storagev1.TokenRequest) bool { return o.Audience == r.Audience }) {
			errs = append(errs, field.Duplicate(at.Child("audience"), r.Audience))
			continue
		}
		switch lifetime, at := r.ExpirationSeconds, at.Child("expirationSeconds"); {
		case lifetime == nil:
		case *lifetime < minTokenLifetime:
			errs = append(errs, field.Invalid(at, *lifetime, "may not specify a duration less than 10 minutes"))
		case *lifetime > maxTokenLifetime:
			errs = append(errs, field.Invalid(at, *lifetime, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

func validateCSIDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	errs := validateCSIDriver(d)
	// Kubernetes reports attachRequired by this name.
	errs = append(errs, unchanged(d.Spec.AttachRequired, old.Spec.AttachRequired, field.NewPath("spec", "attachedRequired"))...)
	return append(errs, unchanged(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, field.NewPath("spec", "volumeLifecycleModes"))...)
}

// warnCSIDriver speaks up when tokens are first asked for, or others.
func warnCSIDriver(d, old *storagev1.CSIDriver) []string {
	if len(d.Spec.TokenRequests) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil ||
		old != nil && equality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests) {
		return nil
	}
	return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
}

func csiDriverCells(d *storagev1.CSIDriver, now time.Time) []any {
	spec := &d.Spec
	tokens := unsetField
	if spec.TokenRequests != nil {
		var audiences []string
		for _, r := range spec.TokenRequests {
			audiences = append(audiences, r.Audience)
		}
		tokens = strings.Join(audiences, ",")
	}
	var modes []string
	for _, mode := range spec.VolumeLifecycleModes {
		modes = append(modes, string(mode))
	}
	return []any{d.Name, ptr.Deref(spec.AttachRequired, true), isTrue(spec.PodInfoOnMount), isTrue(spec.StorageCapacity),
		tokens, isTrue(spec.RequiresRepublish), orDefault(strings.Join(modes, ","), unset), age(d.CreationTimestamp, now)}
}
