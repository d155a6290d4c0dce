package kinds

import (
	"fmt"
	"slices"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api/pod"
)

// Limits of a scaling behavior, in seconds.
const (
	maxScalingPeriod       = 1800
	maxStabilizationWindow = 3600
)

// validateAutoscaler checks a spec; old is nil on create.
func validateAutoscaler(spec, old *autoscalingv2.HorizontalPodAutoscalerSpec) field.ErrorList {
	root := field.NewPath("spec")
	errs := nonNegative(root, counter{"minReplicas", int64(ptr.Deref(spec.MinReplicas, 0))}).MarkBeta()
	most := root.Child("maxReplicas")
	switch {
	case spec.MaxReplicas == 0:
		errs = append(errs, field.Required(most, "").MarkBeta())
	case spec.MaxReplicas < 0:
		errs = append(errs, field.Invalid(most, spec.MaxReplicas, "must be greater than or equal to 1").MarkBeta())
	}
	if spec.MinReplicas != nil && spec.MaxReplicas < *spec.MinReplicas {
		errs = append(errs, field.Invalid(most, spec.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}

	ref, at := &spec.ScaleTargetRef, root.Child("scaleTargetRef")
	errs = append(errs, validateTarget(ref, at)...)
	same := old != nil && old.ScaleTargetRef.APIVersion == ref.APIVersion && old.ScaleTargetRef.Kind == ref.Kind
	if !same {
		errs = append(errs, validateTargetVersion(ref, ref.Kind == "ReplicationController", at)...)
	}
	errs = append(errs, validateMetrics(spec, old, root.Child("metrics"))...)
	if spec.Behavior != nil {
		errs = append(errs, validateScalingRules(spec.Behavior.ScaleUp, root.Child("behavior", "scaleUp"))...)
		errs = append(errs, validateScalingRules(spec.Behavior.ScaleDown, root.Child("behavior", "scaleDown"))...)
	}
	return errs
}

func validateTarget(ref *autoscalingv2.CrossVersionObjectReference, at *field.Path) field.ErrorList {
	return append(requiredSegment(ref.Kind, at.Child("kind"), ""), requiredSegment(ref.Name, at.Child("name"), "")...)
}

// requiredSegment demands what can be part of a URL's path; missing is said of
// nothing at all.
func requiredSegment(value string, at *field.Path, missing string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, missing)}
	}
	return invalidEach(at, value, path.IsValidPathSegmentName(value))
}

// validateTargetVersion demands a group, unless it may be the core's.
func validateTargetVersion(ref *autoscalingv2.CrossVersionObjectReference, core bool, at *field.Path) field.ErrorList {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(at.Child("apiVersion"), ref.APIVersion, err.Error())}
	case !core && gv.Group == "":
		return field.ErrorList{field.Invalid(at.Child("apiVersion"), ref.APIVersion, "apiVersion must specify API group")}
	}
	return nil
}

