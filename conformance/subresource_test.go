package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// API conventions, "Spec and status": each is written by its own door.
func TestStatusAndSpecAreIsolated(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	for _, c := range []struct {
		resource, body         string
		spec, status           string // merge patches that change one each
		specPath, statusPath   []string
		wantSpec, wantStatus   string
		firstSpec, firstStatus string
	}{
		{
			"deployments", deploymentOf("x", 0),
			`{"spec":{"minReadySeconds":7},"status":{"collisionCount":9},"metadata":{"labels":{"by":"main"}}}`,
			`{"spec":{"minReadySeconds":8},"status":{"collisionCount":3},"metadata":{"labels":{"by":"status"}}}`,
			[]string{"spec", "minReadySeconds"}, []string{"status", "collisionCount"}, "7", "3", "", "",
		},
		{
			"services", "metadata: {name: x}\nspec: {type: LoadBalancer, ports: [{port: 80}]}",
			`{"spec":{"sessionAffinity":"ClientIP"},"status":{"loadBalancer":{"ingress":[{"ip":"9.9.9.9"}]}},"metadata":{"labels":{"by":"main"}}}`,
			`{"spec":{"sessionAffinity":"None"},"status":{"loadBalancer":{"ingress":[{"ip":"8.8.8.8","ipMode":"VIP"}]}},"metadata":{"labels":{"by":"main"}}}`,
			[]string{"spec", "sessionAffinity"}, []string{"status", "loadBalancer"}, "ClientIP", `{"ingress":[{"ip":"8.8.8.8","ipMode":"VIP"}]}`, "None", "{}",
		},
		{
			"pods", podOn("x", node),
			`{"spec":{"activeDeadlineSeconds":1000},"status":{"nominatedNodeName":"a"},"metadata":{"labels":{"by":"main"}}}`,
			`{"spec":{"activeDeadlineSeconds":500},"status":{"message":"b"},"metadata":{"labels":{"by":"main"}}}`,
			[]string{"spec", "activeDeadlineSeconds"}, []string{"status", "message"}, "1000", "b", "", "",
		},
		{
			"jobs", "metadata: {name: x}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}",
			`{"spec":{"parallelism":3},"status":{"ready":1},"metadata":{"labels":{"by":"main"}}}`,
			`{"spec":{"parallelism":5},"status":{"terminating":0},"metadata":{"labels":{"by":"main"}}}`,
			[]string{"spec", "parallelism"}, []string{"status", "terminating"}, "3", "0", "1", "",
		},
	} {
		t.Run(c.resource, func(t *testing.T) {
			made := create(t, c.resource, ns, c.body)
			if spec, status := field(made, c.specPath...), field(made, c.statusPath...); spec != c.firstSpec || status != c.firstStatus {
				t.Errorf("made with spec %s and status %s", spec, status)
			}
			main := patch(t, c.resource, ns, "x", c.spec)
			if spec, status := field(main, c.specPath...), field(main, c.statusPath...); spec != c.wantSpec || status != c.firstStatus && status != "0" {
				t.Errorf("the object's door made spec %s, status %s", spec, status)
			}
			a := admin.want(t, http.StatusOK, call{method: "PATCH", path: at(c.resource, ns, "x", "status"), contentType: mergePatch, body: c.status}, nil).object(t)
			if spec, status := field(a, c.specPath...), field(a, c.statusPath...); spec != c.wantSpec || status != c.wantStatus {
				t.Errorf("the status' door made spec %s, status %s", spec, status)
			}
			if read := admin.want(t, http.StatusOK, call{path: at(c.resource, ns, "x", "status")}, nil).object(t); read.GetKind() != made.GetKind() || read.GetResourceVersion() == made.GetResourceVersion() {
				t.Errorf("the status reads as %v", read)
			}
		})
	}
	for _, resource := range []string{"configmaps", "secrets", "leases"} {
		if a := admin.do(t, call{path: at(resource, ns, "x", "status")}); a.code != http.StatusNotFound {
			t.Errorf("%s/status: %d", resource, a.code)
		}
	}
}

