package kinds

import (
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func configMap() *api.Resource {
	return stored[corev1.ConfigMap, *corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:                   "configmaps",
		Singular:                 "configmap",
		Kind:                     "ConfigMap",
		ShortNames:               []string{"cm"},
		Namespaced:               true,
		Prefix:                   "configmaps",
		ChecksBase:               true,
		Validate:                 validates(validateConfigMap),
		ValidateUpdate:           validatesUpdate(validateConfigMapUpdate),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Data", "string", corev1.ConfigMap{}.SwaggerDoc()["data"]),
				ageColumn(),
			},
			Row: cells(func(c *corev1.ConfigMap, now time.Time) []any {
				return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), age(c.CreationTimestamp, now)}
			}),
		},
	})
}

// validateConfigMap holds keys to the form of file names and the whole to
// 1 MiB, the limit shared with secrets.
func validateConfigMap(c *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for key, value := range c.Data {
		errs = append(errs, configMapKey(key, field.NewPath("data"))...)
		if _, both := c.BinaryData[key]; both {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
		size += len(value)
	}
	for key, value := range c.BinaryData {
		errs = append(errs, configMapKey(key, field.NewPath("binaryData"))...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

func configMapKey(key string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path.Key(key), key, msg))
	}
	return errs
}

func validateConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if isTrue(old.Immutable) {
		errs = append(errs, staysImmutable(c.Immutable)...)
		// Kubernetes makes an absent map an empty one, of these two.
		if len(c.Data)+len(old.Data) > 0 && !reflect.DeepEqual(c.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), immutableData))
		}
		if !reflect.DeepEqual(c.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), immutableData))
		}
	}
	return append(errs, validateConfigMap(c)...)
}

// immutableData is why an immutable config map or secret may not change.
const immutableData = "field is immutable when `immutable` is set"

func staysImmutable(immutable *bool) field.ErrorList {
	if isTrue(immutable) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("immutable"), immutableData)}
}

func isTrue(b *bool) bool { return b != nil && *b }
