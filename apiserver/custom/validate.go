package custom

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	namevalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"

	"hansa.dev/hansa/api"
)

// prepareCreate takes away what its creator may not set.
func (v *version) prepareCreate(obj api.Object) {
	o := obj.(*Object)
	if v.hasStatus() {
		delete(o.open(), "status")
	}
	o.Generation = 1
}

// prepareUpdate keeps the status where that has a way of its own, and counts
// generations: whatever is not metadata makes a new one.
func (v *version) prepareUpdate(obj, old api.Object) {
	o, was := obj.(*Object), old.(*Object)
	tree, before := o.open(), was.Tree()
	if v.hasStatus() {
		if status, ok := before["status"]; ok {
			tree["status"] = status
		} else {
			delete(tree, "status")
		}
	}
	if !equality.Semantic.DeepEqual(tree, before) {
		o.Generation = was.Generation + 1
	}
}

// prepareStatus keeps all but the status and the managers.
func (v *version) prepareStatus(obj, old api.Object) {
	o, was := obj.(*Object), old.(*Object)
	status, ok := o.Tree()["status"]
	managers := o.ManagedFields
	was.ObjectMeta.DeepCopyInto(&o.ObjectMeta)
	o.ManagedFields = managers
	tree := maps.Clone(was.Tree())
	if delete(tree, "status"); ok {
		tree["status"] = status
	}
	o.replace(tree)
}

// validate is everything that a new object is checked for beside its metadata.
func (v *version) validate(obj api.Object) field.ErrorList {
	c, err := v.compiled()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	tree := obj.(*Object).whole()
	var errs field.ErrorList
	if c.validator != nil {
		errs = validation.ValidateCustomResource(nil, tree, c.validator)
	}
	errs = append(errs, v.validateScale(tree, true)...)
	errs = append(errs, c.validateEmbedded(tree)...)
	errs = append(errs, c.validateLists(tree)...)
	return append(errs, c.validateRules(tree, nil, errs)...)
}

// validateUpdate is everything that a changed object is checked for. What was
// wrong before and has not changed is let pass.
func (v *version) validateUpdate(obj, old api.Object) field.ErrorList {
	c, err := v.compiled()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	tree, was := obj.(*Object).whole(), old.(*Object).whole()
	between := common.NewCorrelatedObject(tree, was, &model.Structural{Structural: c.structural})
	var errs field.ErrorList
	if c.validator != nil {
		errs = validation.ValidateCustomResourceUpdate(nil, tree, was, c.validator, validation.WithRatcheting(between))
	}
	errs = append(errs, v.validateScale(tree, true)...)
	errs = append(errs, c.validateEmbedded(tree)...)
	errs = append(errs, c.validateListsAgain(tree, was)...)
	return append(errs, c.validateRules(tree, was, errs, cel.WithRatcheting(between))...)
}

// validateStatus is everything that an object with another status is checked for.
func (v *version) validateStatus(obj, old api.Object) field.ErrorList {
	c, err := v.compiled()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	tree, was := obj.(*Object).whole(), old.(*Object).whole()
	between := common.NewCorrelatedObject(tree, was, &model.Structural{Structural: c.structural})
	var errs field.ErrorList
	if status, ok := tree["status"]; ok && c.status != nil {
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, was["status"], c.status, validation.WithRatcheting(between.Key("status")))
	}
	errs = append(errs, v.validateScale(tree, false)...)
	errs = append(errs, c.validateListsAgain(tree, was)...)
	return append(errs, c.validateRules(tree, was, errs, cel.WithRatcheting(between))...)
}

func (c *compiled) validateEmbedded(tree map[string]any) field.ErrorList {
	if !c.embedded {
		return nil
	}
	return objectmeta.Validate(context.Background(), nil, tree, c.structural, false)
}

func (c *compiled) validateLists(tree map[string]any) field.ErrorList {
	if !c.lists {
		return nil
	}
	return listtype.ValidateListSetsAndMaps(nil, c.structural, tree)
}

// validateListsAgain asks only for lists of an object that had them right before.
func (c *compiled) validateListsAgain(tree, was map[string]any) field.ErrorList {
	if errs := c.validateLists(tree); len(errs) > 0 && len(c.validateLists(was)) == 0 {
		return errs
	}
	return nil
}

// validateRules evaluates the rules written in CEL, unless what was found so far
// keeps them from being evaluated.
func (c *compiled) validateRules(tree, was map[string]any, found field.ErrorList, opts ...cel.Option) field.ErrorList {
	if c.rules == nil {
		return nil
	}
	if slices.ContainsFunc(found, blocks) {
		return field.ErrorList{field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
	}
	var old any
	if was != nil {
		old = was
	}
	errs, _ := c.rules.Validate(context.Background(), nil, c.structural, tree, old, celconfig.RuntimeCELCostBudget, opts...)
	return errs
}

// blocks are the errors after which rules cannot be trusted with an object.
func blocks(err *field.Error) bool {
	switch err.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	}
	return false
}

// validateScale holds the fields that a scale shows to what it can show.
func (v *version) validateScale(tree map[string]any, spec bool) field.ErrorList {
	scale := v.scale()
	if scale == nil {
		return nil
	}
	var errs field.ErrorList
	if spec {
		errs = checkReplicas(tree, scale.SpecReplicasPath)
	}
	errs = append(errs, checkReplicas(tree, scale.StatusReplicasPath)...)
	if path := scale.LabelSelectorPath; path != nil {
		if text, _, err := unstructured.NestedString(tree, steps(*path)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*path), text, err.Error()))
		}
	}
	return errs
}

func checkReplicas(tree map[string]any, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(tree, steps(path)...)
	at := field.NewPath(path)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(at, n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(at, n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(at, n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}

// steps are the fields that a simple JSON path goes through.
func steps(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// warnings are those about new finalizers, whose names should have a domain.
func warnings(obj, old api.Object) []string {
	added := slices.Clone(obj.GetFinalizers())
	if old != nil {
		added = slices.DeleteFunc(added, func(f string) bool { return slices.Contains(old.GetFinalizers(), f) })
	}
	slices.Sort(added)
	var out []string
	for _, f := range added {
		for _, msg := range namevalidation.IsQualifiedName(f) {
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", f, msg))
		}
		switch {
		case strings.Contains(f, "/"), f == metav1.FinalizerOrphanDependents, f == metav1.FinalizerDeleteDependents, f == string(corev1.FinalizerKubernetes):
		case strings.Contains(f, "."):
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", f))
		default:
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", f))
		}
	}
	return out
}
