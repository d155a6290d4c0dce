package kinds

import (
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func flowSchema() *api.Resource {
	gv := flowcontrolv1.SchemeGroupVersion
	doc := flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()
	return stored[flowcontrolv1.FlowSchema, *flowcontrolv1.FlowSchema, flowcontrolv1.FlowSchemaList](gv, &api.Resource{
		Plural:     "flowschemas",
		Singular:   "flowschema",
		Kind:       "FlowSchema",
		Prefix:     "flowschemas",
		ChecksBase: true,
		Default:    on(defaultFlowSchema),
		PrepareCreate: on(func(f *flowcontrolv1.FlowSchema) {
			f.Status = flowcontrolv1.FlowSchemaStatus{}
			f.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(f, old *flowcontrolv1.FlowSchema) {
			defaultFlowSchema(f)
			f.Status = *old.Status.DeepCopy()
			countChange(f, old, f.Spec, old.Spec)
		}),
		Validate:                 validates(validateFlowSchema),
		ValidateUpdate:           validatesUpdate(func(f, _ *flowcontrolv1.FlowSchema) field.ErrorList { return validateFlowSchema(f) }),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("PriorityLevel", "string", flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"]),
				column("MatchingPrecedence", "string", doc["matchingPrecedence"]),
				column("DistinguisherMethod", "string", doc["distinguisherMethod"]),
				ageColumn(),
				column("MissingPL", "string", "references a broken or non-existent PriorityLevelConfiguration"),
			},
			Row: cells(flowSchemaCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(f, old *flowcontrolv1.FlowSchema) {
					f.Spec = *old.Spec.DeepCopy()
					keepMeta(f, old)
				}),
				ValidateUpdate: validatesUpdate(func(f, _ *flowcontrolv1.FlowSchema) field.ErrorList { return validateFlowSchemaStatus(f) }),
				ResetFields:    resets(gv, "metadata", "spec"),
			},
		},
	})
}

const defaultMatchingPrecedence = 1000

func defaultFlowSchema(f *flowcontrolv1.FlowSchema) {
	if f.Spec.MatchingPrecedence == 0 {
		f.Spec.MatchingPrecedence = defaultMatchingPrecedence
	}
}

func flowSchemaCells(f *flowcontrolv1.FlowSchema, now time.Time) []any {
	method, dangling := unset, "?"
	if f.Spec.DistinguisherMethod != nil {
		method = string(f.Spec.DistinguisherMethod.Type)
	}
	for _, c := range f.Status.Conditions {
		if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
			dangling = string(c.Status)
			break
		}
	}
	return []any{f.Name, f.Spec.PriorityLevelConfiguration.Name, int64(f.Spec.MatchingPrecedence), method, age(f.CreationTimestamp, now), dangling}
}
