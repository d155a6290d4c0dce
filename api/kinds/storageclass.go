package kinds

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// Annotations of the class that claims without a class get.
const (
	defaultClassAnnotation     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultClassAnnotation = "storageclass.beta.kubernetes.io/is-default-class"
)

func storageClass() *api.Resource {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return stored[storagev1.StorageClass, *storagev1.StorageClass, storagev1.StorageClassList](storagev1.SchemeGroupVersion, &api.Resource{
		Plural:     "storageclasses",
		Singular:   "storageclass",
		Kind:       "StorageClass",
		ShortNames: []string{"sc"},
		Prefix:     "storageclasses",
		ChecksBase: true,
		Inert:      "nothing makes volumes by it",
		Default:    on(defaultStorageClass),
		Validate:   validates(validateStorageClass),
		ValidateUpdate: validatesUpdate(func(c, old *storagev1.StorageClass) field.ErrorList {
			errs := validateStorageClass(c)
			errs = append(errs, immutable(c.Provisioner, old.Provisioner, field.NewPath("provisioner")).MarkBeta()...)
			errs = append(errs, immutable(c.Parameters, old.Parameters, field.NewPath("parameters")).MarkBeta()...)
			errs = append(errs, immutable(c.ReclaimPolicy, old.ReclaimPolicy, field.NewPath("reclaimPolicy")).MarkBeta()...)
			return append(errs, immutable(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode")).MarkBeta()...)
		}),
		Warnings:                 warns(warnStorageClass),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Provisioner", "string", doc["provisioner"]),
				column("ReclaimPolicy", "string", doc["reclaimPolicy"]),
				column("VolumeBindingMode", "string", doc["volumeBindingMode"]),
				column("AllowVolumeExpansion", "string", doc["allowVolumeExpansion"]),
				ageColumn(),
			},
			Row: cells(storageClassCells),
			Among: func(all []api.Object) func(api.Object, time.Time) []any {
				chosen := defaultStorageClassOf(all)
				return cells(func(c *storagev1.StorageClass, now time.Time) []any {
					row := storageClassCells(c, now)
					if c == chosen {
						row[0] = c.Name + " (default)"
					}
					return row
				})
			},
		},
	})
}

func defaultStorageClass(c *storagev1.StorageClass) {
	if c.ReclaimPolicy == nil {
		c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimDelete)
	}
	if c.VolumeBindingMode == nil {
		c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate)
	}
}

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := validateProvisioner(c.Provisioner, field.NewPath("provisioner"))
	if c.Provisioner == "" {
		errs.MarkBeta()
	}
	errs = append(errs, validateParameters(c.Parameters, field.NewPath("parameters"))...)
	policies := []corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain}
	if p := ptr.Deref(c.ReclaimPolicy, ""); p != "" && !slices.Contains(policies, p) {
		errs = append(errs, field.NotSupported(field.NewPath("reclaimPolicy"), p, policies))
	}
	modes := []storagev1.VolumeBindingMode{storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer}
	if at := field.NewPath("volumeBindingMode"); c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(at, ""))
	} else if !slices.Contains(modes, *c.VolumeBindingMode) {
		errs = append(errs, field.NotSupported(at, *c.VolumeBindingMode, modes))
	}
	return append(errs, validateTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

// validateProvisioner checks the name of a driver, which may have capitals.
func validateProvisioner(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return isQualifiedName(strings.ToLower(name), path)
}

const (
	maxParameters      = 512
	maxParametersBytes = 256 << 10
)

// validateParameters limits what a driver is told.
func validateParameters(parameters map[string]string, path *field.Path) field.ErrorList {
	if len(parameters) > maxParameters {
		return field.ErrorList{field.TooLong(path, "", maxParameters)}
	}
	var errs field.ErrorList
	if _, ok := parameters[""]; ok {
		errs = append(errs, field.Invalid(path, "", "field can not be empty."))
	}
	if bytesOf(parameters) > maxParametersBytes {
		errs = append(errs, field.TooLong(path, "", maxParametersBytes))
	}
	return errs
}

func bytesOf(m map[string]string) int {
	n := 0
	for key, value := range m {
		n += len(key) + len(value)
	}
	return n
}

// validateTopologies refuses terms that say the same. As in Kubernetes a term
// that says nothing is a duplicate from the start.
func validateTopologies(terms []corev1.TopologySelectorTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := []map[string]sets.Set[string]{nil}
	for i, term := range terms {
		at := path.Index(i).Child("matchLabelExpressions")
		values := map[string]sets.Set[string]{}
		for k, r := range term.MatchLabelExpressions {
			errs = append(errs, validateTopologyLabel(&r, at.Index(k))...)
			if _, ok := values[r.Key]; ok {
				errs = append(errs, field.Duplicate(at.Index(k).Child("key"), r.Key))
			}
			values[r.Key] = sets.New(r.Values...)
		}
		if slices.ContainsFunc(seen, func(o map[string]sets.Set[string]) bool { return equality.Semantic.DeepEqual(values, o) }) {
			errs = append(errs, field.Duplicate(at, ""))
		}
		seen = append(seen, values)
	}
	return errs
}

func validateTopologyLabel(r *corev1.TopologySelectorLabelRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("values")
	if len(r.Values) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	for i, value := range r.Values {
		if slices.Contains(r.Values[:i], value) {
			errs = append(errs, field.Duplicate(at.Index(i), value))
		}
	}
	return append(errs, metav1validation.ValidateLabelName(r.Key, path.Child("key"))...)
}

func warnStorageClass(c, _ *storagev1.StorageClass) []string {
	var warnings []string
	for i, term := range c.AllowedTopologies {
		at := field.NewPath("allowedTopologies").Index(i).Child("matchLabelExpressions")
		for k, r := range term.MatchLabelExpressions {
			if text, ok := pod.OldNodeLabel(r.Key); ok {
				warnings = append(warnings, at.Index(k).Child("key").String()+": "+text)
			}
		}
	}
	return warnings
}

func storageClassCells(c *storagev1.StorageClass, now time.Time) []any {
	return []any{c.Name, c.Provisioner, string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
		string(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)), isTrue(c.AllowVolumeExpansion), age(c.CreationTimestamp, now)}
}

