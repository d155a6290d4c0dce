package codec

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// decodeTree is decode for kinds whose objects are trees.
func (c *Codec) decodeTree(data []byte, media MediaType, form Form, strict bool) (runtime.Object, []error, *schema.GroupVersionKind, error) {
	got := form.GroupVersionKind
	tree, problems, ok := treeOfJSON(data, media, form, strict)
	if !ok {
		var actual *schema.GroupVersionKind
		var err error
		if tree, problems, actual, err = c.treeOfAny(data, media, form, strict); err != nil {
			return nil, nil, actual, err
		}
		got = *actual
	}
	obj, more, err := form.Tree(tree, strict)
	if err != nil {
		return nil, nil, &got, err
	}
	return obj, append(problems, more...), &got, nil
}

// treeOfJSON is the short way for a well-formed body of the expected kind.
func treeOfJSON(data []byte, media MediaType, form Form, strict bool) (tree map[string]any, problems []error, ok bool) {
	if media != JSON {
		return nil, nil, false
	}
	problems, err := Unmarshal(data, &tree, strict)
	return tree, problems, err == nil && tree["kind"] == form.Kind && tree["apiVersion"] == form.GroupVersion().String()
}

// treeOfAny is the long way, through the serializers of apimachinery.
func (c *Codec) treeOfAny(data []byte, media MediaType, form Form, strict bool) (map[string]any, []error, *schema.GroupVersionKind, error) {
	into := &unstructured.Unstructured{}
	into.SetGroupVersionKind(form.GroupVersionKind)
	_, problems, got, err := c.deserialize(data, media, form, into, strict)
	switch {
	case err != nil:
		return nil, nil, got, err
	case got.GroupVersion() != form.GroupVersion():
		return nil, nil, got, apierrors.NewBadRequest(fmt.Sprintf(
			"the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), form.GroupVersion()))
	case got.Kind != form.Kind:
		return nil, nil, got, apierrors.NewInvalid(form.GroupKind(), into.GetName(), field.ErrorList{
			field.Invalid(field.NewPath("kind"), got.Kind, "must be "+form.Kind),
		})
	}
	return into.Object, problems, got, nil
}
