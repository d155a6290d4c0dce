package kinds

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

func csiNode() *api.Resource {
	gv := storagev1.SchemeGroupVersion
	return stored[storagev1.CSINode, *storagev1.CSINode, storagev1.CSINodeList](gv, &api.Resource{
		Plural:        "csinodes",
		Singular:      "csinode",
		Kind:          "CSINode",
		Prefix:        "csinodes",
		ChecksBase:    true,
		Inert:         noVolumeDrivers,
		PrepareCreate: on(func(n *storagev1.CSINode) { n.Status = storagev1.CSINodeStatus{} }),
		PrepareUpdate: onUpdate(func(n, old *storagev1.CSINode) { n.Status = *old.Status.DeepCopy() }),
		Validate:      validates(validateCSINode),
		ValidateUpdate: validatesUpdate(func(n, old *storagev1.CSINode) field.ErrorList {
			return append(validateCSINode(n), validateCSINodeDrivers(n, old)...)
		}),
		ResetFields: resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node"),
				ageColumn(),
			},
			Row: cells(func(n *storagev1.CSINode, now time.Time) []any {
				return []any{n.Name, int64(len(n.Spec.Drivers)), age(n.CreationTimestamp, now)}
			}),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(n, old *storagev1.CSINode) {
					n.Spec = *old.Spec.DeepCopy()
					keepMeta(n, old)
					if len(old.Status.StorageHealth) == 0 { // the feature is off
						n.Status.StorageHealth = nil
					}
				}),
				ValidateUpdate: validatesUpdate(func(n, _ *storagev1.CSINode) field.ErrorList {
					return validateStorageHealth(n.Status.StorageHealth, field.NewPath("status", "storageHealth"))
				}),
				ResetFields: resets(gv, "metadata", "spec"),
			},
		},
	})
}

const (
	maxNodeID           = 256
	maxHealthConditions = 16
	maxHealthReason     = 256
	maxHealthMessage    = 1024
)

func validateCSINode(n *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	drivers := n.Spec.Drivers
	for i := range drivers {
		d, at := &drivers[i], field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, pod.ValidateDriverName(d.Name, at.Child("name"))...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(at.Child("nodeID"), ""))
		}
		if len(d.NodeID) > maxNodeID {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
		}
		if a := d.Allocatable; a != nil && a.Count != nil {
			errs = append(errs, nonNegative(at.Child("allocatable"), counter{"count", int64(*a.Count)})...)
		}
		if slices.ContainsFunc(drivers[:i], func(o storagev1.CSINodeDriver) bool { return o.Name == d.Name }) {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		for k, key := range d.TopologyKeys {
			if key == "" {
				errs = append(errs, field.Required(at, ""))
			}
			if slices.Contains(d.TopologyKeys[:k], key) {
				errs = append(errs, field.Duplicate(at, key))
			}
			errs = append(errs, isQualifiedName(key, at)...)
		}
	}
	return errs
}

// validateCSINodeDrivers: a driver that is registered changes nothing but how
// many volumes it can take. It may be removed and registered anew.
func validateCSINodeDrivers(n, old *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	for _, was := range old.Spec.Drivers {
		for _, d := range n.Spec.Drivers {
			if was.Name == d.Name {
				was.Allocatable, d.Allocatable = nil, nil
				errs = append(errs, unchanged(&d, &was, field.NewPath("spec", "drivers"))...)
			}
		}
	}
	return errs
}

func validateStorageHealth(list []storagev1.StorageHealth, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		h, at := &list[i], path.Index(i)
		if slices.ContainsFunc(list[:i], func(o storagev1.StorageHealth) bool { return o.Name == h.Name }) {
			errs = append(errs, field.Duplicate(at, h.Name))
		}
		errs = append(errs, pod.ValidateDriverName(h.Name, at.Child("name"))...)
		conditions := at.Child("healthConditions")
		if len(h.HealthConditions) > maxHealthConditions {
			errs = append(errs, field.TooMany(conditions, len(h.HealthConditions), maxHealthConditions))
			continue
		}
		for k := range h.HealthConditions {
			errs = append(errs, validateHealthCondition(&h.HealthConditions[k], conditions.Index(k))...)
		}
	}
	return errs
}

