package kinds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// unsetField is what the columns of volumes show for a field that is not set.
const unsetField = "<unset>"

func persistentVolume() *api.Resource {
	gv := corev1.SchemeGroupVersion
	doc := corev1.PersistentVolumeSpec{}.SwaggerDoc()
	status := corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return stored[corev1.PersistentVolume, *corev1.PersistentVolume, corev1.PersistentVolumeList](gv, &api.Resource{
		Plural:        "persistentvolumes",
		Singular:      "persistentvolume",
		Kind:          "PersistentVolume",
		ShortNames:    []string{"pv"},
		Prefix:        "persistentvolumes",
		ChecksBase:    true,
		Inert:         "nothing binds it to a claim, and no node mounts it",
		Default:       on(defaultPersistentVolume),
		PrepareCreate: on(preparePersistentVolume),
		PrepareUpdate: onUpdate(func(v, old *corev1.PersistentVolume) { v.Status = *old.Status.DeepCopy() }),
		Validate: validates(func(v *corev1.PersistentVolume) field.ErrorList {
			return append(validatePersistentVolume(v, nil), validateMountOptions(v)...)
		}),
		ValidateUpdate:           validatesUpdate(validatePersistentVolumeUpdate),
		Warnings:                 warns(warnPersistentVolume),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Capacity", "string", doc["capacity"]),
				column("Access Modes", "string", doc["accessModes"]),
				column("Reclaim Policy", "string", doc["persistentVolumeReclaimPolicy"]),
				column("Status", "string", status["phase"]),
				column("Claim", "string", doc["claimRef"]),
				column("StorageClass", "string", "StorageClass of the pv"),
				column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
				column("Reason", "string", status["reason"]),
				ageColumn(),
				wideColumn("VolumeMode", "string", doc["volumeMode"]),
			},
			Row: cells(persistentVolumeCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				Stamp:         stamps(stampPhase),
				PrepareUpdate: onUpdate(func(v, old *corev1.PersistentVolume) { v.Spec = *old.Spec.DeepCopy() }),
				// Whoever writes the status of a volume is trusted with it.
				ValidateUpdate: validatesUpdate(func(_, _ *corev1.PersistentVolume) field.ErrorList { return nil }),
				ResetFields:    resets(gv, "spec"),
			},
		},
	})
}

func defaultPersistentVolume(v *corev1.PersistentVolume) {
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	if v.Spec.PersistentVolumeReclaimPolicy == "" {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if v.Spec.VolumeMode == nil {
		v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	roundToMilli(v.Spec.Capacity)
	pod.DefaultPersistentVolumeSource(&v.Spec.PersistentVolumeSource)
}

// preparePersistentVolume: a volume has been pending since it was created.
func preparePersistentVolume(v *corev1.PersistentVolume) {
	v.Status = corev1.PersistentVolumeStatus{
		Phase:                   corev1.VolumePending,
		LastPhaseTransitionTime: v.CreationTimestamp.DeepCopy(),
	}
}

// stampPhase keeps the time of the last change of phase, unless the writer knows
// better.
func stampPhase(v, old *corev1.PersistentVolume, now metav1.Time) {
	at, was := &v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	switch {
	case v.Status.Phase == old.Status.Phase:
		if *at == nil {
			*at = was.DeepCopy()
		}
	case *at == nil || (*at).Equal(was):
		*at = &now
	}
}

// retiredVolumes are sources that no node knows any more.
var retiredVolumes = []struct {
	name, text string
	set        func(*corev1.PersistentVolumeSource) bool
}{
	{"cephfs", "deprecated in v1.28, non-functional in v1.31+", func(s *corev1.PersistentVolumeSource) bool { return s.CephFS != nil }},
	{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", func(s *corev1.PersistentVolumeSource) bool { return s.PhotonPersistentDisk != nil }},
	{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", func(s *corev1.PersistentVolumeSource) bool { return s.ScaleIO != nil }},
	{"storageOS", "deprecated in v1.22, non-functional in v1.25+", func(s *corev1.PersistentVolumeSource) bool { return s.StorageOS != nil }},
	{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", func(s *corev1.PersistentVolumeSource) bool { return s.Glusterfs != nil }},
	{"rbd", "deprecated in v1.28, non-functional in v1.31+", func(s *corev1.PersistentVolumeSource) bool { return s.RBD != nil }},
}

const useStorageClassName = `deprecated since v1.8; use "storageClassName" attribute instead`

func warnPersistentVolume(v, _ *corev1.PersistentVolume) []string {
	var warnings []string
	annotations, spec := field.NewPath("metadata", "annotations"), field.NewPath("spec")
	for _, old := range []struct{ key, text string }{
		{corev1.BetaStorageClassAnnotation, useStorageClassName},
		{corev1.MountOptionAnnotation, `deprecated since v1.31; use "mountOptions" attribute instead`},
	} {
		if _, ok := v.Annotations[old.key]; ok {
			warnings = append(warnings, fmt.Sprintf("%s: %s", annotations.Key(old.key), old.text))
		}
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		warnings = append(warnings, fmt.Sprintf("%s: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
			spec.Child("persistentVolumeReclaimPolicy")))
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		terms := spec.Child("nodeAffinity", "required", "nodeSelectorTerms")
		for i := range a.Required.NodeSelectorTerms {
			warnings = append(warnings, pod.NodeTermWarnings(&a.Required.NodeSelectorTerms[i], terms.Index(i))...)
		}
	}
	for _, r := range retiredVolumes {
		if r.set(&v.Spec.PersistentVolumeSource) {
			warnings = append(warnings, fmt.Sprintf("%s: %s", spec.Child(r.name), r.text))
		}
	}
	return warnings
}

func persistentVolumeCells(v *corev1.PersistentVolume, now time.Time) []any {
	claim := ""
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	return []any{v.Name, size.String(), accessModesCell(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy),
		phaseCell(v, string(v.Status.Phase)), claim, storageClassOf(v, v.Spec.StorageClassName),
		ptr.Deref(v.Spec.VolumeAttributesClassName, unsetField), v.Status.Reason,
		age(v.CreationTimestamp, now), string(ptr.Deref(v.Spec.VolumeMode, unsetField))}
}

// phaseCell shows the phase of what is not being deleted.
func phaseCell(obj api.Object, phase string) string {
	if obj.GetDeletionTimestamp() != nil {
		return "Terminating"
	}
	return phase
}

// storageClassOf is the class of a volume or a claim: the annotation that once
// named it goes first.
func storageClassOf(obj api.Object, class string) string {
	if name, ok := obj.GetAnnotations()[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return class
}

// accessModesCell shows the modes that are there, each once, by their initials.
func accessModesCell(modes []corev1.PersistentVolumeAccessMode) string {
	var shown []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if slices.Contains(modes, m.mode) {
			shown = append(shown, m.short)
		}
	}
	return strings.Join(shown, ",")
}