// "Scale" is the same object for all kinds that have replicas.
func TestScale(t *testing.T) {
	ns := namespace(t)
	for _, resource := range []string{"deployments", "replicasets"} {
		d := create(t, resource, ns, deploymentOf("s-"+resource, 0))
		path := at(resource, ns, "s-"+resource, "scale")
		var scale autoscalingv1.Scale
		admin.want(t, http.StatusOK, call{path: path}, &scale)
		if scale.Kind != "Scale" || scale.APIVersion != "autoscaling/v1" || scale.UID != d.GetUID() || scale.Spec.Replicas != 0 || scale.Status.Selector != "app=s-"+resource {
			t.Errorf("scale is %+v", scale)
		}
		scale.Spec.Replicas = 1
		scale.ResourceVersion = "" // the loops write, too
		admin.want(t, http.StatusOK, call{method: "PUT", path: path, body: encode(t, scale)}, nil)
		if got := get(t, resource, ns, "s-"+resource); field(got, "spec", "replicas") != "1" || got.GetGeneration() != 2 {
			t.Errorf("%s has %s replicas, generation %d", resource, field(got, "spec", "replicas"), got.GetGeneration())
		}
		scale.ResourceVersion = d.GetResourceVersion()
		admin.do(t, call{method: "PUT", path: path, body: encode(t, scale)}).refused(t, 409, metav1.StatusReasonConflict, "the object has been modified")
		patched := admin.want(t, http.StatusOK, call{method: "PATCH", path: path, contentType: mergePatch, body: `{"spec":{"replicas":2}}`}, nil).object(t)
		if field(patched, "spec", "replicas") != "2" || patched.GetKind() != "Scale" {
			t.Errorf("patched scale is %v", patched)
		}
		s := admin.do(t, call{method: "PATCH", path: path, contentType: mergePatch, body: `{"spec":{"replicas":-1}}`}).refused(t, 422, metav1.StatusReasonInvalid, "spec.replicas: Invalid value: -1")
		if len(causesOf(s)) != 1 {
			t.Errorf("causes are %v", causesOf(s))
		}
		admin.do(t, call{path: at(resource, ns, "none", "scale")}).refused(t, 404, metav1.StatusReasonNotFound, `"none" not found`)
	}
}

// A binding sets the node once; later ones conflict.
func TestBinding(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	pod := create(t, "pods", ns, podOf("p"))
	bind := func(path, name, body string) answer {
		return admin.do(t, call{method: "POST", path: path, body: "{apiVersion: v1, kind: Binding, metadata: {name: " + name + body + "}"})
	}
	target := "}, target: {kind: Node, name: " + node + "}"
	bind(at("pods", ns, "p", "binding"), "p", ", uid: other"+target).refused(t, 409, metav1.StatusReasonConflict, "")
	bind(at("pods", ns, "p", "binding"), "p", "}, target: {kind: Pod, name: x}").refused(t, 500, metav1.StatusReasonUnknown, `target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>"`)
	bind(at("pods", ns, "p", "binding"), "p", "}, target: {name: x_y}").refused(t, 500, metav1.StatusReasonUnknown, `target.name: Invalid value: "x_y": a lowercase RFC 1123 subdomain`)
	bind(at("pods", ns, "p", "binding"), "p", "}, target: {kind: Node}").refused(t, 500, metav1.StatusReasonUnknown, "target.name: Required value")
	bind(at("pods", ns, "none", "binding"), "none", target).refused(t, 404, metav1.StatusReasonNotFound, `pods "none" not found`)
	if s := bind(at("pods", ns, "p", "binding"), "p", ", uid: "+string(pod.GetUID())+target).status(t); s.Status != metav1.StatusSuccess || s.Code != http.StatusCreated {
		t.Errorf("binding gave %+v", s)
	}
	var bound corev1.Pod
	admin.want(t, http.StatusOK, call{path: at("pods", ns, "p")}, &bound)
	scheduled := false
	for _, c := range bound.Status.Conditions {
		scheduled = scheduled || c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue
	}
	if bound.Spec.NodeName != node || !scheduled {
		t.Errorf("bound pod is on %q with %v", bound.Spec.NodeName, bound.Status.Conditions)
	}
	bind(at("pods", ns, "p", "binding"), "p", target).refused(t, 409, metav1.StatusReasonConflict, "pod p is already assigned to node \""+node+"\"")
	create(t, "pods", ns, podOf("old-door"))
	if a := bind(at("bindings", ns), "old-door", target); a.code != http.StatusCreated || field(get(t, "pods", ns, "old-door"), "spec", "nodeName") != node {
		t.Errorf("binding by its collection gave %d: %s", a.code, a.body)
	}
}

