package custom

import (
	"encoding/json"
	"errors"
	"strings"
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// intern keeps one copy of a text that many objects have.
func intern(s string) string { return unique.Make(strings.Clone(s)).Value() }

// appendText appends a name of the API as JSON: it has nothing to escape.
func appendText(b []byte, s string) []byte { return append(append(append(b, '"'), s...), '"') }

var errNoObject = errors.New("it is no JSON object")

// members calls f with each member of a JSON object: its name, its text as a
// whole, and its value. It looks no further into values than to find their ends;
// what is wrong in them stays to be found by whoever decodes them.
func members(data []byte, f func(name string, member, value []byte) error) error {
	i := space(data, 0)
	if i >= len(data) || data[i] != '{' {
		return errNoObject
	}
	i = space(data, i+1)
	for first := true; ; first = false {
		if i < len(data) && data[i] == '}' {
			return nil
		}
		if !first {
			if i >= len(data) || data[i] != ',' {
				return errNoObject
			}
			i = space(data, i+1)
		}
		start := i
		if i = text(data, i); i < 0 {
			return errNoObject
		}
		name, err := unquote(data[start:i])
		if err != nil {
			return err
		}
		if i = space(data, i); i >= len(data) || data[i] != ':' {
			return errNoObject
		}
		value := space(data, i+1)
		if i = skip(data, value); i < 0 {
			return errNoObject
		}
		if err := f(name, data[start:i], data[value:i]); err != nil {
			return err
		}
		i = space(data, i)
	}
}

func unquote(quoted []byte) (name string, err error) {
	for _, c := range quoted {
		if c == '\\' {
			err = json.Unmarshal(quoted, &name)
			return name, err
		}
	}
	return string(quoted[1 : len(quoted)-1]), nil
}

// space is where what is not space begins.
func space(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

// text is where a string ends that begins at i, or -1.
func text(data []byte, i int) int {
	if i >= len(data) || data[i] != '"' {
		return -1
	}
	for i++; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// skip is where a value ends that begins at i, or -1.
func skip(data []byte, i int) int {
	if i >= len(data) {
		return -1
	}
	switch data[i] {
	case '"':
		return text(data, i)
	case '{', '[':
		return skipNested(data, i)
	}
	start := i
	for i < len(data) && !strings.ContainsRune(",}] \n\t\r", rune(data[i])) {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

func skipNested(data []byte, i int) int {
	for depth := 0; i < len(data); {
		switch data[i] {
		case '"':
			if i = text(data, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}

// metadataTree is metadata as decoded JSON is, without the managers: they are
// neither validated by schemas nor merged.
func metadataTree(m *metav1.ObjectMeta) map[string]any {
	tree := make(map[string]any, 8)
	set := func(name, value string) {
		if value != "" {
			tree[name] = value
		}
	}
	set("name", m.Name)
	set("generateName", m.GenerateName)
	set("namespace", m.Namespace)
	set("selfLink", m.SelfLink)
	set("uid", string(m.UID))
	set("resourceVersion", m.ResourceVersion)
	if m.Generation != 0 {
		tree["generation"] = m.Generation
	}
	if !m.CreationTimestamp.IsZero() {
		tree["creationTimestamp"] = m.CreationTimestamp.ToUnstructured()
	}
	if m.DeletionTimestamp != nil {
		tree["deletionTimestamp"] = m.DeletionTimestamp.ToUnstructured()
	}
	if m.DeletionGracePeriodSeconds != nil {
		tree["deletionGracePeriodSeconds"] = *m.DeletionGracePeriodSeconds
	}
	if len(m.Labels) > 0 {
		tree["labels"] = anyMap(m.Labels)
	}
	if len(m.Annotations) > 0 {
		tree["annotations"] = anyMap(m.Annotations)
	}
	if len(m.Finalizers) > 0 {
		list := make([]any, len(m.Finalizers))
		for i, f := range m.Finalizers {
			list[i] = f
		}
		tree["finalizers"] = list
	}
	if len(m.OwnerReferences) > 0 {
		list := make([]any, len(m.OwnerReferences))
		for i := range m.OwnerReferences {
			list[i] = ownerTree(&m.OwnerReferences[i])
		}
		tree["ownerReferences"] = list
	}
	return tree
}

func ownerTree(r *metav1.OwnerReference) map[string]any {
	tree := map[string]any{"apiVersion": r.APIVersion, "kind": r.Kind, "name": r.Name, "uid": string(r.UID)}
	if r.Controller != nil {
		tree["controller"] = *r.Controller
	}
	if r.BlockOwnerDeletion != nil {
		tree["blockOwnerDeletion"] = *r.BlockOwnerDeletion
	}
	return tree
}

func anyMap(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
