package settings

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
)

// flagOnly are the kubelet's flags that no field of a file stands for, in the
// words of its documentation.
var flagOnly = []struct {
	name, what string
	set        func(s *Settings, text string) error
}{
	{"minimum-container-ttl-duration", "how long an ended container stays at least", func(s *Settings, text string) (err error) {
		if s.Keep.MinAge, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%q is not a duration such as 1m30s", text)
		}
		return nil
	}},
	{"maximum-dead-containers-per-container", "how many old instances of each container stay; negative is all", func(s *Settings, text string) error {
		return whole(text, &s.Keep.Old)
	}},
	{"maximum-dead-containers", "how many old instances of containers stay on the node; negative is all", func(s *Settings, text string) error {
		return whole(text, &s.MaxEnded)
	}},
	{"image-credential-provider-config", "file or directory that says which programs give credentials for images (CredentialProviderConfig)", func(s *Settings, text string) error {
		s.ProviderConfig = text
		return nil
	}},
	{"image-credential-provider-bin-dir", "directory of those programs", func(s *Settings, text string) error {
		s.ProviderDir = text
		return nil
	}},
}

func whole(text string, to *int) error {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	*to = int(n)
	return nil
}

// setOnly takes a flag that has no field; it answers whether it is one.
func (s *Settings) setOnly(name, text string) (bool, error) {
	for _, f := range flagOnly {
		if f.name == name {
			return true, f.set(s, text)
		}
	}
	return false, nil
}

// Flags are the kubelet's flags that apply, with the fields that they set.
func Flags() []Field {
	var out []Field
	for _, f := range flagOnly {
		out = append(out, Field{Flag: f.name, Why: f.what})
	}
	for _, f := range Fields {
		if f.Flag != "" {
			out = append(out, f)
		}
	}
	return out
}

// Bool says that a flag may stand alone for true.
func (f *Field) Bool() bool { return f.kind() == reflect.TypeFor[bool]() }

// List says that a flag has several values, between commas.
func (f *Field) List() bool {
	return f.kind().Kind() == reflect.Slice || f.kind().Kind() == reflect.Map
}

// kind is the type of the field's value, pointers resolved.
func (f *Field) kind() reflect.Type {
	t := reflect.TypeFor[kubelet.KubeletConfiguration]()
	for part := range strings.SplitSeq(f.Path, ".") {
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name == part {
				t = t.Field(i).Type
				break
			}
		}
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	return t
}

// value is the text of a flag as a file would have it.
func (f *Field) value(text string) (any, error) {
	t := f.kind()
	switch {
	case t == reflect.TypeFor[metav1.Duration]():
		if _, err := time.ParseDuration(text); err != nil {
			return nil, fmt.Errorf("%q is not a duration such as 1m30s", text)
		}
		return text, nil
	case t == reflect.TypeFor[[]v1.Taint]():
		return taints(text)
	case t == reflect.TypeFor[map[string][]string]():
		return headers(text)
	case t == reflect.TypeFor[map[string]string]():
		return pairs(text, f.Path == "evictionHard" || f.Path == "evictionSoft")
	case t.Kind() == reflect.Slice:
		return list(text), nil
	case t.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return b, nil
	case t.Kind() == reflect.Int32, t.Kind() == reflect.Int64:
		n, err := strconv.ParseInt(text, 10, t.Bits())
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return n, nil
	}
	return text, nil
}

// list is what stands between commas.
func list(text string) []any {
	out := []any{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// pairs is NAME=VALUE,… or, of thresholds, NAME<VALUE,….
func pairs(text string, thresholds bool) (map[string]any, error) {
	sign := "="
	if thresholds {
		sign = "<"
	}
	out := map[string]any{}
	for _, part := range list(text) {
		name, value, ok := strings.Cut(part.(string), sign)
		if !ok {
			return nil, fmt.Errorf("%q is not NAME%sVALUE", part, sign)
		}
		out[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return out, nil
}

// headers is NAME:VALUE,….
func headers(text string) (map[string]any, error) {
	out := map[string]any{}
	for _, part := range list(text) {
		name, value, ok := strings.Cut(part.(string), ":")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME:VALUE", part)
		}
		values, _ := out[name].([]any)
		out[name] = append(values, strings.TrimSpace(value))
	}
	return out, nil
}

// taints is KEY=VALUE:EFFECT,….
func taints(text string) ([]any, error) {
	out := []any{}
	for _, part := range list(text) {
		left, effect, ok := strings.Cut(part.(string), ":")
		if !ok {
			return nil, fmt.Errorf("%q is not KEY=VALUE:EFFECT", part)
		}
		key, value, _ := strings.Cut(left, "=")
		out = append(out, map[string]any{"key": key, "value": value, "effect": effect})
	}
	return out, nil
}
