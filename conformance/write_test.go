package conformance

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// API concepts, "Generated values": a name is the prefix with five random
// characters, and a name that is given wins.
func TestGenerateName(t *testing.T) {
	ns := namespace(t)
	seen := map[string]bool{}
	for range 20 {
		u := create(t, "configmaps", ns, "metadata: {generateName: made-}")
		if !regexp.MustCompile(`^made-[bcdfghjklmnpqrstvwxz2456789]{5}$`).MatchString(u.GetName()) || u.GetGenerateName() != "made-" {
			t.Errorf("generated name is %q of %q", u.GetName(), u.GetGenerateName())
		}
		seen[u.GetName()] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d different names of 20", len(seen))
	}
	if u := create(t, "configmaps", ns, "metadata: {generateName: made-, name: given}"); u.GetName() != "given" {
		t.Errorf("name is %s although given", u.GetName())
	}
	long := strings.Repeat("a", 100)
	if u := create(t, "services", ns, "metadata: {generateName: "+long[:60]+"}\nspec: {ports: [{port: 80}]}"); len(u.GetName()) != 63 {
		t.Errorf("generated name %q is not cut to what the kind allows", u.GetName())
	}
	admin.do(t, call{method: "POST", path: at("configmaps", ns), body: "metadata: {generateName: Upper-}"}).
		refused(t, 422, metav1.StatusReasonInvalid, "metadata.generateName: Invalid value")
}

// API concepts, "Object names and IDs", and API conventions, "Metadata": the
// server owns identity, creation time and version.
func TestSystemFieldsAreTheServers(t *testing.T) {
	ns := namespace(t)
	u := create(t, "configmaps", ns, `
metadata:
  name: a
  uid: mine
  creationTimestamp: "2001-01-01T00:00:00Z"
  deletionTimestamp: "2001-01-01T00:00:00Z"
  deletionGracePeriodSeconds: 5
  selfLink: /x`)
	if u.GetUID() == "mine" || u.GetUID() == "" {
		t.Errorf("UID is %q", u.GetUID())
	}
	if at := u.GetCreationTimestamp(); at.Year() == 2001 || at == (metav1.Time{}) {
		t.Errorf("created at %s", at)
	}
	if u.GetDeletionTimestamp() != nil || u.GetDeletionGracePeriodSeconds() != nil || u.GetSelfLink() != "" {
		t.Errorf("metadata is %s", field(u, "metadata"))
	}
	path := at("configmaps", ns, "a")
	admin.do(t, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: b, resourceVersion: '5'}"}).
		refused(t, 500, "", "resourceVersion should not be set on objects to be created")
	admin.do(t, call{method: "PUT", path: path, body: "metadata: {name: a, uid: other}"}).
		refused(t, 409, metav1.StatusReasonConflict, "UID in precondition: other, UID in object meta: "+string(u.GetUID()))
	kept := admin.want(t, 200, call{method: "PUT", path: path, body: `metadata: {name: a, creationTimestamp: "2001-01-01T00:00:00Z", generation: 7}`}, nil).object(t)
	if kept.GetCreationTimestamp() != u.GetCreationTimestamp() || kept.GetUID() != u.GetUID() || kept.GetGeneration() != 0 {
		t.Errorf("update made metadata %s of %s", field(kept, "metadata"), field(u, "metadata"))
	}
}

