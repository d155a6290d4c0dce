package fields

import (
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// equal compares two values of one type as what they are in JSON.
func equal(a, b reflect.Value) bool {
	if same(a, b) {
		return true
	}
	if s, ok := moment(a); ok {
		if t, ok := moment(b); ok {
			return s.Equal(t)
		}
	}
	x, err := wrap(a)
	if err != nil {
		return false
	}
	y, err := wrap(b)
	return err == nil && value.Equals(x, y)
}

// same says whether two values of one type are the same in Go. What is not may
// still be equal in JSON.
func same(a, b reflect.Value) bool {
	if a.Kind() != b.Kind() {
		return false // in a tree
	}
	switch a.Kind() {
	case reflect.Interface:
		return a.IsNil() == b.IsNil() && (a.IsNil() || same(a.Elem(), b.Elem()))
	case reflect.Float64:
		return a.Float() == b.Float()
	case reflect.String:
		return a.String() == b.String()
	case reflect.Bool:
		return a.Bool() == b.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return a.Int() == b.Int()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return a.Uint() == b.Uint()
	case reflect.Pointer:
		return a.Pointer() == b.Pointer() || !a.IsNil() && !b.IsNil() && same(a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		return sameSlices(a, b)
	case reflect.Map:
		return sameMaps(a, b)
	}
	return false
}

func sameSlices(a, b reflect.Value) bool {
	if a.Len() != b.Len() || a.IsNil() != b.IsNil() {
		return false
	}
	if a.Pointer() == b.Pointer() {
		return true
	}
	for i := range a.Len() {
		if !same(a.Index(i), b.Index(i)) {
			return false
		}
	}
	return true
}

func sameMaps(a, b reflect.Value) bool {
	if a.Len() != b.Len() || a.IsNil() != b.IsNil() {
		return false
	}
	for it := a.MapRange(); it.Next(); {
		if other := b.MapIndex(it.Key()); !other.IsValid() || !same(it.Value(), other) {
			return false
		}
	}
	return true
}

// moment is what JSON has of a time that is not null. Times differ often: in
// leases and conditions little else does.
func moment(v reflect.Value) (t time.Time, ok bool) {
	if v.CanAddr() && v.Kind() != reflect.Pointer {
		v = v.Addr()
	}
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return time.Time{}, false
	}
	switch at := v.Interface().(type) {
	case *metav1.Time:
		t = at.Truncate(time.Second)
	case *metav1.MicroTime:
		t = at.Truncate(time.Microsecond)
	}
	return t, !t.IsZero()
}

// wrap is the library's view of a value.
func wrap(v reflect.Value) (value.Value, error) {
	switch {
	case v.Kind() == reflect.Interface && v.IsNil(), v.Kind() == reflect.Pointer && v.IsNil():
		return value.NewValueInterface(nil), nil
	case v.Type() == reflect.TypeFor[map[string]any](), v.Type() == reflect.TypeFor[[]any]():
		return value.NewValueInterface(v.Interface()), nil
	case v.Kind() == reflect.Pointer:
	case v.CanAddr():
		v = v.Addr()
	default: // in a map
		p := reflect.New(v.Type())
		p.Elem().Set(v)
		v = p
	}
	return value.NewValueReflect(v.Interface())
}
