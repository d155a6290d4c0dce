package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	library "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/upstream"
)

// plugin is one of the library's, as a function.
type plugin func(ctx context.Context, a library.Attributes, o library.ObjectInterfaces) error

func (plugin) Handles(library.Operation) bool { return true }

func (p plugin) Admit(ctx context.Context, a library.Attributes, o library.ObjectInterfaces) error {
	return p(ctx, a, o)
}

func (p plugin) Validate(ctx context.Context, a library.Attributes, o library.ObjectInterfaces) error {
	return p(ctx, a, o)
}

// attributes are those of an update of an object in one version.
func attributes(served *api.Served, obj, old api.Object) *admission.Attributes {
	return &admission.Attributes{
		Operation: admission.Update, Resource: served.Resource, Served: served, Kind: served.Version.WithKind(served.Kind),
		Namespace: "ns", Name: "n", Object: obj, Old: old, Options: &metav1.UpdateOptions{},
	}
}

// Whatever version a client and a webhook speak, a change comes back into the hub,
// the rest of which stays as it is; the old object is left alone.
func TestEveryVersion(t *testing.T) {
	reg := kinds.Registry()
	x := upstream.New(reg)
	for _, sent := range reg.Served() {
		for _, gvr := range equivalents(t, x, sent) {
			seen := reg.ByGVR(gvr)
			obj, old := made(sent.Resource), made(sent.Resource)
			before := old.DeepCopyObject()
			a := attributes(sent, obj, old)
			err := x.Admit(t.Context(), plugin(func(_ context.Context, a library.Attributes, o library.ObjectInterfaces) error {
				kind := seen.Version.WithKind(seen.Kind)
				v, err := library.NewVersionedAttributes(a, kind, o)
				if err != nil {
					return err
				}
				for _, shown := range []runtime.Object{v.VersionedObject.Object(), v.VersionedOldObject.Object()} {
					if got := shown.GetObjectKind().GroupVersionKind(); got != kind || reflect.TypeOf(shown) != reflect.TypeOf(seen.Version.New()) {
						return fmt.Errorf("shown is %T with kind %v", shown, got)
					}
				}
				changed := v.VersionedObject.Object().DeepCopyObject()
				changed.(api.Object).SetAnnotations(map[string]string{"changed": "yes"})
				v.UpdateObject(changed)
				o.GetObjectDefaulter().Default(changed)
				return o.GetObjectConvertor().Convert(changed, a.GetObject(), nil)
			}), a)
			want := before.DeepCopyObject().(api.Object)
			want.SetAnnotations(map[string]string{"changed": "yes"})
			if parse := sent.Parse; parse != nil {
				if err := parse(want); err != nil {
					t.Fatal(err)
				}
			}
			switch {
			case err != nil:
				t.Errorf("%v seen as %v: %v", sent.Version.WithKind(sent.Kind), gvr, err)
			case !equality.Semantic.DeepEqual(obj, want):
				t.Errorf("%v seen as %v became %v", sent.Version.WithKind(sent.Kind), gvr, obj)
			case !reflect.DeepEqual(old, before):
				t.Errorf("the old object became %v", old)
			}
		}
	}
}

// made is an object with its defaults.
func made(r *api.Resource) api.Object {
	obj := r.New()
	obj.SetName("n")
	if r.Default != nil {
		r.Default(obj)
	}
	return obj
}

