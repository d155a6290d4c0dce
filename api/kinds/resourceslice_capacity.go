package kinds

import (
	"fmt"
	"math"
	"strconv"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateCapacity checks how parts of a capacity may be asked for, which makes
// sense if several get parts.
func validateCapacity(c *resourcev1.DeviceCapacity, shared bool, path *field.Path) field.ErrorList {
	p := c.RequestPolicy
	switch {
	case p == nil:
		return nil
	case !shared:
		return field.ErrorList{field.Forbidden(path, "allowMultipleAllocations must be true")}
	case len(p.ValidValues) > 0 && p.ValidRange != nil:
		return field.ErrorList{field.Forbidden(path, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)}
	case len(p.ValidValues) > 0:
		if p.Default == nil {
			return field.ErrorList{field.Required(path.Child("default"), "required when validValues is defined")}
		}
		return validateAmounts(p.ValidValues, *p.Default, c.Value, path.Child("validValues"))
	case p.ValidRange != nil:
		if p.Default == nil {
			return field.ErrorList{field.Required(path.Child("default"), "required when validRange is defined")}
		}
		r := amountRange{CapacityRequestPolicyRange: p.ValidRange, standard: p.Default, most: c.Value, path: path.Child("validRange")}
		return r.validate()
	}
	return nil
}

// maxAmounts is how many amounts a policy may list.
const maxAmounts = 10

func validateAmounts(amounts []resource.Quantity, standard, most resource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := 1; i < len(amounts); i++ {
		if amounts[i-1].Cmp(amounts[i]) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), amounts[i].String(), "values must be sorted in ascending order"))
		}
	}
	found := false
	if tooMany := atMost(amounts, maxAmounts, path); len(tooMany) > 0 {
		errs = append(errs, tooMany...)
	} else {
		numbers := make([]string, 0, len(amounts))
		for i, a := range amounts {
			if a.Cmp(most) > 0 {
				errs = append(errs, field.Invalid(path.Index(i), a.String(), fmt.Sprintf("option is larger than capacity value: %s", most.String())))
			}
			found = found || a.Cmp(standard) == 0
			numbers = append(numbers, strconv.FormatInt(a.Value(), 10))
		}
		errs = append(errs, repeated(numbers, path.Index)...)
	}
	if !found {
		errs = append(errs, field.Invalid(path, standard.String(), "default value is not valid according to the requestPolicy"))
	}
	return errs
}

// amountRange is what may be asked for: from min to max in steps, standard if
// nothing is said, of a capacity of most.
type amountRange struct {
	*resourcev1.CapacityRequestPolicyRange
	standard *resource.Quantity
	most     resource.Quantity
	path     *field.Path
}

func (r *amountRange) flaw(name string, value *resource.Quantity, format string, args ...any) *field.Error {
	return field.Invalid(r.path.Child(name), value.String(), fmt.Sprintf(format, args...))
}

func (r *amountRange) validate() field.ErrorList {
	if r.Min == nil {
		return field.ErrorList{field.Required(r.path.Child("min"), "required when validRange is defined")}
	}
	errs := r.validateOrder()
	if r.Step != nil {
		errs = append(errs, r.validateStep()...)
	}
	return errs
}

// validateOrder compares the ends, the standard and the capacity.
func (r *amountRange) validateOrder() field.ErrorList {
	var errs field.ErrorList
	if r.Min.Cmp(r.most) > 0 {
		errs = append(errs, r.flaw("min", r.Min, "min is larger than capacity value: %s", r.most.String()))
	}
	if r.standard.Cmp(*r.Min) < 0 {
		errs = append(errs, r.flaw("default", r.standard, "default is less than min: %s", r.Min.String()))
	}
	if r.Max == nil {
		return errs
	}
	if r.Min.Cmp(*r.Max) > 0 {
		errs = append(errs, r.flaw("max", r.Min, "min is larger than max: %s", r.Max.String()))
	}
	if r.Max.Cmp(r.most) > 0 {
		errs = append(errs, r.flaw("max", r.Max, "max is larger than capacity value: %s", r.most.String()))
	}
	if r.standard.Cmp(*r.Max) > 0 {
		errs = append(errs, r.flaw("default", r.standard, "default is more than max: %s", r.Max.String()))
	}
	return errs
}

// validateStep demands that standard and max are whole steps from min. Parts of
// one are rounded up: to count in them is a feature that is off unless a server
// need not be compatible with 1.36.
func (r *amountRange) validateStep() field.ErrorList {
	if r.Step.Sign() <= 0 {
		return field.ErrorList{r.flaw("step", r.Step, "must be greater than zero")}
	}
	var errs field.ErrorList
	next := r.Min.DeepCopy()
	next.Add(*r.Step)
	if next.Cmp(r.most) > 0 {
		errs = append(errs, r.flaw("step", r.Step, "one step %s is larger than capacity value: %s", next.String(), r.most.String()))
	}
	if flaws := r.validateSize(); len(flaws) > 0 {
		return append(errs, flaws...)
	}
	for _, q := range []*resource.Quantity{r.standard, r.Max} {
		if q != nil && (q.Value()-r.Min.Value())%r.Step.Value() != 0 {
			errs = append(errs, r.flaw("step", q, "value is not a multiple of a given step (%s) from (%s)", r.Step.String(), r.Min.String()))
		}
	}
	return errs
}

// validateSize refuses what is no int64, or below zero.
func (r *amountRange) validateSize() field.ErrorList {
	var errs field.ErrorList
	for _, part := range []struct {
		name string
		q    *resource.Quantity
	}{{"default", r.standard}, {"min", r.Min}, {"max", r.Max}, {"step", r.Step}} {
		switch {
		case part.q == nil:
		case part.q.Sign() < 0:
			errs = append(errs, r.flaw(part.name, part.q, apivalidation.IsNegativeErrorMsg))
		case part.q.CmpInt64(math.MaxInt64) > 0:
			errs = append(errs, r.flaw(part.name, part.q, "must not be larger than %d", int64(math.MaxInt64)))
		}
	}
	return errs
}
