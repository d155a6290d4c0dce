package custom

import (
	"fmt"
	"maps"
	"net/http"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/conversion"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/util/webhook"
)

// converter is the way between the versions of a definition.
type converter interface {
	// to gives open objects in another version. The results are open as well and
	// belong to the caller; they may share the trees of what was given, which is
	// not used again.
	to(v *version, objs ...*Object) ([]*Object, error)
}

// sameTree is the conversion "None": versions differ in their names only.
type sameTree struct{}

func (sameTree) to(v *version, objs ...*Object) ([]*Object, error) {
	out := make([]*Object, len(objs))
	for i, o := range objs {
		out[i] = &Object{ObjectMeta: o.ObjectMeta}
		out[i].content = &content{kind: o.content.kind, version: v.Name, tree: o.open()}
	}
	return out, nil
}

// byWebhook asks a server of whoever wrote the definition.
type byWebhook struct {
	convertor runtime.ObjectConvertor
	err       error // why there is none
}

// converters makes the converters of definitions. resolve finds the address of a
// service.
func converters(resolve webhook.ServiceResolver) (func(*definition) converter, error) {
	factory, err := conversion.NewCRConverterFactory(resolve, nil)
	if err != nil {
		return nil, fmt.Errorf("prepare conversion webhooks: %w", err)
	}
	return func(d *definition) converter {
		if c := d.Spec.Conversion; c == nil || c.Strategy != apiextensionsv1.WebhookConverter {
			return sameTree{}
		}
		c := &byWebhook{}
		_, c.convertor, c.err = factory.NewConverter(d.CustomResourceDefinition)
		return c
	}, nil
}

func (c *byWebhook) to(v *version, objs ...*Object) ([]*Object, error) {
	if c.err != nil {
		return nil, failed(c.err)
	}
	list := &unstructured.UnstructuredList{Items: make([]unstructured.Unstructured, len(objs))}
	list.SetGroupVersionKind(v.gv.WithKind(v.of.Status.AcceptedNames.ListKind))
	for i, o := range objs {
		list.Items[i].Object = o.whole()
	}
	converted, err := c.convert(list, v)
	if err != nil {
		return nil, failed(err)
	}
	out := make([]*Object, len(objs))
	for i := range converted {
		u := &converted[i]
		out[i] = &Object{ObjectMeta: objs[i].ObjectMeta}
		// The rest of the metadata is none of the webhook's business.
		out[i].Labels, out[i].Annotations = u.GetLabels(), u.GetAnnotations()
		tree := maps.Clone(u.Object)
		for _, name := range []string{"apiVersion", "kind", "metadata"} {
			delete(tree, name)
		}
		out[i].content = &content{kind: objs[i].content.kind, version: v.Name, tree: tree}
	}
	return out, nil
}

// convert asks for one object as for one, and for several at once: errors tell
// which was meant.
func (c *byWebhook) convert(list *unstructured.UnstructuredList, v *version) ([]unstructured.Unstructured, error) {
	if len(list.Items) == 1 {
		out, err := c.convertor.ConvertToVersion(&list.Items[0], v.gv)
		if err != nil {
			return nil, err
		}
		return []unstructured.Unstructured{*out.(*unstructured.Unstructured)}, nil
	}
	out, err := c.convertor.ConvertToVersion(list, v.gv)
	if err != nil {
		return nil, err
	}
	return out.(*unstructured.UnstructuredList).Items, nil
}

// failed is the answer to who asked for what could not be converted.
func failed(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error(),
	}}
}
