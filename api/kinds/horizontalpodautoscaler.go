package kinds

import (
	"fmt"
	"maps"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// defaultUtilization of the CPU, in percent, is the target of an autoscaler that
// names none.
const defaultUtilization = 80

// horizontalPodAutoscaler is stored as v2; v1 is a view of it that has a single
// metric, with annotations for the rest.
func horizontalPodAutoscaler() *api.Resource {
	v1, v2 := autoscalingv1.SchemeGroupVersion, autoscalingv2.SchemeGroupVersion
	spec, status := autoscalingv2.HorizontalPodAutoscalerSpec{}.SwaggerDoc(), autoscalingv2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()
	resetsStatus, resetsSpec := resets(v2, "status"), resets(v2, "spec")
	maps.Copy(resetsStatus, resets(v1, "status"))
	maps.Copy(resetsSpec, resets(v1, "spec"))
	row := stored[autoscalingv2.HorizontalPodAutoscaler, *autoscalingv2.HorizontalPodAutoscaler, autoscalingv2.HorizontalPodAutoscalerList](v2, &api.Resource{
		Plural:     "horizontalpodautoscalers",
		Singular:   "horizontalpodautoscaler",
		Kind:       "HorizontalPodAutoscaler",
		ShortNames: []string{"hpa"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "horizontalpodautoscalers",
		Default:    on(defaultAutoscaler),
		PrepareCreate: on(func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
			h.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(h, old *autoscalingv2.HorizontalPodAutoscaler) {
			defaultAutoscaler(h)
			h.Status = *old.Status.DeepCopy()
			countChange(h, old, h.Spec, old.Spec)
		}),
		Validate: validates(func(h *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
			return validateAutoscaler(&h.Spec, nil)
		}),
		ValidateUpdate: validatesUpdate(func(h, old *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
			return validateAutoscaler(&h.Spec, &old.Spec)
		}),
		ResetFields:              resetsStatus,
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Reference", "string", spec["scaleTargetRef"]),
				column("Targets", "string", spec["metrics"]),
				column("MinPods", "string", spec["minReplicas"]),
				column("MaxPods", "string", spec["maxReplicas"]),
				column("Replicas", "string", status["currentReplicas"]),
				ageColumn(),
			},
			Row: cells(autoscalerCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:         updateVerbs,
				PrepareUpdate: onUpdate(func(h, old *autoscalingv2.HorizontalPodAutoscaler) { h.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(func(h, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
					return validateAutoscalerStatus(&h.Status)
				}),
				ResetFields: resetsSpec,
			},
		},
	})
	row.Versions = append(row.Versions, api.Version{
		GroupVersion: v1,
		New:          func() api.Object { return &autoscalingv1.HorizontalPodAutoscaler{} },
		NewList:      func() runtime.Object { return &autoscalingv1.HorizontalPodAutoscalerList{} },
		ToHub:        autoscalerToHub,
		FromHub:      autoscalerFromHub,
	})
	return row
}

// defaultAutoscaler completes both directions of the behavior as soon as there
// is one. Annotations that stand for fields are for v1 only.
func defaultAutoscaler(h *autoscalingv2.HorizontalPodAutoscaler) {
	spec := &h.Spec
	dropViewAnnotations(h)
	if spec.MinReplicas == nil {
		spec.MinReplicas = ptr.To[int32](1)
	}
	if len(spec.Metrics) == 0 {
		spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(defaultUtilization)}
	}
	if spec.Behavior == nil {
		return
	}
	const period = 15 // seconds
	all := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: period}
	four := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: period}
	spec.Behavior.ScaleUp = defaultRules(spec.Behavior.ScaleUp, ptr.To[int32](0), four, all)
	spec.Behavior.ScaleDown = defaultRules(spec.Behavior.ScaleDown, nil, all)
}

// defaultRules fills in rules, which it makes if need be. A window of nil is
// the autoscaler's own.
func defaultRules(r *autoscalingv2.HPAScalingRules, window *int32, policies ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	if r == nil {
		r = &autoscalingv2.HPAScalingRules{}
	}
	if r.StabilizationWindowSeconds == nil {
		r.StabilizationWindowSeconds = window
	}
	if r.SelectPolicy == nil {
		r.SelectPolicy = ptr.To(autoscalingv2.MaxChangePolicySelect)
	}
	if r.Policies == nil {
		r.Policies = policies
	}
	return r
}

func cpuMetric(utilization int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &utilization},
		},
	}
}

