package conformance

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// applyCall applies a ConfigMap or another object as a manager; more is further
// query.
func applyCall(resource, ns, name, manager, more, body string) call {
	return call{
		method: "PATCH", path: at(resource, ns, name) + "?fieldManager=" + url.QueryEscape(manager) + more,
		contentType: applyPatch, body: body,
	}
}

func configMap(name, data string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, data: %s}", name, data)
}

// owners lists who owns what: "MANAGER OPERATION[/SUBRESOURCE]: fields".
func owners(u *unstructured.Unstructured) string {
	var all []string
	for _, m := range u.GetManagedFields() {
		operation := string(m.Operation)
		if m.Subresource != "" {
			operation += "/" + m.Subresource
		}
		all = append(all, fmt.Sprintf("%s %s: %s", m.Manager, operation, m.FieldsV1.Raw))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// Server-side apply: what is applied is created, then owned by its manager;
// what is no longer applied goes.
func TestApply(t *testing.T) {
	ns := namespace(t)
	made := admin.want(t, http.StatusCreated, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: v, l: w}")), nil).object(t)
	if got := owners(made); got != `one Apply: {"f:data":{"f:k":{},"f:l":{}}}` {
		t.Errorf("owners are %s", got)
	}
	same := admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: v, l: w}")), nil).object(t)
	if same.GetResourceVersion() != made.GetResourceVersion() {
		t.Error("applying the same again made a new version")
	}
	less := admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: v2}")), nil).object(t)
	if field(less, "data") != `{"k":"v2"}` {
		t.Errorf("data is %s", field(less, "data"))
	}
	more := admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "two", "", configMap("a", "{m: x}")), nil).object(t)
	if field(more, "data") != `{"k":"v2","m":"x"}` {
		t.Errorf("data of two appliers is %s", field(more, "data"))
	}
	if got := owners(more); got != "one Apply: {\"f:data\":{\"f:k\":{}}}\ntwo Apply: {\"f:data\":{\"f:m\":{}}}" {
		t.Errorf("owners are %s", got)
	}
}

// Server-side apply, "Conflicts": changing another's field is refused with a
// cause for each, can be forced, and agreeing shares.
func TestApplyConflicts(t *testing.T) {
	ns := namespace(t)
	admin.want(t, http.StatusCreated, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: v, l: v}")), nil)
	s := admin.do(t, applyCall("configmaps", ns, "a", "two", "", configMap("a", "{k: w, l: w}"))).
		refused(t, 409, metav1.StatusReasonConflict, "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.k\n- .data.l")
	if got := causesOf(s); !slices.Equal(got, []string{"FieldManagerConflict .data.k", "FieldManagerConflict .data.l"}) {
		t.Errorf("causes are %v", got)
	}
	if s.Details.Causes[0].Message != `conflict with "one"` {
		t.Errorf("cause says %q", s.Details.Causes[0].Message)
	}
	shared := admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "two", "", configMap("a", "{k: v}")), nil).object(t)
	if got := owners(shared); got != "one Apply: {\"f:data\":{\"f:k\":{},\"f:l\":{}}}\ntwo Apply: {\"f:data\":{\"f:k\":{}}}" {
		t.Errorf("owners of a shared field: %s", got)
	}
	admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{l: v}")), nil)
	if kept := get(t, "configmaps", ns, "a"); field(kept, "data", "k") != "v" {
		t.Error("a field went although another applier owns it")
	}
	forced := admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "two", "&force=true", configMap("a", "{k: x, l: x}")), nil).object(t)
	if got := owners(forced); got != `two Apply: {"f:data":{"f:k":{},"f:l":{}}}` || field(forced, "data", "l") != "x" {
		t.Errorf("forced: %s with owners %s", field(forced, "data"), got)
	}
}