// equivalents are the versions that show the same objects.
func equivalents(t *testing.T, x *upstream.Adapter, served *api.Served) (all []schema.GroupVersionResource) {
	t.Helper()
	look := plugin(func(_ context.Context, a library.Attributes, o library.ObjectInterfaces) error {
		m := o.GetEquivalentResourceMapper()
		all = m.EquivalentResourcesFor(a.GetResource(), "")
		for _, gvr := range all {
			if m.KindFor(gvr, "").Kind != served.Kind {
				t.Errorf("%v is of kind %v", gvr, m.KindFor(gvr, ""))
			}
		}
		return nil
	})
	if err := x.Validate(t.Context(), look, attributes(served, made(served.Resource), nil)); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEquivalentResources(t *testing.T) {
	reg := kinds.Registry()
	x := upstream.New(reg)
	for gvr, want := range map[schema.GroupVersionResource]string{
		{Group: "autoscaling", Version: "v1", Resource: "horizontalpodautoscalers"}: "[autoscaling/v2 autoscaling/v1]",
		{Version: "v1", Resource: "events"}:                                         "[/v1 events.k8s.io/v1]",
		{Version: "v1", Resource: "pods"}:                                           "[/v1]",
	} {
		var got []string
		for _, e := range equivalents(t, x, reg.ByGVR(gvr)) {
			got = append(got, e.Group+"/"+e.Version)
		}
		if len(got) != len(strings.Fields(want)) || !strings.Contains(want, gvr.Group+"/"+gvr.Version) {
			t.Errorf("%v is equivalent to %v, want %s", gvr, got, want)
		}
	}
	look := plugin(func(_ context.Context, _ library.Attributes, o library.ObjectInterfaces) error {
		m := o.GetEquivalentResourceMapper()
		deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
		if kind := m.KindFor(deployments, "scale"); kind != autoscalingv1.SchemeGroupVersion.WithKind("Scale") {
			t.Errorf("scales are %v", kind)
		}
		if kind := m.KindFor(deployments, "status"); kind.Kind != "Deployment" {
			t.Errorf("statuses are %v", kind)
		}
		if len(m.EquivalentResourcesFor(deployments, "nothing")) > 0 || !m.KindFor(schema.GroupVersionResource{Resource: "nothing"}, "").Empty() {
			t.Error("what is not there is equivalent to something")
		}
		return nil
	})
	if err := x.Validate(t.Context(), look, attributes(reg.ByGVR(corev1.SchemeGroupVersion.WithResource("pods")), &corev1.Pod{}, nil)); err != nil {
		t.Fatal(err)
	}
}

// Another kind does not take the place of the object.
func TestAnotherKind(t *testing.T) {
	reg := kinds.Registry()
	served := reg.ByGVR(corev1.SchemeGroupVersion.WithResource("configmaps"))
	obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	err := upstream.New(reg).Admit(t.Context(), plugin(func(_ context.Context, a library.Attributes, o library.ObjectInterfaces) error {
		secret := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
		return o.GetObjectConvertor().Convert(secret, a.GetObject(), nil)
	}), attributes(served, obj, nil))
	if err == nil || obj.Name != "n" {
		t.Errorf("a Secret became %v, %v", obj, err)
	}
}

func TestOptions(t *testing.T) {
	reg := kinds.Registry()
	seconds := int64(3)
	for _, tt := range []struct {
		op      admission.Operation
		options runtime.Object
		want    string
	}{
		{admission.Create, &metav1.CreateOptions{FieldManager: "m"}, "CreateOptions m"},
		{admission.Create, &metav1.UpdateOptions{FieldManager: "m"}, "CreateOptions m"},
		{admission.Create, &metav1.PatchOptions{FieldManager: "m"}, "CreateOptions m"},
		{admission.Update, &metav1.UpdateOptions{FieldManager: "m"}, "UpdateOptions m"},
		{admission.Update, &metav1.PatchOptions{FieldManager: "m"}, "UpdateOptions m"},
		{admission.Delete, &metav1.DeleteOptions{GracePeriodSeconds: &seconds}, "DeleteOptions"},
		{admission.Connect, nil, ""},
	} {
		a := attributes(reg.ByGVR(corev1.SchemeGroupVersion.WithResource("configmaps")), &corev1.ConfigMap{}, nil)
		a.Operation, a.Options, a.Collection = tt.op, tt.options, tt.op == admission.Delete
		err := upstream.New(reg).Validate(t.Context(), plugin(func(_ context.Context, a library.Attributes, _ library.ObjectInterfaces) error {
			got := ""
			switch o := a.GetOperationOptions().(type) {
			case *metav1.CreateOptions:
				got = o.Kind + " " + o.FieldManager
			case *metav1.UpdateOptions:
				got = o.Kind + " " + o.FieldManager
			case *metav1.DeleteOptions:
				got = o.Kind
			}
			if got != tt.want {
				return fmt.Errorf("options are %q, want %q", got, tt.want)
			}
			if (a.GetName() == "") != (tt.op == admission.Delete) {
				return fmt.Errorf("the name is %q", a.GetName())
			}
			return nil
		}), a)
		if err != nil {
			t.Errorf("%s with %T: %v", tt.op, tt.options, err)
		}
		if tt.options != nil && tt.options.GetObjectKind().GroupVersionKind().Kind != "" {
			t.Error("the request's own options were written to")
		}
	}
}

// Warnings reach the client, and a plugin that asks for it has all be called once
// more.
func TestReinvocationAndWarnings(t *testing.T) {
	reg := kinds.Registry()
	x := upstream.New(reg)
	var calls []bool
	p := plugin(func(ctx context.Context, a library.Attributes, _ library.ObjectInterfaces) error {
		calls = append(calls, a.GetReinvocationContext().IsReinvoke())
		a.GetReinvocationContext().SetShouldReinvoke()
		warning.AddWarning(ctx, "", fmt.Sprint("call ", len(calls)))
		return nil
	})
	a := attributes(reg.ByGVR(corev1.SchemeGroupVersion.WithResource("configmaps")), &corev1.ConfigMap{}, nil)
	var warned []string
	a.Warn = func(text string) { warned = append(warned, text) }
	if err := (admission.Chain{{Plugin: mutator{x, p}}}).Admit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(calls, warned) != "[false true] [call 1 call 2]" {
		t.Errorf("called %v, warned %q", calls, warned)
	}
	refused := errors.New("no")
	fails := plugin(func(context.Context, library.Attributes, library.ObjectInterfaces) error { return refused })
	if err := (admission.Chain{{Plugin: mutator{x, fails}}}).Admit(t.Context(), a); !errors.Is(err, refused) {
		t.Errorf("a refusal became %v", err)
	}
}

type mutator struct {
	x *upstream.Adapter
	p plugin
}

func (m mutator) Admit(ctx context.Context, a *admission.Attributes) error {
	return m.x.Admit(ctx, m.p, a)
}
