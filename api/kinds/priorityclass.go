package kinds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// Priorities of Kubernetes, and the two classes above all others that every
// cluster has.
const (
	HighestUserPriority   = int32(1_000_000_000)
	SystemClusterCritical = "system-cluster-critical"
	SystemNodeCritical    = "system-node-critical"

	systemPriorityPrefix = "system-"
	systemPriority       = 2 * HighestUserPriority
)

// SystemPriorityClasses makes the two predefined classes. The caller owns them.
func SystemPriorityClasses() []*schedulingv1.PriorityClass {
	return []*schedulingv1.PriorityClass{
		{
			ObjectMeta:  metav1.ObjectMeta{Name: SystemNodeCritical},
			Value:       systemPriority + 1000,
			Description: "Used for system critical pods that must not be moved from their current node.",
		},
		{
			ObjectMeta:  metav1.ObjectMeta{Name: SystemClusterCritical},
			Value:       systemPriority,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
		},
	}
}

func priorityClass() *api.Resource {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return stored[schedulingv1.PriorityClass, *schedulingv1.PriorityClass, schedulingv1.PriorityClassList](schedulingv1.SchemeGroupVersion, &api.Resource{
		Plural:        "priorityclasses",
		Singular:      "priorityclass",
		Kind:          "PriorityClass",
		ShortNames:    []string{"pc"},
		Prefix:        "priorityclasses",
		Default:       on(defaultPriorityClass),
		PrepareCreate: on(func(pc *schedulingv1.PriorityClass) { pc.Generation = 1 }),
		Validate:      validates(validatePriorityClass),
		ValidateUpdate: validatesUpdate(func(pc, old *schedulingv1.PriorityClass) field.ErrorList {
			var errs field.ErrorList
			if pc.Value != old.Value {
				errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
			}
			return append(errs, apivalidation.ValidateImmutableField(pc.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
		}),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Value", "integer", doc["value"]),
				column("Global-Default", "boolean", doc["globalDefault"]),
				ageColumn(),
				column("PreemptionPolicy", "string", doc["preemptionPolicy"]),
			},
			Row: cells(func(pc *schedulingv1.PriorityClass, now time.Time) []any {
				return []any{pc.Name, int64(pc.Value), pc.GlobalDefault, age(pc.CreationTimestamp, now), string(ptr.Deref(pc.PreemptionPolicy, ""))}
			}),
		},
	})
}

func defaultPriorityClass(pc *schedulingv1.PriorityClass) {
	if pc.PreemptionPolicy == nil {
		pc.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority)
	}
}

func validatePriorityClass(pc *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(pc.Name, systemPriorityPrefix) {
		if err := checkSystemPriorityClass(pc); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				"priority class names with '"+systemPriorityPrefix+"' prefix are reserved for system use only. error: "+err.Error()))
		}
	} else if pc.Value > HighestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"),
			fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUserPriority)))
	}
	if pc.PreemptionPolicy != nil {
		path := field.NewPath("preemptionPolicy")
		allowed := []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}
		switch {
		case *pc.PreemptionPolicy == "":
			errs = append(errs, field.Required(path, ""))
		case !slices.Contains(allowed, *pc.PreemptionPolicy):
			errs = append(errs, field.NotSupported(path, *pc.PreemptionPolicy, allowed))
		}
	}
	return errs
}

// checkSystemPriorityClass says how pc differs from the predefined class of its
// name.
func checkSystemPriorityClass(pc *schedulingv1.PriorityClass) error {
	for _, known := range SystemPriorityClasses() {
		switch {
		case known.Name != pc.Name:
		case known.Value != pc.Value:
			return fmt.Errorf("value of %v PriorityClass must be %v", known.Name, known.Value)
		case known.GlobalDefault != pc.GlobalDefault:
			return fmt.Errorf("globalDefault of %v PriorityClass must be %v", known.Name, known.GlobalDefault)
		default:
			return nil
		}
	}
	return fmt.Errorf("%v is not a known system priority class", pc.Name)
}