// defaultStorageClassOf is the class that claims without a class get: of those
// that say they are it, the youngest.
func defaultStorageClassOf(all []api.Object) *storagev1.StorageClass {
	var chosen *storagev1.StorageClass
	for _, obj := range all {
		c := obj.(*storagev1.StorageClass)
		switch {
		case c.Annotations[defaultClassAnnotation] != "true" && c.Annotations[betaDefaultClassAnnotation] != "true":
		case chosen == nil,
			c.CreationTimestamp.After(chosen.CreationTimestamp.Time),
			c.CreationTimestamp.Equal(&chosen.CreationTimestamp) && c.Name < chosen.Name:
			chosen = c
		}
	}
	return chosen
}

func volumeAttributesClass() *api.Resource {
	return stored[storagev1.VolumeAttributesClass, *storagev1.VolumeAttributesClass, storagev1.VolumeAttributesClassList](storagev1.SchemeGroupVersion, &api.Resource{
		Plural:     "volumeattributesclasses",
		Singular:   "volumeattributesclass",
		Kind:       "VolumeAttributesClass",
		ShortNames: []string{"vac"},
		Prefix:     "volumeattributesclasses",
		ChecksBase: true,
		Inert:      "nothing changes volumes by it",
		Validate:   validates(validateVolumeAttributesClass),
		ValidateUpdate: validatesUpdate(func(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
			var errs field.ErrorList
			if c.DriverName != old.DriverName {
				errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
			}
			if !maps.Equal(c.Parameters, old.Parameters) {
				errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
			}
			return append(errs, validateVolumeAttributesClass(c)...)
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("DriverName", "string", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]),
				ageColumn(),
			},
			Row: cells(func(c *storagev1.VolumeAttributesClass, now time.Time) []any {
				return []any{c.Name, c.DriverName, age(c.CreationTimestamp, now)}
			}),
		},
	})
}

func validateVolumeAttributesClass(c *storagev1.VolumeAttributesClass) field.ErrorList {
	errs := validateProvisioner(c.DriverName, field.NewPath("driverName"))
	at := field.NewPath("parameters")
	errs = append(errs, validateParameters(c.Parameters, at)...)
	if len(c.Parameters) == 0 {
		errs = append(errs, field.Required(at, "must contain at least one key/value pair"))
	}
	return errs
}
