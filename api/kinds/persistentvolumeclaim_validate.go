package kinds

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/gonames"
)

// validateClaimUpdate lets a claim be bound, once, and a bound one be resized
// and given another class of attributes. Nothing else of it changes, so that
// quota cannot be cheated.
func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	path := field.NewPath("spec")
	errs := pod.ValidateClaimSpecUpdate(&c.Spec, &old.Spec, path)

	spec, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	syncDataSources(was) // claims from before dataSourceRef
	if was.VolumeName == "" {
		was.VolumeName = spec.VolumeName
	}
	moved := classMoved(c, old)
	if !moved {
		errs = append(errs, unchangedAnnotation(c, old, corev1.BetaStorageClassAnnotation)...)
	}
	if moved || classGiven(c, old) {
		spec.StorageClassName = was.StorageClassName
	}
	if c.Status.Phase == corev1.ClaimBound {
		if spec.Resources.Requests != nil {
			spec.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
		}
		spec.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(spec, was) {
		errs = append(errs, field.Forbidden(path,
			fmt.Sprintf("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n%v", gonames.Diff(*was, *spec))))
	}
	errs = append(errs, validateShrinking(c, old, path.Child("resources", "requests", "storage"))...)
	errs = append(errs, unchanged(c.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	return append(errs, validateAttributesClassKept(c, old, path.Child("volumeAttributesClassName"))...)
}

// classMoved says whether the class went from the annotation to the field that
// is meant for it.
func classMoved(c, old *corev1.PersistentVolumeClaim) bool {
	was, ok := old.Annotations[corev1.BetaStorageClassAnnotation]
	now, kept := c.Annotations[corev1.BetaStorageClassAnnotation]
	return ok && old.Spec.StorageClassName == nil &&
		c.Spec.StorageClassName != nil && *c.Spec.StorageClassName == was && (!kept || now == was)
}

// classGiven says whether a claim that had no class got one: the default class
// may have come after it.
func classGiven(c, old *corev1.PersistentVolumeClaim) bool {
	was, ok := old.Annotations[corev1.BetaStorageClassAnnotation]
	return c.Spec.StorageClassName != nil && old.Spec.StorageClassName == nil && (!ok || *c.Spec.StorageClassName == was)
}

func unchangedAnnotation(c, old *corev1.PersistentVolumeClaim, key string) field.ErrorList {
	if c.Annotations[key] == old.Annotations[key] {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations", key), c.Annotations[key], apivalidation.FieldImmutableErrorMsg)}
}

// validateShrinking: what was asked for can be taken back until it is there.
func validateShrinking(c, old *corev1.PersistentVolumeClaim, path *field.Path) field.ErrorList {
	size, was := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	there := old.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(was) >= 0 || size.Cmp(there) > 0 {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, "field can not be less than status.capacity")}
}

// validateAttributesClassKept: a class that the volume has cannot be taken away.
func validateAttributesClassKept(c, old *corev1.PersistentVolumeClaim, path *field.Path) field.ErrorList {
	name := c.Spec.VolumeAttributesClassName
	if old.Status.CurrentVolumeAttributesClassName == nil || ptr.Equal(name, old.Spec.VolumeAttributesClassName) || ptr.Deref(name, "") != "" {
		return nil
	}
	to := "nil"
	if name != nil {
		to = "empty string"
	}
	return field.ErrorList{field.Forbidden(path, fmt.Sprintf("update to %s is forbidden when status.currentVolumeAttributesClassName is not nil", to))}
}

// resizeStates is how far a claim has come on its way to another size.
var resizeStates = []corev1.ClaimResourceStatus{
	corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress,
	corev1.PersistentVolumeClaimNodeResizeInfeasible,
}

func validateVolumeClaimStatus(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	for name, size := range c.Status.Capacity {
		if size.Value() < 0 {
			errs = append(errs, field.Invalid(path.Child("capacity").Key(string(name)), size.Value(), "must be a valid resource quantity"))
		}
	}
	if h := c.Status.HealthStatus; h != nil {
		errs = append(errs, validateClaimHealth(h.HealthConditions, path.Child("healthStatus", "healthConditions"))...)
	}
	at := path.Child("allocatedResourceStatuses")
	for name, state := range c.Status.AllocatedResourceStatuses {
		errs = append(errs, validateClaimResource(name, at)...)
		if !slices.Contains(resizeStates, state) {
			// The name in place of the state, as Kubernetes reports it.
			errs = append(errs, field.NotSupported(at, name, slices.Sorted(slices.Values(resizeStates))))
		}
	}
	at = path.Child("allocatedResources")
	for name, size := range c.Status.AllocatedResources {
		if bad := validateClaimResource(name, at); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		if size.Value() < 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), size.Value(), "must be a valid resource quantity"))
		} else if size.Sign() < 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), size.String(), apivalidation.IsNegativeErrorMsg))
		}
	}
	return errs
}

// validateClaimHealth checks what no client can set, the feature being off, but
// a cluster may have brought along.
func validateClaimHealth(list []corev1.VolumeHealthCondition, path *field.Path) field.ErrorList {
	if len(list) > maxHealthConditions {
		return field.ErrorList{field.TooMany(path, len(list), maxHealthConditions)}
	}
	var errs field.ErrorList
	for i, c := range list {
		at := path.Index(i)
		if slices.ContainsFunc(list[:i], func(o corev1.VolumeHealthCondition) bool { return o.Status == c.Status && o.Reason == c.Reason }) {
			errs = append(errs, field.Duplicate(at, gonames.Keep(c)))
		}
		errs = append(errs, oneOf(c.Status, at.Child("status"),
			corev1.VolumeHealthDataLoss, corev1.VolumeHealthDegraded, corev1.VolumeHealthInaccessible)...)
		errs = append(errs, validateHealthWords(c.Reason, c.Message, at)...)
	}
	return errs
}

// validateClaimResource: of Kubernetes' own resources claims have storage only.
func validateClaimResource(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if msgs := validation.IsQualifiedName(string(name)); len(msgs) > 0 {
		return invalidEach(path, string(name), msgs)
	}
	if pod.IsNativeResource(name) && name != corev1.ResourceStorage {
		return field.ErrorList{field.NotSupported(path, string(name), []corev1.ResourceName{corev1.ResourceStorage})}
	}
	return nil
}