// "API-initiated eviction": without a disruption budget it is a deletion.
func TestEviction(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	evict := func(name, options string) answer {
		body := fmt.Sprintf("{apiVersion: policy/v1, kind: Eviction, metadata: {name: %s}%s}", name, options)
		return admin.do(t, call{method: "POST", path: at("pods", ns, name, "eviction"), body: body})
	}
	create(t, "pods", ns, podOn("p", node))
	evict("p", ", deleteOptions: {dryRun: [All]}").status2xx(t)
	if get(t, "pods", ns, "p").GetDeletionTimestamp() != nil {
		t.Error("a dry run evicted")
	}
	evict("p", ", deleteOptions: {preconditions: {uid: other}}").refused(t, 409, metav1.StatusReasonConflict, "")
	if a := evict("p", ", deleteOptions: {gracePeriodSeconds: 3}"); a.code != http.StatusCreated || a.status(t).Status != metav1.StatusSuccess {
		t.Errorf("eviction gave %d %s", a.code, a.body)
	}
	if g := get(t, "pods", ns, "p").GetDeletionGracePeriodSeconds(); g == nil || *g != 3 {
		t.Errorf("evicted pod has %v seconds", g)
	}
	evict("none", "").refused(t, 404, metav1.StatusReasonNotFound, `pods "none" not found`)
	// Clients of before 1.22 send this version, which is taken for good.
	create(t, "pods", ns, podOn("old", node))
	for version, code := range map[string]int{"v1beta1": http.StatusCreated, "v9": http.StatusBadRequest} {
		a := admin.do(t, call{method: "POST", path: at("pods", ns, "old", "eviction"), body: "{apiVersion: policy/" + version + ", kind: Eviction, metadata: {name: old}}"})
		if a.code != code {
			t.Errorf("eviction of policy/%s gave %d %s", version, a.code, a.body)
		}
	}
}

// "Ephemeral Containers": only by their own door, added and never changed.
func TestEphemeralContainers(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	create(t, "pods", ns, podOn("p", node))
	path := at("pods", ns, "p", "ephemeralcontainers")
	add := `{"spec":{"ephemeralContainers":[{"name":"debug","image":"i","targetContainerName":"c"}]}}`
	admin.do(t, patchCall("pods", ns, "p", strategicPatch, add)).refused(t, 422, metav1.StatusReasonInvalid, "spec: Forbidden: pod updates may not change fields other than")
	got := admin.want(t, http.StatusOK, call{method: "PATCH", path: path, contentType: strategicPatch, body: add}, nil).object(t)
	if c, _, _ := nested[[]any](got.Object, "spec", "ephemeralContainers"); len(c) != 1 {
		t.Errorf("ephemeral containers are %v", c)
	}
	change := `{"spec":{"ephemeralContainers":[{"name":"debug","image":"j"}]}}`
	admin.do(t, call{method: "PATCH", path: path, contentType: strategicPatch, body: change}).refused(t, 422, metav1.StatusReasonInvalid, "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be changed")
	other := admin.want(t, http.StatusOK, call{method: "PATCH", path: path, contentType: mergePatch, body: `{"metadata":{"labels":{"x":"v"}},"spec":{"activeDeadlineSeconds":5}}`}, nil).object(t)
	if len(other.GetLabels()) != 0 || field(other, "spec", "activeDeadlineSeconds") != "" {
		t.Errorf("by the door of ephemeral containers other fields changed: %v", other)
	}
}