func validateMetrics(spec, old *autoscalingv2.HorizontalPodAutoscalerSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	lenient := old != nil && hasInvalidVersion(old.Metrics)
	awake := false // there is something to measure while no pod runs
	for i := range spec.Metrics {
		m := &spec.Metrics[i]
		errs = append(errs, validateMetric(m, lenient, at.Index(i))...)
		awake = awake || m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType
	}
	if ptr.Deref(spec.MinReplicas, 1) == 0 && !awake {
		errs = append(errs, field.Forbidden(at, "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	return errs
}

// hasInvalidVersion finds objects of a version that cannot be, which were let
// in once.
func hasInvalidVersion(metrics []autoscalingv2.MetricSpec) bool {
	for i := range metrics {
		m := &metrics[i]
		if m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil && len(validateTargetVersion(&m.Object.DescribedObject, true, nil)) > 0 {
			return true
		}
	}
	return false
}

// validateMetric wants the one source that the type names. If there are more,
// only the first is looked at closely.
func validateMetric(m *autoscalingv2.MetricSpec, lenient bool, at *field.Path) field.ErrorList {
	sources := []struct {
		kind  autoscalingv2.MetricSourceType
		name  string
		set   bool
		check func(*field.Path) field.ErrorList
	}{
		{autoscalingv2.ObjectMetricSourceType, "object", m.Object != nil, func(p *field.Path) field.ErrorList { return validateObjectMetric(m.Object, lenient, p) }},
		{autoscalingv2.ExternalMetricSourceType, "external", m.External != nil, func(p *field.Path) field.ErrorList { return validateExternalMetric(m.External, p) }},
		{autoscalingv2.PodsMetricSourceType, "pods", m.Pods != nil, func(p *field.Path) field.ErrorList { return validatePodsMetric(m.Pods, p) }},
		{autoscalingv2.ResourceMetricSourceType, "resource", m.Resource != nil, func(p *field.Path) field.ErrorList { return validateResourceMetric(m.Resource, p) }},
		{autoscalingv2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(p *field.Path) field.ErrorList {
			return validateContainerMetric(m.ContainerResource, p)
		}},
	}
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric source type"))
	}
	kinds := []autoscalingv2.MetricSourceType{
		autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType, autoscalingv2.ObjectMetricSourceType,
		autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType,
	}
	if !slices.Contains(kinds, m.Type) {
		errs = append(errs, field.NotSupported(at.Child("type"), m.Type, kinds))
	}
	count := 0
	for _, s := range sources {
		if !s.set {
			continue
		}
		if count++; count == 1 {
			errs = append(errs, s.check(at.Child(s.name))...)
		}
	}
	for _, s := range sources {
		if s.kind == m.Type && !s.set {
			errs = append(errs, field.Required(at.Child(s.name), "must populate information for the given metric source"))
		}
	}
	for _, s := range sources {
		if count > 1 && s.set && s.kind != m.Type {
			errs = append(errs, field.Forbidden(at.Child(s.name), "must populate the given metric source only"))
		}
	}
	return errs
}

func validateObjectMetric(m *autoscalingv2.ObjectMetricSource, lenient bool, at *field.Path) field.ErrorList {
	errs := validateTarget(&m.DescribedObject, at.Child("describedObject"))
	if !lenient {
		errs = append(errs, validateTargetVersion(&m.DescribedObject, true, at.Child("describedObject"))...)
	}
	errs = append(errs, validateMetricID(&m.Metric, at.Child("metric"))...)
	errs = append(errs, validateMetricTarget(&m.Target, at.Child("target"))...)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func validateExternalMetric(m *autoscalingv2.ExternalMetricSource, at *field.Path) field.ErrorList {
	errs := validateMetricID(&m.Metric, at.Child("metric"))
	errs = append(errs, validateMetricTarget(&m.Target, at.Child("target"))...)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
	}
	if m.Target.Value != nil && m.Target.AverageValue != nil {
		errs = append(errs, field.Forbidden(at.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func validatePodsMetric(m *autoscalingv2.PodsMetricSource, at *field.Path) field.ErrorList {
	errs := validateMetricID(&m.Metric, at.Child("metric"))
	errs = append(errs, validateMetricTarget(&m.Target, at.Child("target"))...)
	if m.Target.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("target", "averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

func validateResourceMetric(m *autoscalingv2.ResourceMetricSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "must specify a resource name"))
	}
	return append(errs, validateShareTarget(&m.Target, at.Child("target"))...)
}

func validateContainerMetric(m *autoscalingv2.ContainerResourceMetricSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "must specify a resource name"))
	} else {
		errs = append(errs, pod.ValidateContainerResourceName(m.Name, at.Child("name"))...)
	}
	if m.Container == "" {
		errs = append(errs, field.Required(at.Child("container"), "must specify a container"))
	} else {
		errs = append(errs, isDNSLabel(m.Container, at.Child("container"))...)
	}
	return append(errs, validateShareTarget(&m.Target, at.Child("target"))...)
}

func validateShareTarget(t *autoscalingv2.MetricTarget, at *field.Path) field.ErrorList {
	errs := validateMetricTarget(t, at)
	if t.AverageUtilization == nil && t.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	}
	if t.AverageUtilization != nil && t.AverageValue != nil {
		errs = append(errs, field.Forbidden(at.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func validateMetricTarget(t *autoscalingv2.MetricTarget, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	case "":
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric target type"))
		fallthrough
	default:
		errs = append(errs, field.Invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	positive := func(name string, q *resource.Quantity) {
		if q != nil && q.Sign() != 1 {
			errs = append(errs, field.Invalid(at.Child(name), q, "must be positive"))
		}
	}
	positive("value", t.Value)
	positive("averageValue", t.AverageValue)
	if n := t.AverageUtilization; n != nil && *n < 1 {
		errs = append(errs, field.Invalid(at.Child("averageUtilization"), *n, "must be greater than 0"))
	}
	return errs
}

func validateMetricID(id *autoscalingv2.MetricIdentifier, at *field.Path) field.ErrorList {
	return requiredSegment(id.Name, at.Child("name"), "must specify a metric name")
}

func validateScalingRules(r *autoscalingv2.HPAScalingRules, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r == nil {
		return nil
	}
	switch window, p := ptr.Deref(r.StabilizationWindowSeconds, 0), at.Child("stabilizationWindowSeconds"); {
	case window < 0:
		errs = append(errs, field.Invalid(p, window, "must be greater than or equal to zero"))
	case window > maxStabilizationWindow:
		errs = append(errs, field.Invalid(p, window, fmt.Sprintf("must be less than or equal to %d", maxStabilizationWindow)))
	}
	if r.SelectPolicy != nil {
		errs = append(errs, supported(*r.SelectPolicy, at.Child("selectPolicy"),
			autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	}
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(at.Child("policies"), "must specify at least one Policy"))
	}
	for i := range r.Policies {
		errs = append(errs, validateScalingPolicy(&r.Policies[i], at.Child("policies").Index(i))...)
	}
	if r.Tolerance != nil && r.Tolerance.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("tolerance"), r.Tolerance.String(), "must be greater than or equal to 0"))
	}
	return errs
}

func validateScalingPolicy(p *autoscalingv2.HPAScalingPolicy, at *field.Path) field.ErrorList {
	errs := supported(p.Type, at.Child("type"), autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)
	if p.Value <= 0 {
		errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
	}
	if p.PeriodSeconds <= 0 {
		errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
	}
	if p.PeriodSeconds > maxScalingPeriod {
		errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, fmt.Sprintf("must be less than or equal to %d", maxScalingPeriod)))
	}
	return errs
}

func validateAutoscalerStatus(s *autoscalingv2.HorizontalPodAutoscalerStatus) field.ErrorList {
	var errs field.ErrorList
	root := field.NewPath("status")
	for i, c := range s.Conditions {
		errs = append(errs, nonNegative(root.Child("conditions").Index(i), counter{"observedGeneration", ptr.Deref(c.ObservedGeneration, 0)})...)
	}
	return append(errs, nonNegative(root,
		counter{"currentReplicas", int64(s.CurrentReplicas)},
		counter{"desiredReplicas", int64(s.DesiredReplicas)})...)
}
