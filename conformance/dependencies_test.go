package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// waitingPod makes a pod with annotations, a YAML map.
func waitingPod(t *testing.T, ns, name, annotations string) {
	t.Helper()
	create(t, "pods", ns, "metadata: {name: "+name+", annotations: {"+annotations+"}}\nspec: {containers: [{name: c, image: none.example.com/none}]}")
}

// design/dependencies.md: what cannot be waited for is refused with the field, and a
// circle is spelled out.
func TestDependencyRefusals(t *testing.T) {
	ns := namespace(t)
	deployment := func(name, annotations string) call {
		return call{method: "POST", path: at("deployments", ns), body: "metadata: {name: " + name + ", annotations: {" + annotations + "}}\n" +
			"spec: {replicas: 0, selector: {matchLabels: {a: " + name + "}}, template: {metadata: {labels: {a: " + name + "}}, spec: {containers: [{name: c, image: i}]}}}"}
	}
	admin.want(t, http.StatusCreated, deployment("a", "hansa.dev/depends-on: deployment/b"), nil)
	for _, c := range []struct{ annotations, field, text string }{
		{"hansa.dev/depends-on: deployment/a", "metadata.annotations[hansa.dev/depends-on]", "deployment/b → deployment/a → deployment/b"},
		{"hansa.dev/depends-on: b", "metadata.annotations[hansa.dev/depends-on]", `"b" names no object`},
		{"hansa.dev/depends-on: node/x", "metadata.annotations[hansa.dev/depends-on]", "a node is in no namespace"},
		{"hansa.dev/on-dependency-failure: panic", "metadata.annotations[hansa.dev/on-dependency-failure]", `supported values: "wait", "stop", "restart"`},
		{"hansa.dev/stop-order: up", "metadata.annotations[hansa.dev/stop-order]", `supported values: "reverse", "parallel"`},
		{"hansa.dev/dependency-grace: long", "metadata.annotations[hansa.dev/dependency-grace]", `as in "30s"`},
	} {
		var s metav1.Status
		admin.want(t, http.StatusUnprocessableEntity, deployment("b", c.annotations), &s)
		if s.Reason != metav1.StatusReasonInvalid || s.Details == nil || len(s.Details.Causes) != 1 || s.Details.Causes[0].Field != c.field || !strings.Contains(s.Message, c.text) {
			t.Errorf("%s: %+v", c.annotations, s)
		}
	}
	// Whatever kind of pods it is that a service leads to, they do not wait for it.
	create(t, "services", ns, "metadata: {name: own}\nspec: {selector: {app: own}, ports: [{port: 80}]}")
	const template = "template: {metadata: {labels: {app: own}}, spec: {restartPolicy: %s, containers: [{name: c, image: i}]}}"
	always, never := fmt.Sprintf(template, "Always"), fmt.Sprintf(template, "Never")
	for _, c := range []struct{ resource, kind, spec string }{
		{"deployments", "deployment", "{selector: {matchLabels: {app: own}}, " + always + "}"},
		{"statefulsets", "statefulset", "{serviceName: own, selector: {matchLabels: {app: own}}, " + always + "}"},
		{"daemonsets", "daemonset", "{selector: {matchLabels: {app: own}}, " + always + "}"},
		{"replicasets", "replicaset", "{selector: {matchLabels: {app: own}}, " + always + "}"},
		{"replicationcontrollers", "replicationcontroller", "{selector: {app: own}, " + always + "}"},
		{"jobs", "job", "{" + never + "}"},
		{"cronjobs", "cronjob", "{schedule: '@hourly', jobTemplate: {spec: {" + never + "}}}"},
		{"pods", "pod", "{containers: [{name: c, image: i}]}"},
	} {
		var s metav1.Status
		admin.want(t, http.StatusUnprocessableEntity, call{method: "POST", path: at(c.resource, ns), body: "metadata: {name: w, labels: {app: own}, annotations: {hansa.dev/depends-on: service/own}}\nspec: " + c.spec}, &s)
		if want := c.kind + "/w → service/own → " + c.kind + "/w"; !strings.Contains(s.Message, want) {
			t.Errorf("%s: %s", want, s.Message)
		}
	}
	// An update that closes the circle is refused as well.
	admin.want(t, http.StatusCreated, deployment("b", ""), nil)
	var s metav1.Status
	patch := call{method: "PATCH", path: at("deployments", ns, "b"), body: `{"metadata":{"annotations":{"hansa.dev/depends-on":"deployment/a"}}}`, contentType: mergePatch}
	admin.want(t, http.StatusUnprocessableEntity, patch, &s)
	if !strings.Contains(s.Message, "deployment/b → deployment/a → deployment/b") {
		t.Errorf("an update: %s", s.Message)
	}
}

// design/dependencies.md: a gate for each thing that is waited for, and a condition
// that says what is missing.
func TestDependencyGates(t *testing.T) {
	ns := namespace(t)
	waitingPod(t, ns, "p", `hansa.dev/depends-on: "configmap/settings, secret/keys"`)
	state := func() (gates, message string) {
		var p corev1.Pod
		admin.want(t, http.StatusOK, call{path: at("pods", ns, "p")}, &p)
		for _, g := range p.Spec.SchedulingGates {
			gates += g.Name + " "
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
				message = c.Message
			}
		}
		return gates, message
	}
	says := func(what, gates, message string) {
		t.Helper()
		eventually(t, what, func() bool {
			g, m := state()
			return g == gates && (message == "" || strings.HasSuffix(m, message))
		})
	}
	both := "depends-on.hansa.dev/configmap.settings depends-on.hansa.dev/secret.keys "
	says("it waits for both", both, ": waits for configmap/settings:Exists (does not exist), secret/keys:Exists (does not exist)")
	create(t, "configmaps", ns, "metadata: {name: settings}")
	says("it waits for one", both, ": waits for secret/keys:Exists (does not exist)")
	create(t, "secrets", ns, "metadata: {name: keys}")
	says("it waits for nothing", "", "")
	// What is there already needs no gate.
	waitingPod(t, ns, "q", "hansa.dev/depends-on: secret/keys")
	if gates := get(t, "pods", ns, "q").Object["spec"].(map[string]any)["schedulingGates"]; gates != nil {
		t.Errorf("gates %v", gates)
	}
}
