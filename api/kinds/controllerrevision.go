package kinds

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func controllerRevision() *api.Resource {
	return stored[appsv1.ControllerRevision, *appsv1.ControllerRevision, appsv1.ControllerRevisionList](appsv1.SchemeGroupVersion, &api.Resource{
		Plural:     "controllerrevisions",
		Singular:   "controllerrevision",
		Kind:       "ControllerRevision",
		Namespaced: true,
		Prefix:     "controllerrevisions",
		ChecksBase: true,
		Indexes:    []api.Index{orphanIndex()},
		Validate: validates(func(r *appsv1.ControllerRevision) field.ErrorList {
			return append(nonNegative(nil, counter{"revision", r.Revision}), validateRevisionData(r.Data.Raw)...)
		}),
		ValidateUpdate: validatesUpdate(func(r, old *appsv1.ControllerRevision) field.ErrorList {
			return append(nonNegative(nil, counter{"revision", r.Revision}), unchanged(r.Data, old.Data, field.NewPath("data"))...)
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Controller", "string", "Controller of the object"),
				column("Revision", "string", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
				ageColumn(),
			},
			Row: cells(func(r *appsv1.ControllerRevision, now time.Time) []any {
				return []any{r.Name, controllerCell(r), r.Revision, age(r.CreationTimestamp, now)}
			}),
		},
	})
}

// validateRevisionData demands a JSON object: the state of its owner.
func validateRevisionData(raw []byte) field.ErrorList {
	path := field.NewPath("data")
	if raw == nil {
		return field.ErrorList{field.Required(path, "data is mandatory")}
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", fmt.Sprintf("error parsing data: %v", err))}
	}
	switch value.(type) {
	case map[string]any:
		return nil
	case nil:
		return field.ErrorList{field.Required(path, "data is mandatory")}
	}
	return field.ErrorList{field.Required(path, "data must be a valid JSON object")}
}

// controllerCell names the controller with its kind: statefulset.apps/web.
func controllerCell(obj metav1.Object) string {
	ref := metav1.GetControllerOfNoCopy(obj)
	if ref == nil {
		return unset
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return unknown
	}
	kind := gv.WithKind(ref.Kind).GroupKind()
	return strings.ToLower(kind.String()) + "/" + ref.Name
}
