package request

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// PatchTypes are the media types of patches, as error texts list them.
var PatchTypes = []types.PatchType{
	types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType, types.ApplyCBORPatchType,
}

// maxJSONPatchOperations bounds what one JSON patch may ask for.
const maxJSONPatchOperations = 10000

// maxPatchDepth bounds how deep JSON and merge patches nest, and how deep their
// paths lead: going down an object keeps, for every level, a copy of all that is
// below it. Kubernetes has the limit of its JSON decoder, 10,000.
const maxPatchDepth = 128

// maxJSONPatchCopy bounds, in bytes, what the copies of one JSON patch may add
// to an object: each can double it. It is Kubernetes' limit.
const maxJSONPatchCopy = 3 << 20

// The library has the limit for the whole process.
func init() { jsonpatch.AccumulatedCopySizeLimit = maxJSONPatchCopy }

// Patch changes an object by a patch of any type. data is called once the
// request is known to be allowed.
func (h *Handler) Patch(ctx context.Context, info *Info, kind types.PatchType, data func() ([]byte, error), opts *metav1.PatchOptions) (obj runtime.Object, created bool, err error) {
	if err := h.Authorize(ctx, info); err != nil {
		return nil, false, err
	}
	bytes, err := data()
	if err != nil {
		return nil, false, err
	}
	if errs := validation.ValidatePatchOptions(opts, kind); len(errs) > 0 {
		return nil, false, invalidOptions("PatchOptions", errs)
	}
	var asJSON []byte
	if kind == types.ApplyCBORPatchType {
		kind = types.ApplyYAMLPatchType
		bytes, err = codec.CBORToJSON(bytes)
		asJSON = bytes
	} else {
		asJSON, err = wellFormed(bytes, kind)
	}
	if err != nil {
		return nil, false, err
	}
	info.Audit.Patch(asJSON)
	c := &change{h: h, info: info, options: opts, dryRun: len(opts.DryRun) > 0, manager: info.manager(opts.FieldManager)}
	p := &patch{change: c, kind: kind, data: bytes, opts: opts}
	c.next = p.next
	// Applying may always create; the one who applies says all that is wanted.
	c.mayCreate = kind == types.ApplyYAMLPatchType && info.Subresource == ""
	stored, err := c.run(ctx)
	if err != nil {
		return nil, false, err
	}
	answer, err := h.answer(info, stored)
	return answer, c.created, err
}

// wellFormed gives a patch as JSON.
func wellFormed(data []byte, kind types.PatchType) ([]byte, error) {
	if kind == types.ApplyYAMLPatchType {
		data, err := yaml.ToJSON(data)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error encoding patch: %v", err))
		}
		return data, nil
	}
	if !json.Valid(data) {
		return nil, apierrors.NewBadRequest("invalid JSON patch")
	}
	if kind != types.StrategicMergePatchType && depth(data) > maxPatchDepth {
		return nil, tooDeep()
	}
	return data, nil
}

func tooDeep() error {
	return apierrors.NewBadRequest(fmt.Sprintf("the patch is nested too deep: at most %d levels are allowed", maxPatchDepth))
}

// depth is how many objects and arrays of valid JSON are within each other.
func depth(data []byte) (most int) {
	now, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{', c == '[':
			now++
			most = max(most, now)
		case c == '}', c == ']':
			now--
		}
	}
	return most
}

// jsonPatchOp are the fields of an operation of a JSON patch.
type jsonPatchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

// patch makes the wanted object of a change from a patch.
type patch struct {
	*change
	kind types.PatchType
	data []byte
	opts *metav1.PatchOptions
}

func (p *patch) strict() bool { return p.opts.FieldValidation != metav1.FieldValidationIgnore }

func (p *patch) next(cur api.Object) (api.Object, error) {
	if p.kind == types.ApplyYAMLPatchType {
		return p.apply(cur)
	}
	if cur == nil {
		return nil, apierrors.NewNotFound(p.info.resource(), p.info.Name)
	}
	if sub := p.info.sub(); sub != nil && sub.Put != nil {
		return p.nextOfBody(cur, sub)
	}
	next, err := p.patched(cur, codec.FormOf(p.info.Served))
	if err != nil {
		return nil, err
	}
	obj := next.(api.Object)
	p.h.fill(p.info.row(), obj)
	return obj, p.h.track(p.info, obj, cur, p.manager)
}

// nextOfBody patches the body that a subresource shows (scale) and puts it back.
func (p *patch) nextOfBody(cur api.Object, sub *api.Subresource) (api.Object, error) {
	body, err := sub.Before(cur)
	if err != nil {
		return nil, err
	}
	next, err := p.patched(body, p.info.Form())
	if err != nil {
		return nil, err
	}
	return p.putNext(cur, next)
}

// patched is the object as patched: a hub object if the form has a hub.
func (p *patch) patched(cur runtime.Object, form codec.Form) (runtime.Object, error) {
	if p.kind == types.StrategicMergePatchType {
		return p.strategic(cur, form)
	}
	if obj, ok := cur.(api.Object); ok && p.kind == types.MergePatchType && p.info.IsTree() {
		if next := p.mergeTree(obj); next != nil {
			return next, nil
		}
	} else if ok && p.kind == types.MergePatchType {
		if next := p.mergeParts(obj, form); next != nil {
			return next, nil
		}
	}
	return p.patchedWhole(cur, form)
}

