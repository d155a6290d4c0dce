package kinds

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// podTemplate is a kind for other people's controllers: in Kubernetes, too,
// nothing acts on it.
func podTemplate() *api.Resource {
	return stored[corev1.PodTemplate, *corev1.PodTemplate, corev1.PodTemplateList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:     "podtemplates",
		Singular:   "podtemplate",
		Kind:       "PodTemplate",
		Namespaced: true,
		Prefix:     "podtemplates",
		Default:    on(func(t *corev1.PodTemplate) { pod.DefaultTemplate(&t.Template) }),
		PrepareCreate: on(func(t *corev1.PodTemplate) {
			pod.PrepareTemplate(&t.Template, nil)
			t.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(t, old *corev1.PodTemplate) {
			pod.DefaultTemplate(&t.Template)
			pod.PrepareTemplate(&t.Template, &old.Template)
			countChange(t, old, t.Template, old.Template)
		}),
		Validate: validates(func(t *corev1.PodTemplate) field.ErrorList {
			return validateTemplate(&t.Template, nil, field.NewPath("template"))
		}),
		ValidateUpdate: validatesUpdate(func(t, old *corev1.PodTemplate) field.ErrorList {
			return validateTemplate(&t.Template, &old.Template, field.NewPath("template"))
		}),
		Warnings: warns(func(t, old *corev1.PodTemplate) []string {
			if old != nil && t.Generation == old.Generation {
				return nil
			}
			return pod.TemplateWarnings(&t.Template, field.NewPath("template"))
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Containers", "string", "Names of each container in the template."),
				column("Images", "string", "Images referenced by each container in the template."),
				column("Pod Labels", "string", "The labels for the pod template."),
			},
			Row: cells(func(t *corev1.PodTemplate, _ time.Time) []any {
				names, images := containerCells(&t.Template)
				return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
			}),
		},
	})
}
