// Package gonames shows parts of API objects by the names of their Go fields,
// empty ones included. So does Kubernetes in what it says of an object that it
// refuses: what it checks are types of its own, which have the fields of the API,
// but neither JSON names nor omitted values.
package gonames

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Show has the values of all errors by the names of Go. It changes errs.
func Show(errs field.ErrorList) field.ErrorList {
	for _, e := range errs {
		e.BadValue = Of(e.BadValue)
	}
	return errs
}

// Of is v in JSON as Kubernetes' own types have it. What holds no part of an API
// object comes back as it is, and so does what cannot be shown.
func Of(v any) any {
	if !holdsPart(v) {
		return v
	}
	var b bytes.Buffer
	if err := write(&b, reflect.ValueOf(v)); err != nil {
		return v
	}
	return json.RawMessage(b.Bytes())
}

// Diff tells two values apart by the names of Go.
func Diff(a, b any) string { return diff.Diff(Of(a), Of(b)) }

// Keep is v for an error that shows it by the names of the API: what Kubernetes
// declares beside the fields of a version is checked in that version.
func Keep(v any) any {
	if !holdsPart(v) {
		return v
	}
	return kept{v}
}

type kept struct{ value any }

func (k kept) MarshalJSON() ([]byte, error) { return json.Marshal(k.value) }

func holdsPart(v any) bool {
	t := reflect.TypeOf(v)
	return t != nil && holds(t)
}

// holds says whether a type is, points to, or lists parts of API objects.
func holds(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	return part(t)
}

// part says whether a type belongs to an API group. Those that groups share
// (metadata, selectors, quantities) Kubernetes has but once, JSON names and all.
func part(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && strings.HasPrefix(t.PkgPath(), "k8s.io/api/")
}

// unserved are fields that only Kubernetes' own types have still, all of them
// empty, by the field that follows them.
var unserved = map[string]string{
	"PodCertificateRequestSpec.StubPKCS10Request": `"PKIXPublicKey":null,"ProofOfPossession":null,`,
}

func write(b *bytes.Buffer, v reflect.Value) error {
	t := v.Type()
	switch {
	case !holds(t):
		return writeJSON(b, v)
	case t.Kind() != reflect.Struct && v.IsNil():
		b.WriteString("null")
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return write(b, v.Elem())
	case reflect.Slice:
		return writeList(b, v)
	case reflect.Map:
		return writeMap(b, v)
	}
	return writeStruct(b, v)
}

// writeJSON writes what JSON makes of a value by itself.
func writeJSON(b *bytes.Buffer, v reflect.Value) error {
	data, err := json.Marshal(v.Interface())
	b.Write(data)
	return err
}

func writeList(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.Len() {
		b.WriteByte("[,"[min(i, 1)])
		if err := write(b, v.Index(i)); err != nil {
			return err
		}
	}
	if v.Len() == 0 {
		b.WriteByte('[')
	}
	b.WriteByte(']')
	return nil
}

func writeMap(b *bytes.Buffer, v reflect.Value) error {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	b.WriteByte('{')
	for i, key := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := writeJSON(b, key); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := write(b, v.MapIndex(key)); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// writeStruct writes a part of an object, with the fields of those embedded in
// it as its own.
func writeStruct(b *bytes.Buffer, v reflect.Value) error {
	b.WriteByte('{')
	start := b.Len()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if start < b.Len() {
			b.WriteByte(',')
		}
		if f.Anonymous {
			if err := writeEmbedded(b, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		b.WriteString(unserved[v.Type().Name()+"."+f.Name])
		b.WriteString(`"` + f.Name + `":`)
		if err := write(b, v.Field(i)); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func writeEmbedded(b *bytes.Buffer, v reflect.Value) error {
	var inner bytes.Buffer
	if err := write(&inner, v); err != nil {
		return err
	}
	fields := inner.Bytes()[1 : inner.Len()-1]
	if len(fields) == 0 { // nor is there a comma then
		b.Truncate(len(bytes.TrimSuffix(b.Bytes(), []byte(","))))
	}
	b.Write(fields)
	return nil
}