// API concepts, "Resource versions": a write that names an old version loses;
// one that names none wins.
func TestOptimisticConcurrency(t *testing.T) {
	ns := namespace(t)
	path := at("configmaps", ns, "a")
	first := create(t, "configmaps", ns, "metadata: {name: a}\ndata: {k: '1'}")
	put := func(version, value string) answer {
		return admin.do(t, call{method: "PUT", path: path, body: fmt.Sprintf("metadata: {name: a, resourceVersion: '%s'}\ndata: {k: '%s'}", version, value)})
	}
	second := put(first.GetResourceVersion(), "2").object(t)
	if second.GetResourceVersion() == first.GetResourceVersion() || field(second, "data", "k") != "2" {
		t.Fatalf("update gave %v", second)
	}
	s := put(first.GetResourceVersion(), "3").refused(t, 409, metav1.StatusReasonConflict,
		`Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`)
	if s.Details == nil || s.Details.Name != "a" || s.Details.Kind != "configmaps" {
		t.Errorf("details are %+v", s.Details)
	}
	third := put("", "4").object(t)
	if field(third, "data", "k") != "4" {
		t.Errorf("update without version gave %v", third)
	}
	if same := put("", "4").object(t); same.GetResourceVersion() != third.GetResourceVersion() {
		t.Errorf("update that changes nothing went from version %s to %s", third.GetResourceVersion(), same.GetResourceVersion())
	}
	admin.do(t, call{method: "PATCH", path: path, contentType: mergePatch, body: `{"metadata":{"resourceVersion":"` + first.GetResourceVersion() + `"},"data":{"k":"5"}}`}).
		refused(t, 409, metav1.StatusReasonConflict, "the object has been modified")
	admin.do(t, call{method: "PUT", path: at("configmaps", ns, "none"), body: "metadata: {name: none}"}).
		refused(t, 404, metav1.StatusReasonNotFound, `configmaps "none" not found`)
	admin.do(t, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: a}"}).
		refused(t, 409, metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`)
}

// Some kinds must be updated with a version, and some may be made by a PUT.
func TestUpdateThatCreates(t *testing.T) {
	ns := namespace(t)
	lease := "metadata: {name: l}\nspec: {holderIdentity: me}"
	u := admin.want(t, http.StatusCreated, call{method: "PUT", path: at("leases", ns, "l"), body: lease}, nil).object(t)
	if u.GetUID() == "" || u.GetCreationTimestamp() == (metav1.Time{}) {
		t.Errorf("created with metadata %s", field(u, "metadata"))
	}
	admin.do(t, call{method: "PUT", path: at("leases", ns, "l"), body: lease}).
		refused(t, 422, metav1.StatusReasonInvalid, "metadata.resourceVersion: Invalid value: 0: must be specified for an update")
	admin.do(t, call{method: "PUT", path: at("leases", ns, "m"), body: "metadata: {name: m, uid: x}"}).
		refused(t, 409, metav1.StatusReasonConflict, "")
}

// API conventions, "Metadata": generation counts changes of the wanted state.
func TestGenerationCountsChangesOfSpec(t *testing.T) {
	ns := namespace(t)
	create(t, "replicasets", ns, deploymentOf("a", 0))
	step := func(what, body string, want int64) {
		t.Helper()
		if got := patch(t, "replicasets", ns, "a", body).GetGeneration(); got != want {
			t.Errorf("%s: generation is %d, want %d", what, got, want)
		}
	}
	step("label", `{"metadata":{"labels":{"x":"y"}}}`, 1)
	step("spec", `{"spec":{"minReadySeconds":5}}`, 2)
	step("nothing", `{"spec":{"minReadySeconds":5}}`, 2)
	step("by hand", `{"metadata":{"generation":9}}`, 2)
	step("status by the wrong door", `{"status":{"replicas":5}}`, 2)
}

// deploymentOf is a small deployment of containers that are never run.
func deploymentOf(name string, replicas int) string {
	return fmt.Sprintf(`
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {schedulerName: nobody, containers: [{name: c, image: i}]}`, name, replicas)
}

// podOf is a pod that nobody schedules.
func podOf(name string) string {
	return fmt.Sprintf("metadata: {name: %s}\nspec: {schedulerName: nobody, containers: [{name: c, image: i}]}", name)
}

// ghost is a node without an agent: its pods are bound and never run.
func ghost(t *testing.T) string {
	t.Helper()
	name := namespaceName(t)
	create(t, "nodes", "", "metadata: {name: "+name+"}")
	return name
}

// podOn is a pod bound to a node.
func podOn(name, node string) string {
	return fmt.Sprintf("metadata: {name: %s}\nspec: {nodeName: %s, containers: [{name: c, image: i}]}", name, node)
}