// Server-side apply, "Transferring ownership": an update takes fields over, and
// is in the way of the next applier.
func TestUpdatesTakeOwnership(t *testing.T) {
	ns := namespace(t)
	admin.want(t, http.StatusCreated, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: v, l: v}")), nil)
	c := patchCall("configmaps", ns, "a", mergePatch, `{"data":{"k":"w"}}`)
	c.path += "?fieldManager=hand"
	updated := admin.want(t, http.StatusOK, c, nil).object(t)
	if got := owners(updated); got != "hand Update: {\"f:data\":{\"f:k\":{}}}\none Apply: {\"f:data\":{\"f:l\":{}}}" {
		t.Errorf("owners after an update: %s", got)
	}
	s := admin.do(t, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: v, l: v}"))).refused(t, 409, metav1.StatusReasonConflict, "Apply failed with 1 conflict: conflict with \"hand\" using v1: .data.k")
	if len(s.Details.Causes) != 1 || s.Details.Causes[0].Message != `conflict with "hand" using v1` {
		t.Errorf("cause is %+v", s.Details.Causes)
	}
	admin.do(t, patchCall("configmaps", ns, "a", mergePatch, `{"metadata":{"managedFields":[{}]}}`))
	if cleared := get(t, "configmaps", ns, "a"); len(cleared.GetManagedFields()) != 0 {
		t.Errorf("managed fields were not cleared: %s", owners(cleared))
	}
	admin.want(t, http.StatusOK, applyCall("configmaps", ns, "a", "one", "", configMap("a", "{k: w}")), nil)
}

// Server-side apply, "Merge strategy": lists of the schema merge by key or as
// sets, and defaults belong to nobody.
func TestApplyMergesLists(t *testing.T) {
	ns := namespace(t)
	pod := func(containers string) string {
		return "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [" + containers + "]}}}}"
	}
	admin.want(t, http.StatusCreated, applyCall("deployments", ns, "d", "one", "", pod("{name: x, image: x}")), nil)
	both := admin.want(t, http.StatusOK, applyCall("deployments", ns, "d", "two", "", pod("{name: z, image: z, ports: [{containerPort: 80}]}")), nil).object(t)
	containers, _, _ := nested[[]any](both.Object, "spec", "template", "spec", "containers")
	if len(containers) != 2 {
		t.Fatalf("containers are %v", containers)
	}
	for _, m := range both.GetManagedFields() {
		for _, defaulted := range []string{"f:terminationMessagePath", "f:protocol\":{}", "f:progressDeadlineSeconds", "f:imagePullPolicy"} {
			if m.Operation == metav1.ManagedFieldsOperationApply && strings.Contains(string(m.FieldsV1.Raw), defaulted) && defaulted != "f:protocol\":{}" {
				t.Errorf("%s owns the default %s", m.Manager, defaulted)
			}
		}
	}
	// Without its last container of one: what two has stays.
	admin.do(t, applyCall("deployments", ns, "d", "one", "", pod(""))).status2xx(t)
	containers, _, _ = nested[[]any](get(t, "deployments", ns, "d").Object, "spec", "template", "spec", "containers")
	if len(containers) != 1 || containers[0].(map[string]any)["name"] != "z" {
		t.Errorf("containers are %v", containers)
	}
	set := func(name string) string {
		return "{apiVersion: v1, kind: ConfigMap, metadata: {name: s, finalizers: [" + name + "]}}"
	}
	admin.do(t, applyCall("configmaps", ns, "s", "one", "", set("test.dev/one"))).status2xx(t)
	merged := admin.want(t, http.StatusOK, applyCall("configmaps", ns, "s", "two", "", set("test.dev/two")), nil).object(t)
	if len(merged.GetFinalizers()) != 2 {
		t.Errorf("finalizers are %v", merged.GetFinalizers())
	}
	patch(t, "configmaps", ns, "s", `{"metadata":{"finalizers":null}}`)
}

