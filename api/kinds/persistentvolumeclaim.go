package kinds

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func persistentVolumeClaim() *api.Resource {
	gv := corev1.SchemeGroupVersion
	doc, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return stored[corev1.PersistentVolumeClaim, *corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](gv, &api.Resource{
		Plural:     "persistentvolumeclaims",
		Singular:   "persistentvolumeclaim",
		Kind:       "PersistentVolumeClaim",
		ShortNames: []string{"pvc"},
		Namespaced: true,
		Prefix:     "persistentvolumeclaims",
		ChecksBase: true,
		Inert:      "nothing finds or makes a volume for it",
		Default:    on(defaultClaim),
		PrepareCreate: on(func(c *corev1.PersistentVolumeClaim) {
			c.Status = corev1.PersistentVolumeClaimStatus{}
			prepareDataSources(&c.Spec, nil)
		}),
		PrepareUpdate: onUpdate(func(c, old *corev1.PersistentVolumeClaim) {
			c.Status = *old.Status.DeepCopy()
			prepareDataSources(&c.Spec, &old.Spec)
		}),
		Validate: validates(func(c *corev1.PersistentVolumeClaim) field.ErrorList {
			return pod.ValidateClaimSpec(&c.Spec, field.NewPath("spec"))
		}),
		ValidateUpdate:           validatesUpdate(validateClaimUpdate),
		Warnings:                 warns(warnClaim),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Status", "string", status["phase"]),
				column("Volume", "string", doc["volumeName"]),
				column("Capacity", "string", status["capacity"]),
				column("Access Modes", "string", status["accessModes"]),
				column("StorageClass", "string", "StorageClass of the pvc"),
				column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
				ageColumn(),
				wideColumn("VolumeMode", "string", doc["volumeMode"]),
			},
			Row: cells(claimCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(c, old *corev1.PersistentVolumeClaim) {
					c.Spec = *old.Spec.DeepCopy()
					if old.Status.HealthStatus == nil { // the feature is off
						c.Status.HealthStatus = nil
					}
				}),
				ValidateUpdate: validatesUpdate(validateVolumeClaimStatus),
				ResetFields:    resets(gv, "spec"),
			},
		},
	})
}

func defaultClaim(c *corev1.PersistentVolumeClaim) {
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	pod.DefaultClaimSpec(&c.Spec)
	roundToMilli(c.Status.Capacity)
	roundToMilli(c.Status.AllocatedResources)
}

// prepareDataSources drops what a claim cannot be filled from. Once, anything
// could be written to dataSource without effect: a new claim loses it, unless it
// is of a kind that always worked. old is nil on create.
func prepareDataSources(spec, old *corev1.PersistentVolumeClaimSpec) {
	ref := spec.DataSourceRef
	if ref != nil && ptr.Deref(ref.Namespace, "") != "" && (old == nil || old.DataSourceRef == nil) {
		spec.DataSourceRef = nil // sources in other namespaces: the feature is off
	}
	had := old != nil && (old.DataSource != nil || old.DataSourceRef != nil)
	if !had && spec.DataSourceRef == nil && !isClaimOrSnapshot(spec.DataSource) {
		spec.DataSource = nil
	}
	syncDataSources(spec)
}

func isClaimOrSnapshot(source *corev1.TypedLocalObjectReference) bool {
	if source == nil {
		return false
	}
	switch ptr.Deref(source.APIGroup, "") {
	case "":
		return source.Kind == "PersistentVolumeClaim"
	case "snapshot.storage.k8s.io":
		return source.Kind == "VolumeSnapshot"
	}
	return false
}

// syncDataSources gives dataSource and its successor the same value, where one
// is set only and can be said in the other.
func syncDataSources(spec *corev1.PersistentVolumeClaimSpec) {
	source, ref := spec.DataSource, spec.DataSourceRef
	switch {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{Kind: source.Kind, Name: source.Name, APIGroup: clonePtr(source.APIGroup)}
	case source == nil && ref != nil && ptr.Deref(ref.Namespace, "") == "":
		spec.DataSource = &corev1.TypedLocalObjectReference{Kind: ref.Kind, Name: ref.Name, APIGroup: clonePtr(ref.APIGroup)}
	}
}

func clonePtr[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return ptr.To(*p)
}

func warnClaim(c, _ *corev1.PersistentVolumeClaim) []string {
	var warnings []string
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		at := field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation)
		warnings = append(warnings, fmt.Sprintf("%s: %s", at, useStorageClassName))
	}
	return append(warnings, pod.ClaimSpecWarnings(&c.Spec, field.NewPath("spec"))...)
}

// claimCells: size and modes are those of the volume, once there is one.
func claimCells(c *corev1.PersistentVolumeClaim, now time.Time) []any {
	capacity, modes := "", ""
	if c.Spec.VolumeName != "" {
		size := c.Status.Capacity[corev1.ResourceStorage]
		capacity, modes = size.String(), accessModesCell(c.Status.AccessModes)
	}
	return []any{c.Name, phaseCell(c, string(c.Status.Phase)), c.Spec.VolumeName, capacity, modes,
		storageClassOf(c, ptr.Deref(c.Spec.StorageClassName, "")), ptr.Deref(c.Spec.VolumeAttributesClassName, unsetField),
		age(c.CreationTimestamp, now), string(ptr.Deref(c.Spec.VolumeMode, unsetField))}
}
