package codec

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"hansa.dev/hansa/api"
)

// Decode reads a body. The result is a hub object where the form has a hub; it
// has no defaults and no TypeMeta, and belongs to the caller. With strict,
// unknown and repeated fields are listed beside the object; whether they are
// fatal is the caller's choice. An error is an API status error.
func (c *Codec) Decode(data []byte, media MediaType, form Form, strict bool) (obj runtime.Object, problems []error, err error) {
	obj, problems, got, err := c.decode(data, media, form, strict)
	if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
		err = decodeError(err, got, form, data)
	}
	return obj, problems, err
}

// DecodeRaw is Decode with the bare error of the decoder, for bodies that are
// not a client's own.
func (c *Codec) DecodeRaw(data []byte, media MediaType, form Form, strict bool) (obj runtime.Object, problems []error, err error) {
	obj, problems, _, err = c.decode(data, media, form, strict)
	return obj, problems, err
}

func (c *Codec) decode(data []byte, media MediaType, form Form, strict bool) (obj runtime.Object, problems []error, got *schema.GroupVersionKind, err error) {
	if form.Tree != nil {
		return c.decodeTree(data, media, form, strict)
	}
	if media == JSON {
		if obj, problems, ok := decodeJSON(data, form, strict); ok {
			obj, err = ToHub(obj, form)
			return obj, problems, &form.GroupVersionKind, err
		}
	}
	return c.decodeAny(data, media, form, strict)
}

// Unmarshal decodes JSON as the API does: names count with their case, and whole
// numbers stay such. With strict, unknown and repeated fields are listed as
// problems.
func Unmarshal(data []byte, into any, strict bool) (problems []error, err error) {
	if strict {
		return kjson.UnmarshalStrict(data, into)
	}
	return nil, kjson.UnmarshalCaseSensitivePreserveInts(data, into)
}

