package conformance

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// defaulted is an object as sent, and as it is read back.
type defaulted struct {
	name       string
	sent, want map[string]any
}

// defaults reads the tables of api/pod/testdata/default and its like.
func defaults(t *testing.T, folder string) []defaulted {
	t.Helper()
	goldens, err := filepath.Glob(filepath.Join("..", "api", folder, "*.golden.yaml"))
	if err != nil || len(goldens) == 0 {
		t.Fatalf("no goldens in %s: %v", folder, err)
	}
	documents := func(file string) (docs []map[string]any) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(data), "\n---\n") {
			var d map[string]any
			if err := yaml.Unmarshal([]byte(doc+"\n"), &d); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			docs = append(docs, d)
		}
		return docs
	}
	var all []defaulted
	for _, golden := range goldens {
		base := strings.TrimSuffix(golden, ".golden.yaml")
		sent, want := documents(base+".yaml"), documents(golden)
		if len(sent) != len(want) {
			t.Fatalf("%s has %d documents, its golden %d", base, len(sent), len(want))
		}
		for i := range sent {
			all = append(all, defaulted{fmt.Sprintf("%s/%d", filepath.Base(base), i), sent[i], want[i]})
		}
	}
	return all
}

// addedByServer are the fields, by kind, that a server fills in beyond what the
// kind says: by allocation, by admission, from who asks. "" is for all kinds.
var addedByServer = map[string][]string{
	"":                          {".apiVersion", ".kind", ".metadata.managedFields", ".metadata.namespace", ".metadata.creationTimestamp", ".metadata.uid", ".metadata.resourceVersion"},
	"Pod":                       {".spec.tolerations", ".spec.priority", ".spec.preemptionPolicy", ".spec.serviceAccount", ".spec.serviceAccountName", ".spec.automountServiceAccountToken"},
	"Service":                   {".spec.clusterIP", ".spec.clusterIPs", ".spec.ports[].nodePort"},
	"Node":                      {".spec.taints"},
	"StatefulSet":               {".spec.volumeClaimTemplates[].apiVersion", ".spec.volumeClaimTemplates[].kind"},
	"CertificateSigningRequest": {".spec.username", ".spec.uid", ".spec.groups", ".spec.extra"},
}

// differences lists where got is not what want says, or says more.
func differences(path string, want, got any) []string {
	w, isMap := want.(map[string]any)
	g, both := got.(map[string]any)
	if isMap && both {
		keys := maps.Clone(w)
		maps.Copy(keys, g)
		var all []string
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			all = append(all, differences(path+"."+key, w[key], g[key])...)
		}
		return all
	}
	wl, isList := want.([]any)
	gl, both := got.([]any)
	if isList && both && len(wl) == len(gl) {
		var all []string
		for i := range wl {
			all = append(all, differences(path+"[]", wl[i], gl[i])...)
		}
		return all
	}
	if cmp.Equal(want, got) || isList && len(wl) == 0 && got == nil { // which storage tells apart no more
		return nil
	}
	return []string{fmt.Sprintf("%s is %v, want %v", path, got, want)}
}

