package custom

import (
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"hansa.dev/hansa/api"
)

// row makes the row of a definition: that of the version that is stored, or of
// the most preferred one if that is not served. The others are its Views.
func (d *definition) row() *api.Resource {
	var main *api.Resource
	var views []*api.Resource
	for _, v := range d.versions {
		row := v.row()
		switch {
		case v.Name == d.storage && (v.Served || main == nil):
			if main != nil {
				views = append(views, main)
			}
			main = row
		case !v.Served:
		case main == nil, len(main.Versions) == 0:
			main = row
		default:
			views = append(views, row)
		}
	}
	main.Views = views
	return main
}

// row makes the row of one version.
func (v *version) row() *api.Resource {
	d, names := v.of, &v.of.Status.AcceptedNames
	kind, name := d.kind, v.Name // and nothing else: the store keeps it
	empty := func() api.Object { return newObject(kind, name) }
	list := func() runtime.Object { return &unstructured.UnstructuredList{} }
	r := &api.Resource{
		Group:      d.Spec.Group,
		Plural:     names.Plural,
		Singular:   names.Singular,
		Kind:       names.Kind,
		ListKind:   names.ListKind,
		ShortNames: names.ShortNames,
		Categories: names.Categories,
		Namespaced: d.Spec.Scope == apiextensionsv1.NamespaceScoped,

		Storage: schema.GroupVersion{Group: d.Spec.Group, Version: d.storage},
		Prefix:  d.Spec.Group + "/" + names.Plural,
		New:     empty,
		NewList: list,
		View:    v.work,
		Seal:    v.seal,
		Patch:   v.patch,
		Merge:   func() api.Merger { return v.merge() },
		Closed:  d.terminating(),
		Ended:   d.ended,

		AnyFinalizer:   true,
		Default:        v.fill,
		PrepareCreate:  v.prepareCreate,
		PrepareUpdate:  v.prepareUpdate,
		Validate:       v.validate,
		ValidateUpdate: v.validateUpdate,
		Warnings:       warnings,
		Table:          v.table(),
		Subresources:   map[string]*api.Subresource{},
		FieldRefusal:   api.LabelNotSupported,
	}
	if v.Served {
		r.Versions = []api.Version{{
			GroupVersion: v.gv, New: empty, NewList: list, FromHub: v.fromStored, Decode: v.decode, Deprecated: v.deprecated(),
			OpenAPI: v.openAPI, Revision: fmt.Sprintf("%s %s %d %v", names.Plural, d.UID, d.Generation, *names),
		}}
		if _, ok := d.convert.(*byWebhook); ok {
			r.Versions[0].FromHubAll = v.fromStoredAll
		}
	}
	if v.hasStatus() {
		r.ResetFields = v.resets("status")
		r.Subresources["status"] = &api.Subresource{
			Verbs:          []string{"get", "patch", "update"},
			PrepareUpdate:  v.prepareStatus,
			ValidateUpdate: v.validateStatus,
			ResetFields:    v.resets("metadata", "spec"),
		}
	}
	if v.scale() != nil {
		r.Subresources["scale"] = v.scaleSubresource()
	}
	v.selectable(r)
	return r
}

// resets are the fields that a writer does not come to own.
func (v *version) resets(names ...string) map[schema.GroupVersion]fieldpath.Filter {
	set := fieldpath.NewSet()
	for _, name := range names {
		set.Insert(fieldpath.MakePathOrDie(name))
	}
	return map[schema.GroupVersion]fieldpath.Filter{v.gv: api.AllBut{Set: set}}
}

// selectable lets objects be selected by the fields that the version names.
func (v *version) selectable(r *api.Resource) {
	if len(v.SelectableFields) == 0 {
		return
	}
	paths := make([][]string, len(v.SelectableFields))
	for i, f := range v.SelectableFields {
		paths[i] = steps(f.JSONPath)
		r.FieldLabels = append(r.FieldLabels, f.JSONPath[1:])
	}
	r.Fields = func(stored api.Object) fields.Set {
		set := make(fields.Set, len(paths)+2)
		o, err := v.view(stored)
		if err != nil {
			return set
		}
		tree := o.Tree()
		for i, path := range paths {
			text := ""
			if value, ok, err := unstructured.NestedFieldNoCopy(tree, path...); ok && err == nil && value != nil {
				text = fmt.Sprint(value)
			}
			set[r.FieldLabels[i]] = text
		}
		return set
	}
}