// "Resize CPU and Memory Resources assigned to Containers": resources change by
// the resize door only, which changes nothing else.
func TestResize(t *testing.T) {
	ns, node := namespace(t), namespaceName(t)
	create(t, "nodes", "", "metadata: {name: "+node+"}\nspec: {unschedulable: true}\nstatus: {allocatable: {cpu: 1, memory: 1Gi, pods: 1}}")
	create(t, "pods", ns, "metadata: {name: p}\nspec: {nodeName: "+node+", containers: [{name: c, image: i, resources: {requests: {cpu: 100m, memory: 10Mi}}}]}")
	path := at("pods", ns, "p", "resize")
	admin.do(t, patchCall("pods", ns, "p", strategicPatch, `{"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"200m"}}}]}}`)).
		refused(t, 422, metav1.StatusReasonInvalid, "spec: Forbidden: pod updates may not change fields other than")
	var pod corev1.Pod
	admin.want(t, http.StatusOK, call{method: "PATCH", path: path, contentType: strategicPatch, body: `{"spec":{"containers":[{"name":"c","image":"other","resources":{"requests":{"cpu":"200m"}}}]},"metadata":{"labels":{"x":"v"}}}`}, &pod)
	if got := pod.Spec.Containers[0].Resources.Requests; got.Cpu().String() != "200m" || got.Memory().String() != "10Mi" || pod.Generation != 2 || len(pod.Labels) != 0 || pod.Spec.Containers[0].Image != "i" {
		t.Errorf("resized pod has %v, generation %d, labels %v, image %s", got, pod.Generation, pod.Labels, pod.Spec.Containers[0].Image)
	}
	// What the door does not change is owned all the same: its storage resets no fields.
	if got := owners(get(t, "pods", ns, "p")); !strings.Contains(got, `conformance Update/resize: {"f:metadata":{"f:labels":{".":{},"f:x":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:image":{},"f:resources":{"f:requests":{"f:cpu":{}}}}}}}`) {
		t.Errorf("owners of a resized pod are %s", got)
	}
	create(t, "pods", ns, "metadata: {name: begins}\nspec: {nodeName: "+node+", initContainers: [{name: i, image: i, resources: {requests: {cpu: 10m}}}], containers: [{name: c, image: i}]}")
	resized := admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, "begins", "resize"), contentType: strategicPatch, body: `{"spec":{"initContainers":[{"name":"i","resources":{"requests":{"cpu":"20m"}}}]}}`}, nil).object(t)
	if got := field(resized, "spec", "initContainers"); !strings.Contains(got, `"cpu":"20m"`) {
		t.Errorf("a resized init container is %s", got)
	}
	admin.do(t, call{method: "PATCH", path: path, contentType: strategicPatch, body: `{"spec":{"containers":[{"name":"c","resources":{"limits":{"memory":"10Mi"},"requests":{"memory":"10Mi","cpu":null}}}]}}`}).
		refused(t, 422, metav1.StatusReasonInvalid, "")
}

// A namespace is finalized by its own door.
func TestFinalizeNamespace(t *testing.T) {
	ns := namespace(t)
	path := at("namespaces", "", ns, "finalize")
	body := func(finalizers string) string {
		return "{apiVersion: v1, kind: Namespace, metadata: {name: " + ns + ", labels: {by: finalize}}, spec: {finalizers: " + finalizers + "}}"
	}
	got := admin.want(t, http.StatusOK, call{method: "PUT", path: path, body: body("[kubernetes, test.dev/mine]")}, nil).object(t)
	if field(got, "spec", "finalizers") != `["kubernetes","test.dev/mine"]` {
		t.Errorf("finalizers are %s", field(got, "spec", "finalizers"))
	}
	patch(t, "namespaces", "", ns, `{"spec":{"finalizers":[]}}`)
	if got := get(t, "namespaces", "", ns); field(got, "spec", "finalizers") != `["kubernetes","test.dev/mine"]` {
		t.Errorf("the namespace's own door made finalizers %s", field(got, "spec", "finalizers"))
	}
	status := admin.want(t, http.StatusOK, call{method: "PATCH", path: at("namespaces", "", ns, "status"), contentType: mergePatch, body: `{"status":{"conditions":[{"type":"Mine","status":"True"}]},"spec":{"finalizers":[]}}`}, nil).object(t)
	if c, _, _ := nested[[]any](status.Object, "status", "conditions"); len(c) != 1 || field(status, "spec", "finalizers") != `["kubernetes","test.dev/mine"]` {
		t.Errorf("by the status' door: %v", status)
	}
	admin.want(t, http.StatusOK, deleteCall("namespaces", "", ns, ""), nil)
	eventually(t, "the namespace loop is done", func() bool {
		return field(get(t, "namespaces", "", ns), "spec", "finalizers") == `["test.dev/mine"]`
	})
	admin.want(t, http.StatusOK, call{method: "PUT", path: path, body: body("[]")}, nil)
	eventually(t, "the namespace goes with its last finalizer", func() bool { return gone(t, "namespaces", "", ns) })
}
