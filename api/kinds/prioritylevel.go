package kinds

import (
	"fmt"
	"slices"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

func priorityLevelConfiguration() *api.Resource {
	gv := flowcontrolv1.SchemeGroupVersion
	queuing := flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()
	return stored[flowcontrolv1.PriorityLevelConfiguration, *flowcontrolv1.PriorityLevelConfiguration, flowcontrolv1.PriorityLevelConfigurationList](gv, &api.Resource{
		Plural:     "prioritylevelconfigurations",
		Singular:   "prioritylevelconfiguration",
		Kind:       "PriorityLevelConfiguration",
		Prefix:     "prioritylevelconfigurations",
		ChecksBase: true,
		Default:    on(defaultPriorityLevel),
		PrepareCreate: on(func(p *flowcontrolv1.PriorityLevelConfiguration) {
			p.Status = flowcontrolv1.PriorityLevelConfigurationStatus{}
			p.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(p, old *flowcontrolv1.PriorityLevelConfiguration) {
			defaultPriorityLevel(p)
			p.Status = *old.Status.DeepCopy()
			countChange(p, old, p.Spec, old.Spec)
		}),
		Validate: validates(validatePriorityLevel),
		ValidateUpdate: validatesUpdate(func(p, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
			return validatePriorityLevel(p)
		}),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Type", "string", flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"]),
				column("NominalConcurrencyShares", "string", flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"]),
				column("Queues", "string", queuing["queues"]),
				column("HandSize", "string", queuing["handSize"]),
				column("QueueLengthLimit", "string", queuing["queueLengthLimit"]),
				ageColumn(),
			},
			Row: cells(priorityLevelCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(p, old *flowcontrolv1.PriorityLevelConfiguration) {
					p.Spec = *old.Spec.DeepCopy()
					keepMeta(p, old)
				}),
				ValidateUpdate: validatesUpdate(func(p, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
					return validatePriorityLevelStatus(p)
				}),
				ResetFields: resets(gv, "metadata", "spec"),
			},
		},
	})
}

// What a priority level has unless it says otherwise.
const (
	defaultShares      = 30
	defaultHandSize    = 8
	defaultQueues      = 64
	defaultQueueLength = 50

	maxQueues = 10_000_000
)

func defaultPriorityLevel(p *flowcontrolv1.PriorityLevelConfiguration) {
	fill := func(field **int32, value int32) {
		if *field == nil {
			*field = ptr.To(value)
		}
	}
	if e := p.Spec.Exempt; e != nil {
		fill(&e.NominalConcurrencyShares, 0)
		fill(&e.LendablePercent, 0)
	}
	limited := p.Spec.Limited
	if limited == nil {
		return
	}
	fill(&limited.NominalConcurrencyShares, defaultShares)
	fill(&limited.LendablePercent, 0)
	if q := limited.LimitResponse.Queuing; q != nil {
		q.HandSize = orNumber(q.HandSize, defaultHandSize)
		q.Queues = orNumber(q.Queues, defaultQueues)
		q.QueueLengthLimit = orNumber(q.QueueLengthLimit, defaultQueueLength)
	}
}

func orNumber(n, otherwise int32) int32 {
	if n == 0 {
		return otherwise
	}
	return n
}

func priorityLevelCells(p *flowcontrolv1.PriorityLevelConfiguration, now time.Time) []any {
	shares, queues, hand, length := any(unset), any(unset), any(unset), any(unset)
	if l := p.Spec.Limited; l != nil {
		shares = int64(ptr.Deref(l.NominalConcurrencyShares, 0))
		if q := l.LimitResponse.Queuing; q != nil {
			queues, hand, length = int64(q.Queues), int64(q.HandSize), int64(q.QueueLengthLimit)
		}
	}
	return []any{p.Name, string(p.Spec.Type), shares, queues, hand, length, age(p.CreationTimestamp, now)}
}

// preservesZeroShares is how a beta that had no pointer told zero from nothing.
const preservesZeroShares = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"

func validatePriorityLevel(p *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	var errs field.ErrorList
	if _, ok := p.Annotations[preservesZeroShares]; ok {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "annotations"), fmt.Sprintf("annotation '%s' is forbidden", preservesZeroShares)))
	}
	path := field.NewPath("spec")
	errs = append(errs, validatePriorityLevelSpec(p, path)...)
	errs = append(errs, isFixedPriorityLevel(p, path)...)
	return append(errs, validatePriorityLevelStatus(p)...)
}

// isFixedPriorityLevel keeps the levels that a cluster cannot do without as they
// are. How much of the server the exempt one takes may be tuned.
func isFixedPriorityLevel(p *flowcontrolv1.PriorityLevelConfiguration, path *field.Path) field.ErrorList {
	for _, fixed := range bootstrap.MandatoryPriorityLevelConfigurations {
		if fixed.Name != p.Name {
			continue
		}
		have, except := p.Spec.DeepCopy(), ""
		if p.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt {
			have.Exempt, except = fixed.Spec.Exempt, " except the 'spec.exempt' field"
		}
		if !equality.Semantic.DeepEqual(*have, fixed.Spec) {
			return field.ErrorList{field.Invalid(path, p.Spec, fmt.Sprintf("spec of '%s'%s must equal the fixed value", p.Name, except))}
		}
	}
	return nil
}

