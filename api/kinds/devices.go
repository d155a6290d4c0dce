package kinds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"hansa.dev/hansa/internal/gonames"
)

// What is common to the kinds of resource.k8s.io. Kubernetes checks them twice:
// by rules that are declared on the types, and by code. Of what both find, the
// declared rule has the word, and it goes on where code stops. So there are two
// walks over each kind: functions called declared… for the rules, validate… for
// what only code finds.

// undevised says what is missing for the kinds of resource.k8s.io.
const undevised = "no device is allocated"

// rule is a check that types of Kubernetes declare.
type rule[T any] func(context.Context, operation.Operation, *field.Path, *T, *T) field.ErrorList

func declared[T any](value T, path *field.Path, rules ...rule[T]) field.ErrorList {
	var errs field.ErrorList
	for _, r := range rules {
		errs = append(errs, r(context.Background(), operation.Operation{}, path, &value, nil)...)
	}
	return errs
}

func maxLength(most int) rule[string] {
	return func(ctx context.Context, op operation.Operation, path *field.Path, value, old *string) field.ErrorList {
		return validate.MaxLength(ctx, op, path, value, old, most)
	}
}

func maxBytes(most int) rule[string] {
	return func(ctx context.Context, op operation.Operation, path *field.Path, value, old *string) field.ErrorList {
		return validate.MaxBytes(ctx, op, path, value, old, most)
	}
}

// declaredRequired is for values that may not be empty.
func declaredRequired(value string, path *field.Path, rules ...rule[string]) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return declared(value, path, rules...)
}

// atMost refuses lists that are too long; what is in them is not looked at then.
func atMost[T any](list []T, most int, path *field.Path) field.ErrorList {
	if len(list) > most {
		return field.ErrorList{field.TooMany(path, len(list), most)}
	}
	return nil
}

// declaredSet is a list with at most so many items, each once.
func declaredSet[T any](list []T, most int, path *field.Path, same func(a, b *T) bool) field.ErrorList {
	if errs := atMost(list, most, path); len(errs) > 0 {
		return errs
	}
	errs := validate.ValSliceUnique(context.Background(), operation.Operation{}, path, list, nil, same)
	for _, e := range errs {
		e.BadValue = gonames.Keep(e.BadValue)
	}
	return errs
}

func declaredDriver(name string, path *field.Path) field.ErrorList {
	return declaredRequired(name, path, validate.LongNameCaseless[string], maxLength(resourcev1.DriverNameMaxLength))
}