var moment = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`)

// check holds what was read back to the golden, but for times and identities.
func (d *defaulted) check(t *testing.T, read map[string]any) {
	t.Helper()
	level := func(object map[string]any) (leveled map[string]any) {
		decode(t, moment.ReplaceAllString(uid.ReplaceAllString(encode(t, object), "a-uid"), `"TIME"`), &leveled)
		return leveled
	}
	kind, _ := read["kind"].(string)
	for _, line := range differences("", level(d.want), level(read)) {
		path, _, _ := strings.Cut(line, " ")
		if !slices.Contains(addedByServer[""], path) && !slices.Contains(addedByServer[kind], path) {
			t.Error(line)
		}
	}
}

// What a client leaves out is filled in as the tables say, and what it may not
// set is taken out.
func TestDefaults(t *testing.T) {
	patch(t, "namespaces", "", "default", `{"metadata":{"labels":{"resource.kubernetes.io/admin-access":"true"}}}`)
	for _, d := range defaults(t, "kinds/testdata/default") {
		t.Run(d.name, func(t *testing.T) {
			u := &unstructured.Unstructured{Object: d.sent}
			resource, ns := place(t, u, "default")
			collection := under(u.GetAPIVersion(), resource, ns)
			a := admin.do(t, call{method: "POST", path: collection + "?dryRun=All", body: encode(t, d.sent)})
			if a.code == http.StatusConflict { // the server has one, with a status
				a = admin.do(t, call{method: "PUT", path: collection + "/" + u.GetName() + "?dryRun=All", body: encode(t, d.sent)})
				d.want = map[string]any{"spec": d.want["spec"]}
				a.status2xx(t)
				d.check(t, map[string]any{"kind": u.GetKind(), "spec": a.object(t).Object["spec"]})
				return
			}
			a.status2xx(t)
			d.check(t, a.object(t).Object)
		})
	}
	patch(t, "namespaces", "", "default", `{"metadata":{"labels":{"resource.kubernetes.io/admin-access":null}}}`)
}

// The same of pods. Containers that can only be added, and statuses, are written
// after the pod.
func TestDefaultsOfPods(t *testing.T) {
	ns := namespace(t)
	for _, name := range []string{"robot", "new-name"} {
		create(t, "serviceaccounts", ns, "metadata: {name: "+name+"}")
	}
	class := namespaceName(t)
	classes := under("node.k8s.io/v1", "runtimeclasses", "")
	admin.want(t, http.StatusCreated, call{method: "POST", path: classes, body: "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: " + class + "}, handler: runc, overhead: {podFixed: {cpu: 2m}}}"}, nil)
	for _, d := range defaults(t, "pod/testdata/default") {
		t.Run(d.name, func(t *testing.T) {
			spec := d.sent["spec"].(map[string]any)
			spec["automountServiceAccountToken"] = false
			if spec["overhead"] != nil {
				spec["runtimeClassName"] = class
				d.want["spec"].(map[string]any)["runtimeClassName"] = class
			}
			ephemeral, status := spec["ephemeralContainers"], d.sent["status"]
			delete(spec, "ephemeralContainers")
			if ephemeral == nil && status == nil {
				a := admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns) + "?dryRun=All", body: encode(t, d.sent)}, nil)
				d.check(t, a.object(t).Object)
				return
			}
			path := at("pods", ns, create(t, "pods", ns, encode(t, d.sent)).GetName())
			if ephemeral != nil {
				body := encode(t, map[string]any{"spec": map[string]any{"ephemeralContainers": ephemeral}})
				admin.want(t, http.StatusOK, call{method: "PATCH", path: path + "/ephemeralcontainers", contentType: mergePatch, body: body}, nil)
				d.want["metadata"].(map[string]any)["generation"] = int64(2)
			}
			if status != nil {
				putStatus(t, path, "status", status)
			}
			d.check(t, admin.want(t, http.StatusOK, call{path: path}, nil).object(t).Object)
			admin.want(t, http.StatusOK, call{method: "DELETE", path: path, body: "{gracePeriodSeconds: 0}"}, nil)
		})
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: classes + "/" + class}, nil)
}

// "Assign Pod-level CPU and memory resources": what a pod states as a whole is
// completed by all of its containers, also those that a webhook adds, and
// outlasts writers who do not know of it.
func TestPodLevelResources(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/sidecar": patches(`[{"op":"add","path":"/spec/initContainers","value":[
		{"name":"s","image":"i","restartPolicy":"Always","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"2","memory":"1Gi"}}}]}]`)})
	resources := func(u *unstructured.Unstructured) string { return field(u, "spec", "resources") }
	pod := func(name, whole, own string) *unstructured.Unstructured {
		t.Helper()
		return create(t, "pods", ns, fmt.Sprintf("{metadata: {name: %s}, spec: {schedulerName: nobody, resources: %s, containers: [{name: c, image: i, resources: %s}]}}", name, whole, own))
	}
	expect := func(what string, u *unstructured.Unstructured, want string) {
		t.Helper()
		if got := resources(u); got != want {
			t.Errorf("%s: resources are %s, want %s", what, got, want)
		}
	}
	expect("requests only", pod("requests", "{requests: {memory: 2Gi}}", "{requests: {cpu: 1}}"), `{"requests":{"cpu":"1","memory":"2Gi"}}`)
	expect("all containers limited", pod("limited", "{requests: {cpu: 2}}", "{limits: {cpu: 1, memory: 1Gi}}"),
		`{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"2","memory":"1Gi"}}`)
	configure(t, mutatingHooks, "", h.webhook("/sidecar", "/v1 pods CREATE"))
	injected := pod("injected", "{limits: {cpu: 8}}", "{requests: {cpu: 1}, limits: {memory: 1Gi}}")
	const whole = `{"limits":{"cpu":"8","memory":"2Gi"},"requests":{"cpu":"3","memory":"2Gi"}}`
	expect("a sidecar of a webhook", injected, whole)

	dropped := injected.DeepCopy()
	unstructured.RemoveNestedField(dropped.Object, "spec", "resources")
	dropped.SetLabels(map[string]string{"a": "b"})
	put := admin.want(t, http.StatusOK, call{method: "PUT", path: at("pods", ns, "injected"), body: encode(t, dropped.Object)}, nil).object(t)
	expect("a PUT that drops them", put, whole)
	if put.GetGeneration() != injected.GetGeneration() || put.GetLabels()["a"] != "b" {
		t.Errorf("after it: generation %d, labels %v", put.GetGeneration(), put.GetLabels())
	}
	resized := admin.want(t, http.StatusOK, call{
		method: "PATCH", path: at("pods", ns, "injected", "resize"), contentType: mergePatch,
		body: `{"spec":{"resources":null,"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1","memory":"512Mi"},"limits":{"cpu":"4","memory":"1Gi"}}}]}}`,
	}, nil).object(t)
	expect("a resize that drops them", resized, whole)
	resized = admin.want(t, http.StatusOK, call{
		method: "PATCH", path: at("pods", ns, "requests", "resize"), contentType: mergePatch,
		body: `{"spec":{"resources":{"requests":{"cpu":"3"}},"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1"},"limits":{"cpu":"2"}}}]}}`,
	}, nil).object(t)
	expect("a resize that limits all containers", resized, `{"limits":{"cpu":"3"},"requests":{"cpu":"3","memory":"2Gi"}}`)
}
