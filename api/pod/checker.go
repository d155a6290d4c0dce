package pod

import (
	"sort"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checker collects the errors of one validation. It is used by one goroutine
// and thrown away.
type checker struct {
	errs field.ErrorList
	leniency

	// isPod: the spec belongs to a Pod and not to a template within another
	// kind, whose pods will be defaulted once more.
	isPod bool
}

func (c *checker) add(errs ...*field.Error) { c.errs = append(c.errs, errs...) }

func (c *checker) required(p *field.Path, detail string) { c.add(field.Required(p, detail)) }

func (c *checker) invalid(p *field.Path, value any, detail string) {
	c.add(field.Invalid(p, value, detail))
}

func (c *checker) forbidden(p *field.Path, detail string) { c.add(field.Forbidden(p, detail)) }

func (c *checker) duplicate(p *field.Path, value any) { c.add(field.Duplicate(p, value)) }

func (c *checker) notFound(p *field.Path, value any) { c.add(field.NotFound(p, value)) }

// reasons reports a value once for each reason why it is wrong.
func (c *checker) reasons(p *field.Path, value any, reasons []string) {
	for _, r := range reasons {
		c.invalid(p, value, r)
	}
}

// nonEmpty requires a string and says whether it is there.
func (c *checker) nonEmpty(p *field.Path, value string) bool {
	if value == "" {
		c.required(p, "")
	}
	return value != ""
}

func (c *checker) nonNegative(p *field.Path, value int64) {
	c.add(apivalidation.ValidateNonnegativeField(value, p)...)
}

func (c *checker) dnsLabel(p *field.Path, value string) {
	c.reasons(p, value, validation.IsDNS1123Label(value))
}

func (c *checker) dnsSubdomain(p *field.Path, value string) {
	c.reasons(p, value, validation.IsDNS1123Subdomain(value))
}

func (c *checker) qualifiedName(p *field.Path, value string) {
	c.reasons(p, value, validation.IsQualifiedName(value))
}

// ip accepts what Kubernetes' older fields accept: canonical form is not
// required, leading zeros and IPv4-mapped addresses are refused. Values in keep
// are accepted as they are.
func (c *checker) ip(p *field.Path, value string, keep []string) {
	c.add(validation.IsValidIPForLegacyField(p, value, true, keep)...)
}

// fileMode checks optional permission bits.
func (c *checker) fileMode(p *field.Path, mode *int32) {
	if mode != nil && (*mode < 0 || *mode > 0777) {
		c.invalid(p, *mode, "must be a number between 0 and 0777 (octal), both inclusive")
	}
}

// oneOf refuses a value that is none of the allowed ones, and answers whether
// it was accepted. The order of allowed is the order in the message.
func oneOf[T ~string](c *checker, p *field.Path, value T, allowed ...T) bool {
	for _, a := range allowed {
		if value == a {
			return true
		}
	}
	c.add(field.NotSupported(p, value, allowed))
	return false
}

// requiredOneOf is oneOf for a value that defaulting should have set.
func requiredOneOf[T ~string](c *checker, p *field.Path, value T, allowed ...T) {
	if value == "" {
		c.required(p, "")
		return
	}
	oneOf(c, p, value, allowed...)
}

// optionalOneOf is oneOf for a value that may be absent.
func optionalOneOf[T ~string](c *checker, p *field.Path, value *T, allowed ...T) {
	if value != nil {
		oneOf(c, p, *value, allowed...)
	}
}

// sortedKeys gives errors from maps a stable order.
func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}

func isTrue(b *bool) bool { return b != nil && *b }

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
