package kinds

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/internal/gonames"
)

var (
	accessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}
	volumeModes = []corev1.PersistentVolumeMode{corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem}
	reclaims    = []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain}
)

// validatePersistentVolume forgives labels in the node affinity that old has
// wrong already; old is nil on create.
func validatePersistentVolume(v, old *corev1.PersistentVolume) field.ErrorList {
	spec, path := &v.Spec, field.NewPath("spec")
	errs := validateAccessModes(spec.AccessModes, path.Child("accessModes"))
	errs = append(errs, validateVolumeCapacity(spec.Capacity, path.Child("capacity"))...)
	if at := path.Child("persistentVolumeReclaimPolicy"); !slices.Contains(reclaims, spec.PersistentVolumeReclaimPolicy) {
		errs = append(errs, field.NotSupported(at, spec.PersistentVolumeReclaimPolicy, reclaims))
	}
	errs = append(errs, validateVolumeAffinity(v, old, path.Child("nodeAffinity"))...)
	errs = append(errs, validateVolumeSource(spec, v.Name, spec.NodeAffinity != nil, path)...)
	errs = append(errs, isClassName(spec.StorageClassName, path.Child("storageClassName"))...)
	if m := spec.VolumeMode; m != nil && !slices.Contains(volumeModes, *m) {
		errs = append(errs, field.NotSupported(path.Child("volumeMode"), *m, volumeModes))
	}
	return append(errs, validateAttributesClassName(spec, path)...)
}

// isClassName accepts "", which is no class.
func isClassName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return nil
	}
	return invalidEach(path, name, apivalidation.NameIsDNSSubdomain(name, false))
}

func validateAccessModes(modes []corev1.PersistentVolumeAccessMode, path *field.Path) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	oncePod, other := false, false
	for _, m := range modes {
		known := slices.Contains(accessModes, m)
		if !known {
			errs = append(errs, field.NotSupported(path, m, accessModes))
		}
		oncePod = oncePod || m == corev1.ReadWriteOncePod
		other = other || known && m != corev1.ReadWriteOncePod
	}
	if oncePod && other {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func validateVolumeCapacity(capacity corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(capacity) == 0 {
		errs = append(errs, field.Required(path, ""))
	}
	if _, ok := capacity[corev1.ResourceStorage]; !ok || len(capacity) > 1 {
		errs = append(errs, field.NotSupported(path, capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for name, size := range capacity {
		at := path.Key(string(name))
		if size.Value() < 0 {
			errs = append(errs, field.Invalid(at, size.Value(), "must be a valid resource quantity"))
		}
		if size.Sign() <= 0 {
			errs = append(errs, field.Invalid(at, size.String(), "must be greater than zero"))
		}
	}
	return errs
}

func validateVolumeAffinity(v, old *corev1.PersistentVolume, path *field.Path) field.ErrorList {
	a, at := v.Spec.NodeAffinity, path.Child("required")
	switch {
	case a == nil:
		return nil
	case a.Required == nil:
		return field.ErrorList{field.Required(at, "must specify required node constraints")}
	case old == nil || old.Spec.NodeAffinity == nil:
		return pod.ValidateNodeSelector(a.Required, at)
	}
	return pod.ValidateNodeSelectorUpdate(a.Required, old.Spec.NodeAffinity.Required, at)
}

// validateVolumeSource checks where a volume is, and what that demands of the
// rest; reachable says that it is known from which nodes.
func validateVolumeSource(spec *corev1.PersistentVolumeSpec, name string, reachable bool, at *field.Path) field.ErrorList {
	kind, errs := pod.ValidatePersistentVolumeSource(&spec.PersistentVolumeSource, name, at)
	if kind == "local" && !reachable {
		errs = append(errs, field.Required(at.Child("nodeAffinity"), "Local volume requires node affinity"))
	}
	recycled := spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle
	if h := spec.HostPath; h != nil && recycled && path.Clean(h.Path) == "/" {
		errs = append(errs, field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	return errs
}

func validateAttributesClassName(spec *corev1.PersistentVolumeSpec, path *field.Path) field.ErrorList {
	name, at := spec.VolumeAttributesClassName, path.Child("volumeAttributesClassName")
	if name == nil {
		return nil
	}
	errs := isClassName(*name, at)
	if *name == "" {
		errs = append(errs, field.Required(at, "an empty string is disallowed"))
	}
	if spec.CSI == nil {
		errs = append(errs, field.Required(path.Child("csi"), "has to be specified when using volumeAttributesClassName"))
	}
	return errs
}

// validateMountOptions refuses the annotation where no driver ever read it.
func validateMountOptions(v *corev1.PersistentVolume) field.ErrorList {
	s := &v.Spec.PersistentVolumeSource
	reads := s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil ||
		s.Quobyte != nil || s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.AzureDisk != nil || s.PhotonPersistentDisk != nil
	if _, ok := v.Annotations[corev1.MountOptionAnnotation]; !ok || reads {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("metadata", "annotations", corev1.MountOptionAnnotation),
		"may not specify mount options for this volume type")}
}

// validatePersistentVolumeUpdate: where a volume is does not change, nor from
// which nodes it can be reached, once that is said.
func validatePersistentVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	errs := append(validatePersistentVolume(v, old), validateMountOptions(v)...)

	source, was := v.Spec.PersistentVolumeSource, old.Spec.PersistentVolumeSource
	if source.CSI != nil && was.CSI != nil && was.CSI.ControllerExpandSecretRef == nil {
		// The one thing that may be added.
		source.CSI = source.CSI.DeepCopy()
		source.CSI.ControllerExpandSecretRef = nil
	}
	if !equality.Semantic.DeepEqual(source, was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			fmt.Sprintf("spec.persistentvolumesource is immutable after creation\n%v", gonames.Diff(was, source))))
	}
	// Both of these without spec, as Kubernetes reports them.
	errs = append(errs, unchanged(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if !sameVolumeAffinity(v.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity,
			apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// stableNodeLabels are the successors of labels that will go away.
var stableNodeLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os":             corev1.LabelOSStable,
	"beta.kubernetes.io/arch":           corev1.LabelArchStable,
	corev1.LabelInstanceType:            corev1.LabelInstanceTypeStable,
}

// sameVolumeAffinity says whether an affinity is as it was, but for labels that
// were replaced by their successors. An affinity may be added to a volume.
func sameVolumeAffinity(a, old *corev1.VolumeNodeAffinity) bool {
	if old == nil {
		return true
	}
	was := old.DeepCopy()
	if a != nil && a.Required != nil && was.Required != nil && len(a.Required.NodeSelectorTerms) == len(was.Required.NodeSelectorTerms) {
		for i := range was.Required.NodeSelectorTerms {
			term := &a.Required.NodeSelectorTerms[i]
			takeStableLabels(was.Required.NodeSelectorTerms[i].MatchExpressions, term.MatchExpressions)
			takeStableLabels(was.Required.NodeSelectorTerms[i].MatchFields, term.MatchFields)
		}
	}
	return equality.Semantic.DeepEqual(a, was)
}

func takeStableLabels(was, now []corev1.NodeSelectorRequirement) {
	for i := range min(len(was), len(now)) {
		if stable, ok := stableNodeLabels[was[i].Key]; ok && stable == now[i].Key {
			was[i].Key = stable
		}
	}
}
