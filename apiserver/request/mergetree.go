package request

import (
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// mergeTree merges a JSON merge patch into the tree of a custom resource: most
// patches leave its metadata alone, and then nothing has to be encoded and decoded
// again. It answers nil where the long way has to be gone: for metadata, and if
// there is anything to be said of the outcome.
func (p *patch) mergeTree(cur api.Object) api.Object {
	change := map[string]any{}
	problems, err := codec.Unmarshal(p.data, &change, p.strict())
	if err != nil || len(problems) > 0 || change == nil {
		return nil
	}
	for _, name := range []string{"apiVersion", "kind", "metadata"} {
		if _, ok := change[name]; ok {
			return nil
		}
	}
	obj, problems, err := p.info.row().Patch(cur, func(tree map[string]any) { mergeInto(tree, change) }, p.strict())
	if err != nil || len(problems) > 0 {
		return nil
	}
	return obj
}

// mergeInto is a JSON merge patch (RFC 7386) of decoded JSON, of which the result
// has parts.
func mergeInto(doc, patch map[string]any) {
	for key, v := range patch {
		inner, object := v.(map[string]any)
		had, there := doc[key].(map[string]any)
		switch {
		case v == nil:
			delete(doc, key)
		case object && there:
			mergeInto(had, inner)
		default:
			doc[key] = withoutNulls(v)
		}
	}
}
