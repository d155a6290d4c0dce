package request

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// mergeParts merges a JSON merge patch into the fields of an object that it
// speaks of, at the top level, and takes the others as they are: most patches
// are of one field, and managed fields alone may be half of an object. It
// answers nil where the long way has to be gone: another version than the hub, a
// field that is unknown, anything to be said of the outcome. (Raw JSON within the
// others keeps its spaces, which the long way takes out.)
func (p *patch) mergeParts(cur api.Object, form codec.Form) runtime.Object {
	was := reflect.ValueOf(cur).Elem()
	if form.ToHub != nil || form.FromHub != nil || reflect.TypeOf(form.New()) != reflect.TypeOf(cur) {
		return nil
	}
	touched, ok := partsOf(was.Type(), p.data)
	if !ok {
		return nil
	}
	part := form.New()
	for _, i := range touched {
		reflect.ValueOf(part).Elem().Field(i).Set(was.Field(i)) // read, not written
	}
	data, err := p.h.Codec.AppendValue(nil, part, form.GroupVersionKind, codec.JSON)
	if err != nil {
		return nil
	}
	data, problems, err := p.applyJSON(data)
	if err != nil || len(problems) > 0 {
		return nil
	}
	merged, problems, err := p.h.Codec.DecodeRaw(data, codec.JSON, form, p.strict())
	if err != nil || len(problems) > 0 {
		return nil
	}
	next := cur.DeepCopyObject()
	for _, i := range touched {
		reflect.ValueOf(next).Elem().Field(i).Set(reflect.ValueOf(merged).Elem().Field(i))
	}
	return next
}

// partsOf are the fields of a type that a patch speaks of; false if there are
// others, or it is no object.
func partsOf(t reflect.Type, patch []byte) (touched []int, ok bool) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(patch, &keys) != nil || keys == nil {
		return nil, false
	}
	fields := topFields(t)
	for key := range keys {
		i, ok := fields[key]
		if !ok {
			return nil, false
		}
		touched = append(touched, i)
	}
	return touched, true
}

var topFieldsOf sync.Map // of reflect.Type: map[string]int

// topFields are the fields of a kind's type by their names in JSON, without
// those that say which kind it is.
func topFields(t reflect.Type) map[string]int {
	if known, ok := topFieldsOf.Load(t); ok {
		return known.(map[string]int)
	}
	fields := map[string]int{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = i
		}
	}
	topFieldsOf.Store(t, fields)
	return fields
}