// patchedWhole goes through the JSON of the whole object.
func (p *patch) patchedWhole(cur runtime.Object, form codec.Form) (runtime.Object, error) {
	was, err := p.json(cur, form)
	if err != nil {
		return nil, err
	}
	now, problems, err := p.applyJSON(was)
	if err != nil {
		return nil, err
	}
	obj, more, err := p.h.Codec.DecodeRaw(now, codec.JSON, form, p.strict())
	if err != nil {
		return nil, invalidPatch(string(now), err)
	}
	if problems = append(problems, more...); len(problems) > 0 {
		if err := p.objections(problems, string(now)); err != nil {
			return nil, err
		}
	}
	return obj, nil
}

func (p *patch) json(cur runtime.Object, form codec.Form) ([]byte, error) {
	if obj, ok := cur.(api.Object); ok && p.info.row().View != nil {
		return p.h.Codec.AppendOnce(nil, obj, form, codec.JSON)
	}
	if obj, ok := cur.(api.Object); ok && form.GroupVersionKind == p.info.Served.Version.WithKind(p.info.Served.Kind) {
		return p.h.Codec.Append(nil, obj, form, codec.JSON)
	}
	return p.h.Codec.AppendValue(nil, cur, form.GroupVersionKind, codec.JSON)
}

// objections turns unknown and repeated fields into warnings or a refusal.
func (p *patch) objections(problems []error, patched string) error {
	if p.opts.FieldValidation == metav1.FieldValidationStrict {
		return invalidPatch(patched, runtime.NewStrictDecodingError(problems))
	}
	for _, w := range codec.Warnings(problems) {
		p.warn(w)
	}
	return nil
}

func invalidPatch(value string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// applyJSON applies a JSON patch or a JSON merge patch to JSON.
func (p *patch) applyJSON(was []byte) (now []byte, problems []error, err error) {
	if p.kind == types.MergePatchType {
		if p.strict() {
			if problems, err = kjson.UnmarshalStrict(p.data, &map[string]any{}); err != nil {
				return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
			}
		}
		now, err = mergePatch(was, p.data)
		if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		return now, problems, err
	}
	if p.strict() {
		var operations []jsonPatchOp
		if problems, err = kjson.UnmarshalStrict(p.data, &operations); err != nil {
			text := strings.ReplaceAll(err.Error(), "request.jsonPatchOp", "handlers.jsonPatchOp") // where Kubernetes has it
			return nil, nil, apierrors.NewBadRequest("error decoding patch: " + text)
		}
		for i, problem := range problems {
			problems[i] = fmt.Errorf("json patch %v", problem)
		}
	}
	operations, err := jsonpatch.DecodePatch(p.data)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(operations) > maxJSONPatchOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"The allowed maximum operations in a JSON patch is %d, got %d", maxJSONPatchOperations, len(operations)))
	}
	for _, o := range operations {
		path, _ := o.Path() // who has none is refused below
		from, _ := o.From()
		if max(strings.Count(path, "/"), strings.Count(from, "/")) > maxPatchDepth {
			return nil, nil, tooDeep()
		}
	}
	if now, err = operate(operations, was); err != nil {
		return nil, nil, unprocessable(err)
	}
	return now, problems, nil
}

// operate does the operations of a JSON patch. The library panics at some that
// lack a value, which is but another reason why they cannot be done.
func operate(operations jsonpatch.Patch, was []byte) (now []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			now, err = nil, fmt.Errorf("the operations cannot be done: %v", p)
		}
	}()
	return operations.Apply(was)
}

// strategic applies a strategic merge patch, whose list rules come from the
// tags of the Go type.
func (p *patch) strategic(cur runtime.Object, form codec.Form) (runtime.Object, error) {
	shape := cur
	if obj, ok := cur.(api.Object); ok && form.FromHub != nil {
		var err error
		if shape, err = form.FromHub(obj); err != nil {
			return nil, err
		}
	}
	was, err := runtime.DefaultUnstructuredConverter.ToUnstructured(shape)
	if err != nil {
		return nil, err
	}
	was["kind"], was["apiVersion"] = form.Kind, form.GroupVersion().String()
	wanted := map[string]any{}
	problems, err := codec.Unmarshal(p.data, &wanted, p.strict())
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	now, err := strategicpatch.StrategicMergeMapPatch(was, wanted, form.New())
	if err != nil {
		return nil, strategicError(err)
	}
	obj := form.New()
	value := fmt.Sprintf("%+v", wanted)
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(now, obj, p.strict())
	if strictErr, ok := runtime.AsStrictDecodingError(err); ok {
		problems = append(problems, strictErr.Errors()...)
	} else if err != nil {
		return nil, invalidPatch(value, err)
	}
	if len(problems) > 0 {
		if err := p.objections(problems, value); err != nil {
			return nil, err
		}
	}
	return codec.ToHub(obj, form)
}

func strategicError(err error) error {
	switch err {
	case mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat:
		return apierrors.NewBadRequest(err.Error())
	case mergepatch.ErrNoListOfLists, mergepatch.ErrPatchContentNotMatchRetainKeys:
		return unprocessable(err)
	}
	return err
}
