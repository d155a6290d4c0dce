package request

import (
	"bytes"
	"encoding/json"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// mergePatch is jsonpatch.MergePatch (RFC 7386) without its copies: that keeps,
// for every level of the patch, all that is below it.
func mergePatch(was, patch []byte) ([]byte, error) {
	change, ok := decodeNumbers(patch).(map[string]any)
	if !ok {
		return jsonpatch.MergePatch(was, patch) // knows what to say of it
	}
	return merge(was, change)
}

// decodeNumbers is JSON with numbers as they are written, nil if it is none.
func decodeNumbers(data []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

// merge changes JSON by a patch, and takes apart only what the patch speaks of.
func merge(was json.RawMessage, patch map[string]any) (json.RawMessage, error) {
	var doc map[string]json.RawMessage
	if json.Unmarshal(was, &doc) != nil || doc == nil {
		return json.Marshal(withoutNulls(patch)) // it was no object
	}
	for key, v := range patch {
		had, there := doc[key]
		inner, object := v.(map[string]any)
		var err error
		switch {
		case v == nil:
			delete(doc, key)
		case there && object:
			doc[key], err = merge(had, inner)
		default:
			doc[key], err = json.Marshal(withoutNulls(v))
		}
		if err != nil {
			return nil, err
		}
	}
	return json.Marshal(doc)
}

// withoutNulls takes away what is to be removed where there is nothing; also in
// arrays, as the library does.
func withoutNulls(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if inner == nil {
				delete(v, key)
			} else {
				withoutNulls(inner)
			}
		}
	case []any:
		for _, inner := range v {
			withoutNulls(inner)
		}
	}
	return v
}
