package kinds

import (
	"math"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func volumeAttachment() *api.Resource {
	gv := storagev1.SchemeGroupVersion
	doc := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	attacher := column("Attacher", "string", doc["attacher"])
	attacher.Format = "name"
	return stored[storagev1.VolumeAttachment, *storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](gv, &api.Resource{
		Plural:     "volumeattachments",
		Singular:   "volumeattachment",
		Kind:       "VolumeAttachment",
		Prefix:     "volumeattachments",
		ChecksBase: true,
		Inert:      noVolumeDrivers,
		Default: on(func(a *storagev1.VolumeAttachment) {
			if spec := a.Spec.Source.InlineVolumeSpec; spec != nil {
				roundToMilli(spec.Capacity)
				pod.DefaultPersistentVolumeSource(&spec.PersistentVolumeSource)
			}
		}),
		PrepareCreate: on(func(a *storagev1.VolumeAttachment) { a.Status = storagev1.VolumeAttachmentStatus{} }),
		PrepareUpdate: onUpdate(func(a, old *storagev1.VolumeAttachment) { a.Status = *old.Status.DeepCopy() }),
		Validate: validates(func(a *storagev1.VolumeAttachment) field.ErrorList {
			return append(validateAttacher(a.Spec.Attacher, field.NewPath("spec", "attacher")).MarkBeta(), validateVolumeAttachment(a)...)
		}),
		ValidateUpdate: validatesUpdate(validateVolumeAttachmentUpdate),
		ResetFields:    resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				attacher,
				column("PV", "string", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
				column("Node", "string", doc["nodeName"]),
				column("Attached", "boolean", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
				ageColumn(),
			},
			Row: cells(func(a *storagev1.VolumeAttachment, now time.Time) []any {
				return []any{a.Name, a.Spec.Attacher, ptr.Deref(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName,
					a.Status.Attached, age(a.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(a, old *storagev1.VolumeAttachment) {
					a.Spec = *old.Spec.DeepCopy()
					keepMeta(a, old)
				}),
				ValidateUpdate: validatesUpdate(validateVolumeAttachmentUpdate),
				ResetFields:    resets(gv, "metadata", "spec"),
			},
		},
	})
}

const (
	maxAttacher            = 63 // characters
	maxAttachmentMetadata  = 256 << 10
	maxVolumeErrorMessage  = 1024
	persistentVolumeNameAt = "persistentVolumeName"
)

// validateAttacher is for new objects. What is the same rule elsewhere has other
// words here.
func validateAttacher(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := invalidEach(path, name, content.IsDNS1123SubdomainCaseless(name))
	if utf8.RuneCountInString(name) > maxAttacher {
		errs = append(errs, field.TooLongCharacters(path, name, maxAttacher))
	}
	return errs
}

// validateVolumeAttachmentUpdate also checks updates of the status alone.
func validateVolumeAttachmentUpdate(a, old *storagev1.VolumeAttachment) field.ErrorList {
	errs := pod.ValidateDriverName(a.Spec.Attacher, field.NewPath("spec", "attacher"))
	errs = append(errs, validateVolumeAttachment(a)...)
	return append(errs, immutable(a.Spec, old.Spec, field.NewPath("spec")).MarkBeta()...)
}

func validateVolumeAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	spec, path := &a.Spec, field.NewPath("spec")
	errs := validateAttachmentSource(&spec.Source, path.Child("source"))
	errs = append(errs, invalidEach(path.Child("nodeName"), spec.NodeName, apivalidation.NameIsDNSSubdomain(spec.NodeName, false))...)

	status := field.NewPath("status")
	if bytesOf(a.Status.AttachmentMetadata) > maxAttachmentMetadata {
		errs = append(errs, field.TooLong(status.Child("attachmentMetadata"), "", maxAttachmentMetadata))
	}
	errs = append(errs, validateVolumeError(a.Status.AttachError, status.Child("attachError"))...)
	errs = append(errs, validateVolumeError(a.Status.DetachError, status.Child("detachError"))...)
	if name := spec.Source.PersistentVolumeName; name != nil {
		errs = append(errs, invalidEach(path.Child("source", persistentVolumeNameAt), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	return errs
}

func validateAttachmentSource(s *storagev1.VolumeAttachmentSource, path *field.Path) field.ErrorList {
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	inline, name := s.InlineVolumeSpec, s.PersistentVolumeName
	switch {
	case inline == nil && name == nil:
		return field.ErrorList{field.Required(path, one)}
	case inline != nil && name != nil:
		return field.ErrorList{field.Forbidden(path, one)}
	case inline != nil:
		return validateInlineVolume(inline, path.Child("inlineVolumeSpec"))
	case *name == "":
		return field.ErrorList{field.Required(path.Child(persistentVolumeNameAt), "must specify non empty persistentVolumeName")}
	}
	return nil
}

// validateInlineVolume checks the volume of a pod, which was once of another
// kind and is attached by its successor's driver: a volume without an object.
func validateInlineVolume(spec *corev1.PersistentVolumeSpec, path *field.Path) field.ErrorList {
	const context = " in the context of inline volumes"
	var errs field.ErrorList
	forbidden := func(name, why string, set bool) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), why+context))
		}
	}
	const none = "may not be specified"
	forbidden("claimRef", none, spec.ClaimRef != nil)
	forbidden("capacity", none, len(spec.Capacity) > 0)
	if spec.CSI == nil {
		errs = append(errs, field.Required(path.Child("csi"), "has to be specified"+context))
	}
	errs = append(errs, validateAccessModes(spec.AccessModes, path.Child("accessModes"))...)
	policy := spec.PersistentVolumeReclaimPolicy
	forbidden("persistentVolumeReclaimPolicy", "may only be Retain", policy != "" && policy != corev1.PersistentVolumeReclaimRetain)
	forbidden("nodeAffinity", none, spec.NodeAffinity != nil)
	errs = append(errs, validateVolumeSource(spec, "", false, path)...)
	forbidden("storageClassName", none, spec.StorageClassName != "")
	forbidden("volumeMode", "may not specify volumeMode other than Filesystem",
		ptr.Deref(spec.VolumeMode, corev1.PersistentVolumeFilesystem) != corev1.PersistentVolumeFilesystem)
	return errs
}

func validateVolumeError(e *storagev1.VolumeError, path *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxVolumeErrorMessage {
		errs = append(errs, field.TooLong(path.Child("message"), "", maxVolumeErrorMessage))
	}
	if code := e.ErrorCode; code != nil && *code < 0 {
		errs = append(errs, field.Invalid(path.Child("errorCode"), *code, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