func validateDriver(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if most := resourcev1.DriverNameMaxLength; len(name) > most {
		errs = append(errs, field.TooLong(path, "", most))
	}
	return append(errs, invalidEach(path, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func validatePool(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if most := resourcev1.PoolNameMaxLength; len(name) > most {
		errs = append(errs, field.TooLong(path, "", most))
	}
	for _, part := range strings.Split(name, "/") {
		errs = append(errs, invalidEach(path, part, validation.IsDNS1123Subdomain(part))...)
	}
	return errs
}

func validateLabelValue(value string, path *field.Path) field.ErrorList {
	return invalidEach(path, value, validation.IsValidLabelValue(value))
}

// taintEffects are sorted as refusals list them.
var taintEffects = []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}

func declaredTaint(t *resourcev1.DeviceTaint, path *field.Path) field.ErrorList {
	return oneOf(t.Effect, path.Child("effect"), taintEffects...)
}

func validateTaint(t *resourcev1.DeviceTaint, path *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabelName(t.Key, path.Child("key"))
	return append(errs, validateLabelValue(t.Value, path.Child("value"))...)
}

func declaredTolerations(tolerations []resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range tolerations {
		at := path.Index(i)
		if t.Key != "" {
			errs = append(errs, declared(t.Key, at.Child("key"), validate.LabelKey[string])...)
		}
		errs = append(errs, oneOf(t.Operator, at.Child("operator"), resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
		if t.Effect != "" {
			errs = append(errs, oneOf(t.Effect, at.Child("effect"), taintEffects...)...)
		}
	}
	return errs
}

func validateTolerations(tolerations []resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range tolerations {
		at := path.Index(i).Child("value")
		switch t.Operator {
		case resourcev1.DeviceTolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at, t.Value, "must be empty for operator `Exists`"))
			}
		case resourcev1.DeviceTolerationOpEqual:
			errs = append(errs, validateLabelValue(t.Value, at)...)
		}
	}
	return errs
}

// validateBinding checks the conditions for which the scheduler waits before it
// binds a pod, and those that make it give up.
func validateBindingConditions(good, bad []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := func(list []string, most int, at *field.Path) {
		if len(list) > most {
			return // declared
		}
		for i, name := range list {
			errs = append(errs, metav1validation.ValidateLabelName(name, at.Index(i))...)
		}
	}
	goods, bads := path.Child("bindingConditions"), path.Child("bindingFailureConditions")
	names(good, resourcev1.BindingConditionsMaxSize, goods)
	names(bad, resourcev1.BindingFailureConditionsMaxSize, bads)
	errs = append(errs, repeated(good, goods.Index)...)
	for i, name := range bad {
		if slices.Contains(bad[:i], name) {
			errs = append(errs, field.Duplicate(bads.Index(i), name))
		}
		if slices.Contains(good, name) {
			errs = append(errs, field.Invalid(bads.Index(i), name, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	if len(good) == 0 && len(bad) > 0 {
		errs = append(errs, field.Invalid(goods, good, "bindingConditions are required to use bindingFailureConditions"))
	}
	if len(bad) == 0 && len(good) > 0 {
		errs = append(errs, field.Invalid(bads, bad, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

func declaredBindingConditions(good, bad []string, path *field.Path) field.ErrorList {
	return append(atMost(good, resourcev1.BindingConditionsMaxSize, path.Child("bindingConditions")),
		atMost(bad, resourcev1.BindingFailureConditionsMaxSize, path.Child("bindingFailureConditions"))...)
}

func declaredConfiguration(c *resourcev1.DeviceConfiguration, path *field.Path) field.ErrorList {
	if c.Opaque == nil {
		return nil
	}
	return declaredDriver(c.Opaque.Driver, path.Child("opaque", "driver"))
}

// validateConfiguration checks parameters of a driver. Those that are stored may
// be longer than what is let in today.
func validateConfiguration(c *resourcev1.DeviceConfiguration, stored bool, path *field.Path) field.ErrorList {
	at := path.Child("opaque")
	if c.Opaque == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	most := resourcev1.OpaqueParametersMaxLength
	if stored {
		most = len(c.Opaque.Parameters.Raw)
	}
	return isJSONObject(&c.Opaque.Parameters, most, at.Child("parameters"))
}

func isJSONObject(raw *runtime.RawExtension, most int, path *field.Path) field.ErrorList {
	var value any
	switch {
	case len(raw.Raw) == 0:
		return field.ErrorList{field.Required(path, "")}
	case len(raw.Raw) > most:
		return field.ErrorList{field.TooLong(path, "", most)}
	}
	if err := json.Unmarshal(raw.Raw, &value); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))}
	}
	switch value.(type) {
	case nil:
		return field.ErrorList{field.Required(path, "")}
	case map[string]any:
		return nil
	}
	return field.ErrorList{field.Invalid(path, "<value omitted>", "must be a valid JSON object")}
}

// validateSelectors compiles what selects devices, unless it is stored: it was
// valid then, and stays so.
func validateSelectors(selectors []resourcev1.DeviceSelector, stored bool, path *field.Path) field.ErrorList {
	if len(selectors) > resourcev1.DeviceSelectorsMaxSize {
		return nil // declared
	}
	var errs field.ErrorList
	for i, s := range selectors {
		at := path.Index(i).Child("cel")
		if s.CEL == nil {
			errs = append(errs, field.Required(at, ""))
		} else if !stored {
			errs = append(errs, validateExpression(s.CEL.Expression, at.Child("expression"))...)
		}
	}
	return errs
}

// expressionEnv is that of expressions which are new.
var expressionEnv = environment.NewExpressions

func validateExpression(expression string, path *field.Path) field.ErrorList {
	if most := resourcev1.CELSelectorExpressionMaxLength; len(expression) > most {
		return field.ErrorList{field.TooLong(path, "", most)}
	}
	compiler := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true})
	result := compiler.CompileCELExpression(expression, dracel.Options{EnvType: &expressionEnv})
	var flaw *cel.Error
	switch {
	case result.Error == nil:
		if result.MaxCost > resourcev1.CELSelectorExpressionMaxCost {
			return field.ErrorList{field.Forbidden(path, "too complex, exceeds cost limit")}
		}
		return nil
	case !errors.As(result.Error, &flaw):
		return field.ErrorList{field.InternalError(path, fmt.Errorf("unsupported error type: %w", result.Error))}
	}
	switch flaw.Type {
	case cel.ErrorTypeRequired:
		return field.ErrorList{field.Required(path, flaw.Detail)}
	case cel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(path, expression, flaw.Detail)}
	}
	return field.ErrorList{field.InternalError(path, flaw)}
}