// decodeJSON is the short way for a well-formed body of the expected kind: one
// pass over the bytes. Anything else is left to decodeAny, which finds out what
// is wrong.
func decodeJSON(data []byte, form Form, strict bool) (obj runtime.Object, problems []error, ok bool) {
	obj = form.New()
	problems, err := Unmarshal(data, obj, strict)
	if err != nil {
		return nil, nil, false
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	return obj, problems, gvk == form.GroupVersionKind || gvk == schema.GroupVersionKind{}
}

// decodeAny is the long way, through the serializers of apimachinery, with the
// error texts of Kubernetes.
func (c *Codec) decodeAny(data []byte, media MediaType, form Form, strict bool) (runtime.Object, []error, *schema.GroupVersionKind, error) {
	obj, problems, got, err := c.deserialize(data, media, form, form.New(), strict)
	if err != nil {
		return nil, nil, got, err
	}
	if *got != form.GroupVersionKind && !c.names(*got, form) {
		if got.Kind == form.Kind && c.convertible(*got, form.GroupVersionKind) {
			return nil, nil, got, apierrors.NewBadRequest(fmt.Sprintf(
				"the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), form.GroupVersion()))
		}
		return nil, nil, got, fmt.Errorf("converting (%s) to (%s): unknown conversion", typeName(obj), internalName(form.GroupVersionKind))
	}
	obj, err = ToHub(obj, form)
	return obj, problems, got, err
}

// deserialize decodes a body by the serializer of its media type. got is the kind
// that it says it is, also beside an error, if it says one.
func (c *Codec) deserialize(data []byte, media MediaType, form Form, into runtime.Object, strict bool) (obj runtime.Object, problems []error, got *schema.GroupVersionKind, err error) {
	serializers := c.lenient
	if strict {
		serializers = c.strict
	}
	serializer := serializers[media]
	if serializer == nil {
		return nil, nil, nil, apierrors.NewInternalError(fmt.Errorf("no serializer for media type %q", media))
	}
	expected := form.GroupVersionKind
	obj, got, err = serializer.Decode(data, &expected, into)
	if strictErr, ok := runtime.AsStrictDecodingError(err); ok && obj != nil {
		problems, err = strictErr.Errors(), nil
	}
	return obj, problems, got, err
}

// names says whether a kind is another name of the form's own type.
func (c *Codec) names(gvk schema.GroupVersionKind, form Form) bool {
	kinds, _, err := c.registry.Scheme().ObjectKinds(form.New())
	return err == nil && slices.Contains(kinds, gvk)
}

// convertible says whether two kinds are versions of one.
func (c *Codec) convertible(a, b schema.GroupVersionKind) bool {
	x, y := c.registry.ByGVK(a), c.registry.ByGVK(b)
	if x != nil && y != nil {
		return x.Resource == y.Resource
	}
	return a.Group == b.Group && a.Kind == b.Kind
}

// ToHub brings a decoded object into its hub form, without TypeMeta.
func ToHub(obj runtime.Object, form Form) (runtime.Object, error) {
	if form.ToHub != nil {
		hub, err := form.ToHub(obj.(api.Object))
		if err != nil {
			return nil, unhandled(form, err)
		}
		obj = hub
	}
	if form.Parse != nil {
		if err := form.Parse(obj.(api.Object)); err != nil {
			return nil, err
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil
}

// Parse is what ToHub does to an object that has not been decoded.
func Parse(obj api.Object, form Form) error {
	if form.Parse == nil {
		return nil
	}
	if err := form.Parse(obj); err != nil {
		return unhandled(form, err)
	}
	return nil
}

// unhandled says that a body of the expected kind cannot be one.
func unhandled(form Form, err error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", form.Kind, form.Version, form.Kind, err))
}

// decodeError says which kind the body was taken for; when it was none, it
// shows the start of the body.
func decodeError(err error, got *schema.GroupVersionKind, form Form, data []byte) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, form.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", form.Kind, err, summary(data)))
}

// summary is the start of a body, in hexadecimal unless it looks like JSON.
func summary(data []byte) string {
	const most = 30
	switch {
	case len(data) == 0:
		return "<empty>"
	case data[0] == '{' && len(data) > most:
		return string(data[:most]) + " ..."
	case data[0] == '{':
		return string(data)
	case len(data) > most:
		return hex.EncodeToString(data[:most]) + " ..."
	}
	return hex.EncodeToString(data)
}

func typeName(obj runtime.Object) string {
	return reflect.TypeOf(obj).Elem().String()
}

// internalName is how Kubernetes calls the unversioned form of a kind.
func internalName(gvk schema.GroupVersionKind) string {
	group, _, _ := strings.Cut(gvk.Group, ".")
	if group == "" {
		group = "core"
	}
	return group + "." + gvk.Kind
}

// yaml's strict errors come as one text; these are its possible beginnings.
var yamlStrictPrefixes = []string{"yaml: unmarshal errors:\n", "error converting YAML to JSON: yaml: unmarshal errors:\n"}

// Warnings are the problems of a strict decoding as sentences for the client's
// Warning header, one for each unknown or repeated field.
func Warnings(problems []error) []string {
	var out []string
	for _, p := range problems {
		text := p.Error()
		rest, isYAML := text, false
		for _, prefix := range yamlStrictPrefixes {
			if r, ok := strings.CutPrefix(text, prefix); ok {
				rest, isYAML = r, true
				break
			}
		}
		if !isYAML {
			out = append(out, text)
			continue
		}
		for _, line := range strings.Split(rest, "\n") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// StrictError is the answer to a body with problems when validation is Strict.
func StrictError(problems []error, form Form, data []byte) error {
	gvk := form.GroupVersionKind
	return decodeError(runtime.NewStrictDecodingError(problems), &gvk, form, data)
}

// DecodeOptions reads the options of a delete, which clients send as a body in
// the version of any group or of none: also of one that is defined by others, as
// the clients of operators do.
func (c *Codec) DecodeOptions(data []byte, media MediaType, into *metav1.DeleteOptions) error {
	expected := metav1.Unversioned.WithKind("DeleteOptions")
	obj, got, err := c.options[media].Decode(data, &expected, into)
	switch {
	case err != nil:
		return apierrors.NewBadRequest(err.Error())
	case got.Kind != expected.Kind:
		return apierrors.NewBadRequest("decoded object cannot be converted to DeleteOptions")
	}
	if obj != runtime.Object(into) {
		*into = *obj.(*metav1.DeleteOptions)
	}
	return nil
}