// What applying refuses.
func TestApplyRefuses(t *testing.T) {
	ns := namespace(t)
	u := create(t, "configmaps", ns, "metadata: {name: a}")
	for _, c := range []struct {
		what, more, body string
		code             int
		reason           metav1.StatusReason
		message          string
	}{
		{"no version and kind", "", "{metadata: {name: a}}", 400, metav1.StatusReasonBadRequest, ""},
		{"another kind", "", "{apiVersion: v1, kind: Secret, metadata: {name: a}}", 400, metav1.StatusReasonBadRequest, ""},
		{"another name", "", configMap("b", "{}"), 400, metav1.StatusReasonBadRequest, "the name of the object (b) does not match the name on the URL (a)"},
		{"managed fields", "", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, managedFields: [{manager: x}]}}", 400, metav1.StatusReasonBadRequest, "metadata.managedFields must be nil"},
		{"no map", "", "[]", 400, metav1.StatusReasonBadRequest, ""},
		{"a stale version", "", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, resourceVersion: '1'}}", 409, metav1.StatusReasonConflict, ""},
		{"another identity", "", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, uid: x}}", 422, metav1.StatusReasonInvalid, "metadata.uid: Invalid value: \"x\": field is immutable"},
		{"a repeated key, strictly", "&fieldValidation=Strict", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: a, k: b}}", 400, metav1.StatusReasonBadRequest, "error strict decoding patch"},
		{"an unknown field", "", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, nonsense: 1}", 500, "", "field not declared in schema"},
	} {
		a := admin.do(t, applyCall("configmaps", ns, "a", "one", c.more, c.body))
		if s := a.refused(t, c.code, c.reason, c.message); t.Failed() {
			t.Fatalf("%s: %s", c.what, s.Message)
		}
	}
	admin.do(t, patchCall("configmaps", ns, "a", applyPatch, configMap("a", "{}"))).
		refused(t, 422, metav1.StatusReasonInvalid, "fieldManager: Required value: is required for apply patch")
	admin.do(t, applyCall("configmaps", ns, "a", strings.Repeat("m", 129), "", configMap("a", "{}"))).
		refused(t, 422, metav1.StatusReasonInvalid, "fieldManager: Too long")
	force := patchCall("configmaps", ns, "a", mergePatch, `{}`)
	force.path += "?force=true"
	admin.do(t, force).refused(t, 422, metav1.StatusReasonInvalid, "force: Forbidden: may not be specified for non-apply patch")
	fits := admin.do(t, applyCall("configmaps", ns, "a", "one", "", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, resourceVersion: '"+u.GetResourceVersion()+"'}, data: {k: v}}"))
	if fits.code != http.StatusOK {
		t.Errorf("applying to the present version gave %d: %s", fits.code, fits.body)
	}
}

// Server-side apply to a subresource owns fields of that subresource.
func TestApplyOwnsBySubresource(t *testing.T) {
	ns := namespace(t)
	create(t, "deployments", ns, deploymentOf("d", 0))
	c := applyCall("deployments", ns, "d/status", "one", "", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, status: {collisionCount: 3}, spec: {replicas: 9}}")
	got := admin.want(t, http.StatusOK, c, nil).object(t)
	if !strings.Contains(owners(got), `one Apply/status: {"f:status":{"f:collisionCount":{}}}`) || field(got, "spec", "replicas") != "0" {
		t.Errorf("owners are %s, replicas %s", owners(got), field(got, "spec", "replicas"))
	}
	scale := applyCall("deployments", ns, "d/scale", "two", "&force=true", "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: d}, spec: {replicas: 1}}")
	admin.want(t, http.StatusOK, scale, nil)
	if got := get(t, "deployments", ns, "d"); field(got, "spec", "replicas") != "1" || !strings.Contains(owners(got), `two Apply/scale: {"f:spec":{"f:replicas":{}}}`) {
		t.Errorf("replicas are %s, owners %s", field(got, "spec", "replicas"), owners(got))
	}
}
