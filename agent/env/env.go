// Package env builds the environment of a container from every source the API
// has: values with $(VAR) references, fields of the pod, resources, keys of
// ConfigMaps and Secrets, whole ConfigMaps and Secrets, keys of files, and the
// services of the namespace.
//
// It is pure: what it shows comes in as Sources.
package env

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/downward"
)

// Sources are what variables may refer to.
type Sources struct {
	// ConfigMap and Secret answer nil when there is none of that name.
	ConfigMap   func(namespace, name string) *v1.ConfigMap
	Secret      func(namespace, name string) *v1.Secret
	Addresses   downward.Addresses
	Allocatable v1.ResourceList
	// Services are those whose variables the pod gets, in name order.
	Services []*v1.Service
	// File reads a file of a volume of the pod.
	File func(volume, path string) ([]byte, error)
}

// Env is the finished environment.
type Env struct {
	// Vars in the order in which they are to be set.
	Vars []v1.EnvVar
	// Values by name.
	Values map[string]string
}

// Build makes the environment of one container. An error says which object or
// key is missing, in words that go to the container's status.
func Build(p *v1.Pod, c *v1.Container, src Sources) (*Env, error) {
	b := &builder{pod: p, container: c, src: src, out: &Env{Values: map[string]string{}}, services: serviceVars(src.Services)}
	for i := range c.EnvFrom {
		if err := b.from(&c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		v := &c.Env[i]
		value, ok, err := b.value(v)
		if err != nil {
			return nil, err
		}
		if ok {
			b.set(v.Name, value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.services)) {
		if _, ok := b.out.Values[name]; !ok {
			b.set(name, b.services[name])
		}
	}
	return b.out, nil
}

type builder struct {
	pod       *v1.Pod
	container *v1.Container
	src       Sources
	services  map[string]string
	out       *Env
}

// set gives a variable its value; a later one of the same name replaces it.
func (b *builder) set(name, value string) {
	if _, ok := b.out.Values[name]; ok {
		b.out.Vars = slices.DeleteFunc(b.out.Vars, func(v v1.EnvVar) bool { return v.Name == name })
	}
	b.out.Values[name] = value
	b.out.Vars = append(b.out.Vars, v1.EnvVar{Name: name, Value: value})
}

// lookup finds what $(NAME) stands for: what was set so far, or a service's
// variable.
func (b *builder) lookup(name string) (string, bool) {
	if v, ok := b.out.Values[name]; ok {
		return v, true
	}
	v, ok := b.services[name]
	return v, ok
}

// from adds the keys of a whole object.
func (b *builder) from(e *v1.EnvFromSource) error {
	values := map[string]string{}
	switch {
	case e.ConfigMapRef != nil:
		name := e.ConfigMapRef.Name
		obj := b.src.ConfigMap(b.pod.Namespace, name)
		if obj == nil {
			if ptr.Deref(e.ConfigMapRef.Optional, false) {
				return nil
			}
			return fmt.Errorf("configmap %q not found", name)
		}
		maps.Copy(values, obj.Data)
	case e.SecretRef != nil:
		name := e.SecretRef.Name
		obj := b.src.Secret(b.pod.Namespace, name)
		if obj == nil {
			if ptr.Deref(e.SecretRef.Optional, false) {
				return nil
			}
			return fmt.Errorf("secret %q not found", name)
		}
		for k, v := range obj.Data {
			values[k] = string(v)
		}
	}
	// Any key, and any prefix that the API lets through, makes a name.
	for _, k := range slices.Sorted(maps.Keys(values)) {
		b.set(e.Prefix+k, values[k])
	}
	return nil
}

// value is what one variable is set to; ok is false when an optional source is
// missing.
func (b *builder) value(v *v1.EnvVar) (value string, ok bool, err error) {
	if v.Value != "" || v.ValueFrom == nil {
		return Expand(v.Value, b.lookup), true, nil
	}
	from := v.ValueFrom
	switch {
	case from.FieldRef != nil:
		value, err = downward.Field(b.pod, b.src.Addresses, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = downward.Resource(b.pod, b.container, from.ResourceFieldRef, b.src.Allocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		obj := b.src.ConfigMap(b.pod.Namespace, ref.Name)
		if obj == nil {
			return missing(ptr.Deref(ref.Optional, false), "configmap %q not found", ref.Name)
		}
		if value, ok = obj.Data[ref.Key]; !ok {
			return missing(ptr.Deref(ref.Optional, false), "couldn't find key %v in ConfigMap %v/%v", ref.Key, b.pod.Namespace, ref.Name)
		}
		return value, true, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		obj := b.src.Secret(b.pod.Namespace, ref.Name)
		if obj == nil {
			return missing(ptr.Deref(ref.Optional, false), "secret %q not found", ref.Name)
		}
		data, found := obj.Data[ref.Key]
		if !found {
			return missing(ptr.Deref(ref.Optional, false), "couldn't find key %v in Secret %v/%v", ref.Key, b.pod.Namespace, ref.Name)
		}
		return string(data), true, nil
	case from.FileKeyRef != nil:
		return b.fileKey(from.FileKeyRef)
	}
	return "", false, fmt.Errorf("variable %s has a source of an unknown type", v.Name)
}

func (b *builder) fileKey(ref *v1.FileKeySelector) (string, bool, error) {
	data, err := b.src.File(ref.VolumeName, ref.Path)
	if err != nil {
		return missing(ptr.Deref(ref.Optional, false), "couldn't parse env file %s of volume %s: %v", ref.Path, ref.VolumeName, err)
	}
	value, ok, err := FileKey(data, ref.Key)
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file %s of volume %s: %w", ref.Path, ref.VolumeName, err)
	}
	if !ok {
		return missing(ptr.Deref(ref.Optional, false), "environment variable key %q not found in file %q", ref.Key, ref.Path)
	}
	return value, true, nil
}

func missing(optional bool, format string, args ...any) (string, bool, error) {
	if optional {
		return "", false, nil
	}
	return "", false, fmt.Errorf(format, args...)
}

// FileKey finds NAME='value' in the text of an env file: one variable a line,
// the value in single quotes, blank lines and comments between.
func FileKey(data []byte, key string) (value string, ok bool, err error) {
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, v, found := strings.Cut(line, "=")
		if !found || len(v) < 2 || v[0] != '\'' || v[len(v)-1] != '\'' {
			return "", false, fmt.Errorf("line %d is not of the form NAME='value'", n)
		}
		if name == key {
			value, ok = v[1:len(v)-1], true
		}
	}
	return value, ok, nil
}