func validatePriorityLevelSpec(p *flowcontrolv1.PriorityLevelConfiguration, path *field.Path) field.ErrorList {
	var errs, declared field.ErrorList
	spec, kind := &p.Spec, path.Child("type")
	exempt, limited := path.Child("exempt"), path.Child("limited")
	isExempt, isLimited := spec.Type == flowcontrolv1.PriorityLevelEnablementExempt, spec.Type == flowcontrolv1.PriorityLevelEnablementLimited
	if (p.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) != isExempt {
		errs = append(errs, field.Invalid(kind, spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	if e := spec.Exempt; e != nil && isExempt {
		errs = append(errs, validateShares(e.NominalConcurrencyShares, exempt)...)
		errs = append(errs, validateLendable(e.LendablePercent, exempt)...)
	} else if e != nil {
		declared = append(declared, field.Forbidden(exempt, ""))
	}
	switch {
	case isLimited && spec.Limited == nil:
		declared = append(declared, field.Required(limited, ""))
	case isLimited:
		errs = append(errs, validateLimited(spec.Limited, limited)...)
	case spec.Limited != nil:
		declared = append(declared, field.Forbidden(limited, ""))
	}
	switch {
	case spec.Type == "":
		declared = append(declared, field.Required(kind, ""))
	case !isExempt && !isLimited:
		errs = append(errs, field.NotSupported(kind, spec.Type,
			[]flowcontrolv1.PriorityLevelEnablement{flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited}))
	}
	if spec.Limited != nil {
		declared = append(declared, declaredLimitResponse(&spec.Limited.LimitResponse, limited.Child("limitResponse"))...)
	}
	return append(errs, declared.MarkBeta()...)
}

func validateLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, path *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, path)
	errs = append(errs, validateLimitResponse(&l.LimitResponse, path.Child("limitResponse"))...)
	errs = append(errs, validateLendable(l.LendablePercent, path)...)
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
	}
	return errs
}

func validateShares(nominal *int32, path *field.Path) field.ErrorList {
	if nominal == nil || *nominal >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("nominalConcurrencyShares"), *nominal, "must be a non-negative integer")}
}

func validateLendable(percent *int32, path *field.Path) field.ErrorList {
	if percent == nil || *percent >= 0 && *percent <= 100 {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("lendablePercent"), *percent, "must be between 0 and 100, inclusive")}
}

// validateLimitResponse checks what happens to requests that cannot be served at
// once.
func validateLimitResponse(r *flowcontrolv1.LimitResponse, path *field.Path) field.ErrorList {
	types := []flowcontrolv1.LimitResponseType{flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject}
	switch {
	case r.Type == flowcontrolv1.LimitResponseTypeQueue && r.Queuing != nil:
		return validateQueuing(r.Queuing, path.Child("queuing"))
	case r.Type != "" && !slices.Contains(types, r.Type):
		return field.ErrorList{field.NotSupported(path.Child("type"), r.Type, types)}
	}
	return nil
}

// declaredLimitResponse is asked of a level that is not limited, too.
func declaredLimitResponse(r *flowcontrolv1.LimitResponse, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	queues, at := r.Type == flowcontrolv1.LimitResponseTypeQueue, path.Child("queuing")
	if queues && r.Queuing == nil {
		errs = append(errs, field.Required(at, ""))
	}
	if !queues && r.Queuing != nil {
		errs = append(errs, field.Forbidden(at, ""))
	}
	return append(errs, named(string(r.Type), path.Child("type"))...)
}

func validateQueuing(q *flowcontrolv1.QueuingConfiguration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(path.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive"))
	}
	switch at := path.Child("queues"); {
	case q.Queues <= 0:
		errs = append(errs, field.Invalid(at, q.Queues, "must be positive"))
	case q.Queues > maxQueues:
		errs = append(errs, field.Invalid(at, q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	hand := path.Child("handSize")
	switch {
	case q.HandSize <= 0:
		return append(errs, field.Invalid(hand, q.HandSize, "must be positive"))
	case q.HandSize > q.Queues:
		return append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	}
	if shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)) > shufflesharding.MaxHashBits {
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf(
			"required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, shufflesharding.MaxHashBits)))
	}
	return errs
}

func validatePriorityLevelStatus(p *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	types := make([]string, 0, len(p.Status.Conditions))
	for _, c := range p.Status.Conditions {
		types = append(types, string(c.Type))
	}
	return validateConditionTypes(types, field.NewPath("status", "conditions"))
}
