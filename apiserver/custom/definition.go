package custom

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
)

// definition is what a CustomResourceDefinition says, made ready to serve.
// Immutable, but for what is made of it when it is first asked for.
type definition struct {
	*apiextensionsv1.CustomResourceDefinition // frozen
	kind                                      *schema.GroupKind
	storage                                   string
	versions                                  []*version // in the order of preference
	convert                                   converter
	ended                                     chan struct{}
}

// version is one version of a definition.
type version struct {
	*apiextensionsv1.CustomResourceDefinitionVersion
	of *definition
	gv schema.GroupVersion
	// compiled is the schema, made when the first object comes along: of most
	// definitions of a cluster there are none.
	compiled func() (*compiled, error)
	merge    func() *merger
}

// define reads a definition that names are accepted of. converters makes the way
// between its versions.
func define(d *apiextensionsv1.CustomResourceDefinition, converters func(*definition) converter) *definition {
	def := &definition{
		CustomResourceDefinition: d,
		kind:                     &schema.GroupKind{Group: d.Spec.Group, Kind: d.Status.AcceptedNames.Kind},
		ended:                    make(chan struct{}),
	}
	for i := range d.Spec.Versions {
		spec := &d.Spec.Versions[i]
		if spec.Storage {
			def.storage = spec.Name
		}
		v := &version{CustomResourceDefinitionVersion: spec, of: def, gv: schema.GroupVersion{Group: d.Spec.Group, Version: spec.Name}}
		v.compiled = sync.OnceValues(func() (*compiled, error) { return compile(v) })
		v.merge = sync.OnceValue(func() *merger { return newMerger(v) })
		def.versions = append(def.versions, v)
	}
	slices.SortStableFunc(def.versions, func(a, b *version) int {
		return -apimachineryversion.CompareKubeAwareVersionStrings(a.Name, b.Name)
	})
	def.convert = converters(def)
	return def
}

// version finds a version by its name, or nil.
func (d *definition) version(name string) *version {
	for _, v := range d.versions {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// accepted says whether a definition has what is needed to serve it: names that
// nobody else has.
func accepted(d *apiextensionsv1.CustomResourceDefinition) bool {
	n := &d.Status.AcceptedNames
	return apihelpers.IsCRDConditionTrue(d, apiextensionsv1.NamesAccepted) &&
		n.Plural != "" && n.Singular != "" && n.Kind != "" && n.ListKind != ""
}

// terminating is why nothing more may be created of a kind whose definition is
// being deleted.
func (d *definition) terminating() string {
	if apihelpers.IsCRDConditionTrue(d.CustomResourceDefinition, apiextensionsv1.Terminating) {
		return "create not allowed while custom resource definition is terminating"
	}
	return ""
}

// deprecated is the warning of a version, or "".
func (v *version) deprecated() string {
	switch {
	case !v.Deprecated:
		return ""
	case v.DeprecationWarning != nil:
		return *v.DeprecationWarning
	}
	text := fmt.Sprintf("%s %s is deprecated", v.gv, v.of.kind.Kind)
	for _, other := range v.of.versions { // the most preferred first
		if other.Served && !other.Deprecated && apimachineryversion.CompareKubeAwareVersionStrings(v.Name, other.Name) < 0 {
			return text + fmt.Sprintf("; use %s %s", other.gv, v.of.kind.Kind)
		}
	}
	return text
}
