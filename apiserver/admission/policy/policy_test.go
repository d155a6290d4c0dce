package policy_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/policy"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// world is a server of requests with nothing but the two plugins, over a store
// that finds whoever writes to what is shared.
type world struct {
	t testing.TB
	h *request.Handler
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{t, requesttest.Handler(t, func(c *request.Config) {
		config := policy.Config{
			Registry: c.Registry, View: c.Store.View(), Namespaces: c.Store, Merge: requesttest.Converter,
			Authorizer: requesttest.AdminOnly,
		}
		c.Admission = admission.Chain{{Plugin: policy.NewMutating(config)}, {Plugin: policy.NewValidating(config)}}
	})}
}

const group = admissionregistrationv1.GroupName + "/v1"

// create makes an object of a resource, from YAML.
func (w *world) create(gv, plural, namespace, body string) (api.Object, error) {
	w.t.Helper()
	info := requesttest.Info("create", gv, plural, namespace, "")
	obj := info.Served.New()
	if err := yaml.UnmarshalStrict([]byte(body), obj); err != nil {
		w.t.Fatal(err)
	}
	made, err := w.h.Create(w.t.Context(), info, request.Body{Object: obj}, &metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return made.(api.Object), nil
}

func (w *world) make(plural, body string) {
	w.t.Helper()
	if _, err := w.create(group, plural, "", body); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) configMap(name, data string) (*corev1.ConfigMap, error) {
	w.t.Helper()
	obj, err := w.create("v1", "configmaps", "default", "metadata: {name: "+name+"}\ndata: {"+data+"}")
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

func (w *world) drop(plural, name string) {
	w.t.Helper()
	if _, _, err := w.h.Delete(w.t.Context(), requesttest.Info("delete", group, plural, "", name), &metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

const configMaps = `matchConstraints: {resourceRules: [{operations: [CREATE, UPDATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]}`

// A policy is in effect from the answer to its binding to that to its deletion,
// however many write at once.
func TestInEffectAtOnce(t *testing.T) {
	w := newWorld(t)
	w.make("validatingadmissionpolicies", `{metadata: {name: p}, spec: {`+configMaps+`, validations: [{expression: "object.data.k != 'bad'"}]}}`)
	var writers sync.WaitGroup
	stop := make(chan struct{})
	defer writers.Wait()
	defer close(stop)
	for i := range 4 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := w.configMap(fmt.Sprintf("c%d-%d", i, n), "k: v"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 50 {
		w.make("validatingadmissionpolicybindings", `{metadata: {name: b}, spec: {policyName: p, validationActions: [Deny]}}`)
		if _, err := w.configMap("a", "k: bad"); !apierrors.IsInvalid(err) {
			t.Fatalf("round %d: with the policy: %v", i, err)
		}
		w.drop("validatingadmissionpolicybindings", "b")
		if _, err := w.configMap(fmt.Sprintf("free%d", i), "k: bad"); err != nil {
			t.Fatalf("round %d: without the policy: %v", i, err)
		}
	}
}

// Nothing that expressions or patches do reaches an object that others read: the
// store's detector would end the test.
func TestSharedObjectsStayAsTheyAre(t *testing.T) {
	w := newWorld(t)
	w.make("mutatingadmissionpolicies", `{metadata: {name: m}, spec: {reinvocationPolicy: IfNeeded, paramKind: {apiVersion: v1, kind: ConfigMap}, `+configMaps+`,
  matchConditions: [{name: a, expression: "!object.metadata.name.startsWith('params')"}],
  mutations: [
    {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'seen': params.metadata.name}}, data: params.data}"}},
    {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/labels/patched', value: 'yes'}, JSONPatch{op: 'copy', from: '/data/a', path: '/data/b'}]"}}]}}`)
	if _, err := w.configMap("params", "a: x"); err != nil {
		t.Fatal(err)
	}
	w.make("mutatingadmissionpolicybindings", `{metadata: {name: m}, spec: {policyName: m, paramRef: {name: params, parameterNotFoundAction: Deny}}}`)
	for i := range 10 {
		made, err := w.configMap(fmt.Sprintf("c%d", i), "k: v")
		if err != nil {
			t.Fatal(err)
		}
		if made.Labels["seen"] != "params" || made.Labels["patched"] != "yes" || made.Data["b"] != "x" || made.Data["k"] != "v" {
			t.Errorf("made %v %v", made.Labels, made.Data)
		}
	}
	params, err := w.h.Get(t.Context(), requesttest.Info("get", "v1", "configmaps", "default", "params"), &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := params.(*corev1.ConfigMap); len(got.Data) != 1 || got.Labels != nil {
		t.Errorf("the parameters are %v %v now", got.Labels, got.Data)
	}
}

// What a policy cannot be looked at for costs nothing: neither reviews nor policies
// are asked about, whatever rules say.
func TestExempt(t *testing.T) {
	w := newWorld(t)
	w.make("validatingadmissionpolicies", `{metadata: {name: p}, spec: {matchConstraints: {resourceRules: [{operations: ["*"], apiGroups: ["*"], apiVersions: ["*"], resources: ["*/*"]}]}, validations: [{expression: "false"}]}}`)
	w.make("validatingadmissionpolicybindings", `{metadata: {name: p}, spec: {policyName: p, validationActions: [Deny]}}`)
	if _, err := w.configMap("a", "k: v"); !apierrors.IsInvalid(err) {
		t.Errorf("a ConfigMap: %v", err)
	}
	w.drop("validatingadmissionpolicies", "p")
	if _, err := w.configMap("a", "k: v"); err != nil {
		t.Error(err)
	}
}

// FuzzValidation evaluates whatever the row takes for an expression, as condition,
// variable, validation, message and annotation: each write is answered, and an
// expression that costs too much is a refusal.
func FuzzValidation(f *testing.F) {
	for _, seed := range []string{
		"true", "object.data.k == 'v'", "object.data.all(a, object.data.all(b, object.data.all(c, a == b || b == c)))",
		"[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, [1,2,3,4,5,6,7,8,9].all(f, [1,2,3,4,5,6,7,8,9].all(g, true)))))))",
		"object.data.k.matches('(a*)*b')", "int(object.data.k) / 0 == 1", "authorizer.group('a').resource('b').check('c').allowed()",
		"request.userInfo.groups.exists(g, g == 'a')", "dyn(object).foo.bar[9223372036854775807]", "'a'.repeat(3) == 'b'", "variables.x", "oldObject == null",
		"object.data.map(k, k).join(',').size() > 1 && string(1.0/0.0) == 'x' && duration('1s') < duration('9999999h')", "url(object.data.k).getHost() == ''",
	} {
		f.Add(seed)
	}
	w := newWorld(f)
	n := 0
	f.Fuzz(func(t *testing.T, text string) {
		w := &world{t, w.h}
		n++
		name := fmt.Sprintf("p%d", n)
		quoted := fmt.Sprintf("%q", text)
		made := false
		for _, spec := range []string{
			`validations: [{expression: ` + quoted + `}]`,
			`matchConditions: [{name: a, expression: ` + quoted + `}], validations: [{expression: "false"}]`,
			`variables: [{name: x, expression: ` + quoted + `}], validations: [{expression: "variables.x == variables.x", messageExpression: "string(variables.x)"}]`,
			`validations: [{expression: "false", messageExpression: ` + quoted + `}]`,
			`auditAnnotations: [{key: a, valueExpression: ` + quoted + `}]`,
		} {
			var p admissionregistrationv1.ValidatingAdmissionPolicy
			if yaml.Unmarshal([]byte(`{metadata: {name: `+name+`}, spec: {`+configMaps+`, `+spec+`}}`), &p) != nil {
				continue // YAML has other escapes than Go
			}
			info := requesttest.Info("create", group, "validatingadmissionpolicies", "", "")
			if _, err := w.h.Create(t.Context(), info, request.Body{Object: &p}, &metav1.CreateOptions{}); err != nil {
				if !apierrors.IsInvalid(err) {
					t.Fatalf("a policy is answered by %v", err)
				}
				continue
			}
			if !made {
				w.make("validatingadmissionpolicybindings", `{metadata: {name: b}, spec: {policyName: `+name+`, validationActions: [Deny, Audit]}}`)
				made = true
			}
			if _, err := w.configMap(fmt.Sprintf("c%d", n), "k: v, n: '1'"); err != nil && !apierrors.IsInvalid(err) && !apierrors.IsAlreadyExists(err) {
				t.Errorf("a write is answered by %v", err)
			}
			w.drop("validatingadmissionpolicies", name)
		}
		if made {
			w.drop("validatingadmissionpolicybindings", "b")
		}
	})
}

// FuzzMutation makes whatever the row takes for a mutation: what comes of it is an
// object, or a refusal.
func FuzzMutation(f *testing.F) {
	for _, seed := range []string{
		"Object{data: {'a': 'b'}}", "Object{metadata: Object.metadata{name: 'other', namespace: 'other'}}", "Object{kind: 'Pod'}", "Object{data: {'a': object.data.k}}",
		"[JSONPatch{op: 'remove', path: '/metadata'}]", "[JSONPatch{op: 'add', path: '/data/-', value: 1}]", "[JSONPatch{op: 'replace', path: '', value: 'x'}]",
		"[JSONPatch{op: 'copy', from: '/data', path: '/data/a'}]", "[JSONPatch{op: 'add', path: '/kind', value: 'Secret'}]", "[]", "Object{}",
		"[JSONPatch{op: 'move', from: '/data/k', path: '/metadata/labels'}]", "[JSONPatch{op: 'add', path: '/metadata/managedFields', value: []}]",
	} {
		f.Add(seed, strings.HasPrefix(seed, "["))
	}
	w := newWorld(f)
	n := 0
	f.Fuzz(func(t *testing.T, text string, patch bool) {
		w := &world{t, w.h}
		n++
		name := fmt.Sprintf("p%d", n)
		p := admissionregistrationv1.MutatingAdmissionPolicy{}
		if err := yaml.Unmarshal([]byte(`{metadata: {name: `+name+`}, spec: {reinvocationPolicy: IfNeeded, `+configMaps+`}}`), &p); err != nil {
			t.Fatal(err)
		}
		m := admissionregistrationv1.Mutation{PatchType: admissionregistrationv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionregistrationv1.ApplyConfiguration{Expression: text}}
		if patch {
			m = admissionregistrationv1.Mutation{PatchType: admissionregistrationv1.PatchTypeJSONPatch, JSONPatch: &admissionregistrationv1.JSONPatch{Expression: text}}
		}
		p.Spec.Mutations = []admissionregistrationv1.Mutation{m}
		if _, err := w.h.Create(t.Context(), requesttest.Info("create", group, "mutatingadmissionpolicies", "", ""), request.Body{Object: &p}, &metav1.CreateOptions{}); err != nil {
			if !apierrors.IsInvalid(err) {
				t.Fatalf("a policy is answered by %v", err)
			}
			return
		}
		w.make("mutatingadmissionpolicybindings", `{metadata: {name: b}, spec: {policyName: `+name+`}}`)
		made, err := w.configMap(fmt.Sprintf("c%d", n), "k: v")
		var status apierrors.APIStatus
		switch {
		case err == nil:
			if made.Namespace != "default" {
				t.Errorf("the object went to %q", made.Namespace)
			}
		case !asStatus(err, &status):
			t.Errorf("a write is answered by %T %v", err, err)
		}
		w.drop("mutatingadmissionpolicybindings", "b")
		w.drop("mutatingadmissionpolicies", name)
	})
}

func asStatus(err error, into *apierrors.APIStatus) bool {
	s, ok := err.(apierrors.APIStatus)
	*into = s
	return ok
}