// validateHealthWords checks what a condition of a volume's health says to
// machines and to people.
func validateHealthWords(reason, message string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if at := path.Child("reason"); reason == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, invalidEach(at, reason, metav1validation.IsValidConditionReason(reason))...)
		if len(reason) > maxHealthReason {
			errs = append(errs, field.TooLong(at, reason, maxHealthReason))
		}
	}
	if len(message) > maxHealthMessage {
		errs = append(errs, field.TooLong(path.Child("message"), message, maxHealthMessage))
	}
	return errs
}

func validateHealthCondition(c *storagev1.StorageHealthCondition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	states := []storagev1.StorageHealthStatusType{storagev1.StorageDegraded, storagev1.StorageUnreachable}
	if !slices.Contains(states, c.Status) {
		errs = append(errs, field.NotSupported(path.Child("status"), c.Status, states))
	}
	errs = append(errs, validateHealthWords(c.Reason, c.Message, path)...)
	if c.AccessMode != nil && !slices.Contains(accessModes, *c.AccessMode) {
		errs = append(errs, field.NotSupported(path.Child("accessMode"), *c.AccessMode, accessModes))
	}
	if c.VolumeMode != nil && !slices.Contains(volumeModes, *c.VolumeMode) {
		errs = append(errs, field.NotSupported(path.Child("volumeMode"), *c.VolumeMode,
			[]corev1.PersistentVolumeMode{corev1.PersistentVolumeFilesystem, corev1.PersistentVolumeBlock}))
	}
	return errs
}

func csiStorageCapacity() *api.Resource {
	return stored[storagev1.CSIStorageCapacity, *storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](storagev1.SchemeGroupVersion, &api.Resource{
		Plural:     "csistoragecapacities",
		Singular:   "csistoragecapacity",
		Kind:       "CSIStorageCapacity",
		Namespaced: true,
		Prefix:     "csistoragecapacities",
		ChecksBase: true,
		Inert:      noVolumeDrivers,
		Validate: validates(func(c *storagev1.CSIStorageCapacity) field.ErrorList {
			return validateStorageCapacity(c, metav1validation.LabelSelectorValidationOptions{})
		}),
		ValidateUpdate: validatesUpdate(validateStorageCapacityUpdate),
		Warnings:       warns(warnStorageCapacity),
		// Kubernetes has other columns for it as well, and does not use them.
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Created At", "date", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]),
			},
			Row: cells(func(c *storagev1.CSIStorageCapacity, _ time.Time) []any {
				return []any{c.Name, c.CreationTimestamp.UTC().Format(time.RFC3339)}
			}),
		},
	})
}

func validateStorageCapacity(c *storagev1.CSIStorageCapacity, labels metav1validation.LabelSelectorValidationOptions) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(c.NodeTopology, labels, field.NewPath("nodeTopology"))
	errs = append(errs, invalidEach(field.NewPath("storageClassName"), c.StorageClassName, apivalidation.NameIsDNSSubdomain(c.StorageClassName, false))...)
	if c.Capacity != nil && c.Capacity.Sign() < 0 {
		errs = append(errs, field.Invalid(field.NewPath("capacity"), c.Capacity.String(), apivalidation.IsNegativeErrorMsg))
	}
	return errs
}

// validateStorageCapacityUpdate lets the answer change, but not the question.
func validateStorageCapacityUpdate(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	var labels metav1validation.LabelSelectorValidationOptions
	labels.AllowInvalidLabelValueInSelector = len(metav1validation.ValidateLabelSelector(old.NodeTopology, labels, nil)) > 0
	errs := validateStorageCapacity(c, labels)
	errs = append(errs, unchanged(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
	return append(errs, unchanged(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
}

func warnStorageCapacity(c, _ *storagev1.CSIStorageCapacity) []string {
	var warnings []string
	at := field.NewPath("nodeTopology")
	selector := ptr.Deref(c.NodeTopology, metav1.LabelSelector{})
	for i, r := range selector.MatchExpressions {
		if text, ok := pod.OldNodeLabel(r.Key); ok {
			warnings = append(warnings, at.Child("matchExpressions").Index(i).Child("key").String()+": "+r.Key+" is "+text)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		if text, ok := pod.OldNodeLabel(key); ok {
			warnings = append(warnings, at.Child("matchLabels", key).String()+": "+text)
		}
	}
	return warnings
}
