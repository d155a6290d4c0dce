package request_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// Kubernetes reads two annotations when it converts an object to its internal form
// (pkg/apis/apps/v1/conversion.go), so that it depends on the way of the object
// there how it says that one cannot be read.
func TestParsedAnnotations(t *testing.T) {
	f := newFixture(t, nil)
	const template = `"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}`
	object := func(kind, annotation, value string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":%q,"metadata":{"name":"a","annotations":{%q:%q}},%s}`, kind, annotation, value, template)
	}
	for _, c := range []struct {
		kind, plural, annotation, why string
	}{
		{"DaemonSet", "daemonsets", appsv1.DeprecatedTemplateGeneration, `strconv.ParseInt: parsing "x": invalid syntax`},
		{"Deployment", "deployments", appsv1.DeprecatedRollbackTo, `failed to parse annotation[deprecated.deployment.rollback.to]=x as int64: strconv.ParseInt: parsing "x": invalid syntax`},
	} {
		info := func(verb string) *request.Info { return requesttest.Info(verb, "apps/v1", c.plural, "default", "a") }
		body := func(text string) request.Body {
			return request.Body{Read: func() ([]byte, codec.MediaType, error) { return []byte(text), codec.JSON, nil }}
		}
		create := func(value string) (runtime.Object, error) {
			return f.Create(t.Context(), info("create"), body(object(c.kind, c.annotation, value)), &metav1.CreateOptions{})
		}
		patch := func(kind types.PatchType, text string) (runtime.Object, error) {
			out, _, err := f.Patch(t.Context(), info("patch"), kind, func() ([]byte, error) { return []byte(text), nil }, &metav1.PatchOptions{})
			return out, err
		}
		refused := func(what string, err error, code int32, message string) {
			t.Helper()
			if err == nil || request.StatusOf(err).Code != code || !strings.Contains(err.Error(), message) {
				t.Errorf("%s of a %s: %v, want %d %s", what, c.kind, err, code, message)
			}
		}
		written := func(what string, out runtime.Object, err error, want string) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s of a %s: %v", what, c.kind, err)
			}
			if got := out.(api.Object).GetAnnotations()[c.annotation]; got != want {
				t.Errorf("%s of a %s gave %q, want %q", what, c.kind, got, want)
			}
		}
		unread := fmt.Sprintf(`%s in version "v1" cannot be handled as a %s: %s`, c.kind, c.kind, c.why)
		_, err := create("x")
		refused("create", err, 400, unread)
		out, err := create("007")
		written("create", out, err, "7")
		_, _, err = f.Update(t.Context(), info("update"), body(object(c.kind, c.annotation, "x")), &metav1.UpdateOptions{})
		refused("update", err, 400, unread)
		merge := fmt.Sprintf(`{"metadata":{"annotations":{%q:"x"}}}`, c.annotation)
		_, err = patch(types.MergePatchType, merge)
		refused("merge patch", err, 422, ": "+c.why)
		_, err = patch(types.JSONPatchType, fmt.Sprintf(`[{"op":"replace","path":"/metadata/annotations/%s","value":"x"}]`, c.annotation))
		refused("JSON patch", err, 422, ": "+c.why)
		_, err = patch(types.StrategicMergePatchType, merge)
		refused("strategic patch", err, 500, c.why)
		_, _, err = f.Patch(t.Context(), info("patch"), types.ApplyYAMLPatchType, func() ([]byte, error) {
			return []byte(object(c.kind, c.annotation, "x")), nil
		}, &metav1.PatchOptions{FieldManager: "m", Force: ptr.To(true)})
		refused("apply", err, 500, fmt.Sprintf("failed to convert to unversioned (/a; apps/v1, Kind=%s): %s", c.kind, c.why))
	}
}

// A number of the template that a client leaves out it has written as 0.
func TestOwnerOfTemplateGeneration(t *testing.T) {
	f := newFixture(t, nil)
	labels := map[string]string{"a": "b"}
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}}
	ds.Spec.Template.Labels = labels
	ds.Spec.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	made := createIn(f, "apps/v1", "daemonsets", "default", ds)
	if made.Annotations[appsv1.DeprecatedTemplateGeneration] != "1" {
		t.Errorf("annotations are %v", made.Annotations)
	}
	if m := made.ManagedFields; len(m) != 1 || !strings.Contains(m[0].FieldsV1.String(), `"f:annotations":{".":{},"f:deprecated.daemonset.template.generation":{}}`) {
		t.Errorf("the number is not its creator's: %v", m)
	}
}
