package kinds

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// addOptions teaches the scheme to read, from a URL's query, the kinds that say
// how to connect to a pod, node or service.
func addOptions(scheme *runtime.Scheme) error {
	for _, into := range []runtime.Object{
		&corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodAttachOptions{}, &corev1.PodPortForwardOptions{},
		&corev1.PodProxyOptions{}, &corev1.NodeProxyOptions{}, &corev1.ServiceProxyOptions{},
	} {
		err := scheme.AddConversionFunc((*url.Values)(nil), into, func(a, b any, _ conversion.Scope) error {
			return fromQuery(*a.(*url.Values), b)
		})
		if err != nil {
			return fmt.Errorf("register %T: %w", into, err)
		}
	}
	return nil
}

// fromQuery sets the fields of a struct from the parameters that have their
// JSON names. Of a parameter given several times a single-valued field takes
// the first, as Kubernetes does.
func fromQuery(q url.Values, into any) error {
	v := reflect.ValueOf(into).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		texts, ok := q[name]
		if name == "" || !ok || len(texts) == 0 {
			continue
		}
		if err := setField(v.Field(i), texts); err != nil {
			return err // which does not say of what, as Kubernetes' does not
		}
	}
	return nil
}

func setField(f reflect.Value, texts []string) error {
	switch f.Kind() {
	case reflect.Pointer:
		isTime := f.Type() == reflect.TypeFor[*metav1.Time]()
		switch {
		case texts[0] == "" && f.Type().Elem().Kind() == reflect.String:
			return nil
		case isTime && (texts[0] == "" || texts[0] == "null"):
			f.Set(reflect.ValueOf(&metav1.Time{}))
			return nil
		case isTime:
			parsed, err := time.Parse(time.RFC3339, texts[0])
			f.Set(reflect.ValueOf(&metav1.Time{Time: parsed.Local()}))
			return err
		}
		f.Set(reflect.New(f.Type().Elem()))
		return setField(f.Elem(), texts)
	case reflect.Slice:
		if ports, ok := f.Addr().Interface().(*[]int32); ok {
			return metav1.Convert_Slice_string_To_Slice_int32(&texts, ports, nil)
		}
		f.Set(reflect.MakeSlice(f.Type(), len(texts), len(texts)))
		for i, text := range texts {
			if err := setField(f.Index(i), []string{text}); err != nil {
				return err
			}
		}
	case reflect.String:
		f.SetString(texts[0])
	case reflect.Bool:
		// As Kubernetes has it: present means true, but for "false" and "0".
		f.SetBool(strings.ToLower(texts[0]) != "false" && texts[0] != "0")
	case reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(texts[0], 10, f.Type().Bits())
		if err != nil {
			return err
		}
		f.SetInt(n)
	default:
		return fmt.Errorf("%s cannot be read from a query", f.Type())
	}
	return nil
}
