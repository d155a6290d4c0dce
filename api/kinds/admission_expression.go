package kinds

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	admissioncel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

const maxMatchConditions = 64

// expression is one expression as the compiler wants it: the text and the types
// that it may have, and its name if it is a variable.
type expression struct {
	name    string
	text    string
	returns []*cel.Type
}

func (e *expression) GetName() string          { return e.name }
func (e *expression) GetExpression() string    { return e.text }
func (e *expression) ReturnTypes() []*cel.Type { return e.returns }

// The types of expressions, by what they are for.
var (
	conditionTypes  = []*cel.Type{cel.BoolType}
	messageTypes    = []*cel.Type{cel.StringType}
	annotationTypes = []*cel.Type{cel.StringType, cel.NullType}
	variableTypes   = []*cel.Type{cel.AnyType, cel.DynType}
	applyTypes      = []*cel.Type{cel.ObjectType("Object")}
	patchTypes      = []*cel.Type{cel.ListType(cel.ObjectType("JSONPatch"))}
)

// plainCompiler is for expressions without variables. It keeps nothing, and takes
// long to make.
var plainCompiler = sync.OnceValue(func() admissioncel.Compiler {
	return admissioncel.NewCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
})

// expressions compiles those of one object.
type expressions struct {
	params bool            // there is a variable params
	stored map[string]bool // texts that are in the stored object: they may use what new ones may not
	// composed has the variables of the object in it. Nil: it has none.
	composed *admissioncel.CompositedCompiler
}

func newExpressions(params bool) *expressions {
	return &expressions{params: params, stored: map[string]bool{}}
}

// compose lets the expressions of the object refer to its variables.
func (e *expressions) compose() error {
	c, err := admissioncel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	e.composed = c
	return err
}

func (e *expressions) keep(texts ...string) {
	for _, text := range texts {
		e.stored[text] = true
	}
}

func (e *expressions) keepConditions(conditions []admissionregistrationv1.MatchCondition) {
	for _, c := range conditions {
		e.keep(c.Expression)
	}
}

// environment is the one in which a text is compiled.
func (e *expressions) environment(text string) environment.Type {
	if e.stored[text] {
		return environment.StoredExpressions
	}
	return environment.NewExpressions
}

func (e *expressions) compiler() admissioncel.Compiler {
	if e.composed != nil {
		return e.composed
	}
	return plainCompiler()
}

// validate compiles one expression that may refer to the variables.
func (e *expressions) validate(x *expression, decls admissioncel.OptionalVariableDeclarations, path *field.Path) field.ErrorList {
	decls.HasParams = e.params
	return celFlaw(x, e.compiler().CompileCELExpression(x, decls, e.environment(x.text)), path)
}

func celFlaw(x *expression, r admissioncel.CompilationResult, path *field.Path) field.ErrorList {
	if r.Error == nil {
		return nil
	}
	switch r.Error.Type {
	case apiservercel.ErrorTypeRequired:
		return field.ErrorList{field.Required(path, r.Error.Detail)}
	case apiservercel.ErrorTypeInvalid:
		return field.ErrorList{field.Invalid(path, x.text, r.Error.Detail)}
	}
	return field.ErrorList{field.InternalError(path, r.Error)}
}

func (e *expressions) validateConditions(conditions []admissionregistrationv1.MatchCondition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(conditions) > maxMatchConditions {
		errs = append(errs, field.TooMany(path, len(conditions), maxMatchConditions))
	}
	names := map[string]bool{}
	for i, c := range conditions {
		at := path.Index(i)
		if text := strings.TrimSpace(c.Expression); text == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			// Conditions are looked at before there are any variables.
			x := &expression{text: text, returns: conditionTypes}
			decls := admissioncel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: true}
			errs = append(errs, celFlaw(x, plainCompiler().CompileCELExpression(x, decls, e.environment(c.Expression)), at.Child("expression"))...)
		}
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
			continue
		}
		errs = append(errs, isQualifiedName(c.Name, at.Child("name"))...)
		if names[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names[c.Name] = true
	}
	return errs
}

func (e *expressions) validateVariable(v *admissionregistrationv1.Variable, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case strings.TrimSpace(v.Name) == "":
		errs = append(errs, field.Required(path.Child("name"), "name is not specified"))
	case !isIdentifier(v.Name):
		errs = append(errs, field.Invalid(path.Child("name"), v.Name, "must be a valid CEL identifier"))
	}
	if strings.TrimSpace(v.Expression) == "" {
		return append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	}
	if e.composed == nil {
		return append(errs, field.InternalError(path, errors.New("variable composition is not allowed")))
	}
	x := &expression{name: v.Name, text: v.Expression, returns: variableTypes}
	decls := admissioncel.OptionalVariableDeclarations{HasParams: e.params, HasAuthorizer: true}
	return append(errs, celFlaw(x, e.composed.CompileAndStoreVariable(x, decls, e.environment(x.text)), path.Child("expression"))...)
}

var identifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

var reservedWords = []string{
	"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
	"let", "loop", "package", "namespace", "return", "var", "void", "while",
}

// isIdentifier follows the grammar of CEL, IDENT.
func isIdentifier(name string) bool {
	return identifier.MatchString(name) && !slices.Contains(reservedWords, name)
}

// maxAnnotationExpression is in bytes.
const maxAnnotationExpression = 5 * 1024

func (e *expressions) validateAnnotation(policy string, a *admissionregistrationv1.AuditAnnotation, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Invalid(path.Child("key"), a.Key, "requires metadata.name be non-empty"))
	} else {
		errs = append(errs, isQualifiedName(policy+"/"+a.Key, path.Child("key"))...)
	}
	at := path.Child("valueExpression")
	text := strings.TrimSpace(a.ValueExpression)
	switch {
	case text == "":
		return append(errs, field.Required(at, "valueExpression is not specified"))
	case len(text) > maxAnnotationExpression:
		return append(errs, field.Required(at, fmt.Sprintf("must not exceed %d bytes in length", maxAnnotationExpression)))
	}
	x := &expression{text: text, returns: annotationTypes}
	return append(errs, e.validate(x, admissioncel.OptionalVariableDeclarations{HasAuthorizer: true}, at)...)
}