func autoscalerCells(h *autoscalingv2.HorizontalPodAutoscaler, now time.Time) []any {
	least := "<unset>"
	if h.Spec.MinReplicas != nil {
		least = fmt.Sprint(*h.Spec.MinReplicas)
	}
	return []any{h.Name, h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name, metricsCell(h), least,
		int64(h.Spec.MaxReplicas), int64(h.Status.CurrentReplicas), age(h.CreationTimestamp, now)}
}

// metricsCell shows what is and what should be of the first metrics.
func metricsCell(h *autoscalingv2.HorizontalPodAutoscaler) string {
	const shown = 2
	if len(h.Spec.Metrics) == 0 {
		return unset
	}
	var list []string
	for i := range h.Spec.Metrics {
		var current autoscalingv2.MetricStatus
		if i < len(h.Status.CurrentMetrics) {
			current = h.Status.CurrentMetrics[i]
		}
		list = append(list, metricCell(&h.Spec.Metrics[i], &current))
	}
	if len(list) > shown {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ", "), len(list)-shown)
	}
	return strings.Join(list, ", ")
}

func metricCell(spec *autoscalingv2.MetricSpec, status *autoscalingv2.MetricStatus) string {
	switch spec.Type {
	case autoscalingv2.ExternalMetricSourceType:
		if spec.External != nil {
			return amountCell(&spec.External.Target, currentOf(status.External, func(s *autoscalingv2.ExternalMetricStatus) *autoscalingv2.MetricValueStatus { return &s.Current }))
		}
	case autoscalingv2.ObjectMetricSourceType:
		if spec.Object != nil {
			return amountCell(&spec.Object.Target, currentOf(status.Object, func(s *autoscalingv2.ObjectMetricStatus) *autoscalingv2.MetricValueStatus { return &s.Current }))
		}
	case autoscalingv2.PodsMetricSourceType:
		if spec.Pods != nil {
			return averageCell(&spec.Pods.Target, currentOf(status.Pods, func(s *autoscalingv2.PodsMetricStatus) *autoscalingv2.MetricValueStatus { return &s.Current }))
		}
	case autoscalingv2.ResourceMetricSourceType:
		if spec.Resource != nil {
			current := currentOf(status.Resource, func(s *autoscalingv2.ResourceMetricStatus) *autoscalingv2.MetricValueStatus { return &s.Current })
			return shareCell(spec.Resource.Name, &spec.Resource.Target, current)
		}
	case autoscalingv2.ContainerResourceMetricSourceType:
		if spec.ContainerResource != nil {
			current := currentOf(status.ContainerResource, func(s *autoscalingv2.ContainerResourceMetricStatus) *autoscalingv2.MetricValueStatus {
				return &s.Current
			})
			return shareCell(spec.ContainerResource.Name, &spec.ContainerResource.Target, current)
		}
	}
	return "<unknown type>"
}

// currentOf is the value of a status, nil where there is no status yet.
func currentOf[T any](status *T, value func(*T) *autoscalingv2.MetricValueStatus) *autoscalingv2.MetricValueStatus {
	if status == nil {
		return nil
	}
	return value(status)
}

// amountCell shows an amount, of all pods or of each on average.
func amountCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	is := unknown
	if target.AverageValue != nil {
		if current != nil && current.AverageValue != nil {
			is = current.AverageValue.String()
		}
		return fmt.Sprintf("%s/%s (avg)", is, target.AverageValue)
	}
	if current != nil {
		is = current.Value.String()
	}
	return fmt.Sprintf("%s/%s", is, target.Value)
}

// averageCell is what each pod has on average.
func averageCell(target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	is := unknown
	if current != nil {
		is = current.AverageValue.String()
	}
	return fmt.Sprintf("%s/%s", is, target.AverageValue)
}

// shareCell shows the use of a resource, as an amount or in percent of what the
// pods request.
func shareCell(name corev1.ResourceName, target *autoscalingv2.MetricTarget, current *autoscalingv2.MetricValueStatus) string {
	if target.AverageValue != nil {
		return fmt.Sprintf("%s: %s", name, averageCell(target, current))
	}
	is, wanted := unknown, "<auto>"
	if current != nil && current.AverageUtilization != nil {
		is = fmt.Sprintf("%d%%", *current.AverageUtilization)
	}
	if target.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *target.AverageUtilization)
	}
	return fmt.Sprintf("%s: %s/%s", name, is, wanted)
}
