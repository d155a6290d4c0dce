package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// ownedBy makes a ConfigMap that depends on others.
func ownedBy(t *testing.T, ns, name, more string, block bool, owners ...*unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	refs := ""
	for _, o := range owners {
		refs += fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, name: %s, uid: %s, blockOwnerDeletion: %t},", o.GetName(), o.GetUID(), block)
	}
	return create(t, "configmaps", ns, fmt.Sprintf("metadata: {name: %s, ownerReferences: [%s]%s}", name, refs, more))
}

// Garbage collection, "Background cascading deletion": the owner goes at once,
// its dependents follow, also those of dependents.
func TestBackgroundDeletion(t *testing.T) {
	ns := namespace(t)
	owner := create(t, "configmaps", ns, "metadata: {name: owner}")
	child := ownedBy(t, ns, "child", "", false, owner)
	ownedBy(t, ns, "grandchild", "", false, child)
	admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "owner", ""), nil).status(t)
	if !gone(t, "configmaps", ns, "owner") {
		t.Error("the owner waits")
	}
	eventually(t, "dependents go", func() bool {
		return gone(t, "configmaps", ns, "child") && gone(t, "configmaps", ns, "grandchild")
	})
}

// labelled are the objects of a kind with the label app.
func labelled(t *testing.T, resource, ns, app string) []metav1.PartialObjectMetadata {
	t.Helper()
	var list metav1.PartialObjectMetadataList
	admin.want(t, http.StatusOK, call{path: at(resource, ns) + "?labelSelector=app%3D" + app}, &list)
	return list.Items
}

// controllerOf is a ReplicationController whose pods nobody schedules.
func controllerOf(name string, replicas int) string {
	return fmt.Sprintf("metadata: {name: %[1]s}\nspec: {replicas: %[2]d, selector: {app: %[1]s}, template: {metadata: {labels: {app: %[1]s}}, spec: {schedulerName: nobody, containers: [{name: c, image: i}]}}}", name, replicas)
}

// What loops made goes with what they made it for: the sets of a Deployment and
// their pods, the pods of a ReplicationController. Asked to be orphaned they stay,
// those of a ReplicationController also when nothing is asked: so it was in core/v1.
func TestReplicasGoOrStay(t *testing.T) {
	ns := namespace(t)
	create(t, "deployments", ns, deploymentOf("deployment", 2))
	for _, name := range []string{"background", "orphan", "unsaid"} {
		create(t, "replicationcontrollers", ns, controllerOf(name, 2))
	}
	create(t, "deployments", ns, deploymentOf("kept", 1))
	pods := map[string]int{"deployment": 2, "background": 2, "orphan": 2, "unsaid": 2, "kept": 1}
	for app, n := range pods {
		eventually(t, "the pods of "+app+" are made", func() bool { return len(labelled(t, "pods", ns, app)) == n })
	}
	set := labelled(t, "replicasets", ns, "kept")[0]
	for name, c := range map[string]struct{ resource, options string }{
		"deployment": {"deployments", "{propagationPolicy: Background}"},
		"background": {"replicationcontrollers", "{propagationPolicy: Background}"},
		"orphan":     {"replicationcontrollers", "{propagationPolicy: Orphan}"},
		"unsaid":     {"replicationcontrollers", ""},
		"kept":       {"deployments", "{propagationPolicy: Orphan}"},
	} {
		admin.want(t, http.StatusOK, deleteCall(c.resource, ns, name, c.options), nil)
		eventually(t, name+" goes", func() bool { return gone(t, c.resource, ns, name) })
	}
	for _, name := range []string{"deployment", "background"} {
		eventually(t, "what was made for "+name+" goes", func() bool {
			return len(labelled(t, "replicasets", ns, name))+len(labelled(t, "pods", ns, name)) == 0
		})
	}
	for _, name := range []string{"orphan", "unsaid"} {
		orphans := labelled(t, "pods", ns, name)
		for _, p := range orphans {
			if len(p.OwnerReferences) > 0 || p.DeletionTimestamp != nil {
				t.Errorf("pod %s of %s is owned by %v, deleted at %v", p.Name, name, p.OwnerReferences, p.DeletionTimestamp)
			}
		}
		if len(orphans) != 2 {
			t.Errorf("%d pods outlive %s", len(orphans), name)
		}
	}
	sets, orphans := labelled(t, "replicasets", ns, "kept"), labelled(t, "pods", ns, "kept")
	if len(sets) != 1 || sets[0].UID != set.UID || len(sets[0].OwnerReferences) > 0 || len(orphans) != 1 || orphans[0].OwnerReferences[0].UID != set.UID {
		t.Errorf("of the Deployment that was orphaned there are %v and %v", sets, orphans)
	}
}

// Garbage collection, "Foreground cascading deletion": the owner stays, marked
// and with a finalizer, until the dependents that block it are gone.
func TestForegroundDeletion(t *testing.T) {
	ns := namespace(t)
	owner := create(t, "configmaps", ns, "metadata: {name: owner}")
	ownedBy(t, ns, "blocks", ", finalizers: [test.dev/f]", true, owner)
	ownedBy(t, ns, "free", ", finalizers: [test.dev/f]", false, owner)
	marked := admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "owner", "{propagationPolicy: Foreground}"), nil).object(t)
	if marked.GetDeletionTimestamp() == nil || !slices.Equal(marked.GetFinalizers(), []string{metav1.FinalizerDeleteDependents}) {
		t.Errorf("marked owner is %v", marked)
	}
	for _, name := range []string{"blocks", "free"} {
		eventually(t, name+" is being deleted", func() bool { return get(t, "configmaps", ns, name).GetDeletionTimestamp() != nil })
	}
	if gone(t, "configmaps", ns, "owner") {
		t.Fatal("the owner went before what blocks it")
	}
	patch(t, "configmaps", ns, "blocks", `{"metadata":{"finalizers":null}}`)
	eventually(t, "the owner goes", func() bool { return gone(t, "configmaps", ns, "owner") })
	if gone(t, "configmaps", ns, "free") {
		t.Error("a dependent that does not block was waited for")
	}
	patch(t, "configmaps", ns, "free", `{"metadata":{"finalizers":null}}`)
}

// Garbage collection, "Orphaned dependents": they stay, without the reference.
func TestOrphaningDeletion(t *testing.T) {
	ns := namespace(t)
	owner := create(t, "configmaps", ns, "metadata: {name: owner}")
	other := create(t, "configmaps", ns, "metadata: {name: other}")
	ownedBy(t, ns, "child", "", true, owner, other)
	w := watch(t, at("configmaps", ns)+"?fieldSelector=metadata.name%3Downer&resourceVersion="+other.GetResourceVersion())
	admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "owner", "{propagationPolicy: Orphan}"), nil)
	if e := w.next(t); e.Type != "MODIFIED" || !slices.Equal(e.object.GetFinalizers(), []string{metav1.FinalizerOrphanDependents}) {
		t.Errorf("the owner is first %s %v", e.Type, e.object)
	}
	if e := w.next(t); e.Type != "DELETED" && e.Type != "MODIFIED" {
		t.Errorf("the owner is then %s", e.Type)
	}
	eventually(t, "the owner goes", func() bool { return gone(t, "configmaps", ns, "owner") })
	child := get(t, "configmaps", ns, "child")
	if refs := child.GetOwnerReferences(); len(refs) != 1 || refs[0].Name != "other" || child.GetDeletionTimestamp() != nil {
		t.Errorf("orphan is %v", child)
	}
}

// Garbage collection, "Owners and dependents": one living owner is enough, a
// circle holds nothing up, and an owner that never was does not count.
func TestOwnersThatCount(t *testing.T) {
	ns := namespace(t)
	a, b := create(t, "configmaps", ns, "metadata: {name: a}"), create(t, "configmaps", ns, "metadata: {name: b}")
	ownedBy(t, ns, "of-both", "", true, a, b)
	admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "a", "{propagationPolicy: Foreground}"), nil)
	eventually(t, "a goes without the dependent of both", func() bool { return gone(t, "configmaps", ns, "a") })
	eventually(t, "the dead owner is taken off", func() bool {
		return len(get(t, "configmaps", ns, "of-both").GetOwnerReferences()) == 1
	})

	never := b.DeepCopy()
	never.SetName("never")
	never.SetUID("00000000-0000-0000-0000-000000000000")
	ownedBy(t, ns, "of-never", "", false, never)
	eventually(t, "the dependent of nobody goes", func() bool { return gone(t, "configmaps", ns, "of-never") })

	reborn := b.DeepCopy()
	reborn.SetUID("00000000-0000-0000-0000-000000000001")
	ownedBy(t, ns, "of-former", "", false, reborn)
	eventually(t, "the dependent of a former object of that name goes", func() bool { return gone(t, "configmaps", ns, "of-former") })

	one := create(t, "configmaps", ns, "metadata: {name: one}")
	two := ownedBy(t, ns, "two", "", true, one)
	three := ownedBy(t, ns, "three", "", true, two)
	patch(t, "configmaps", ns, "one", fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"three","uid":"%s","blockOwnerDeletion":true}]}}`, three.GetUID()))
	admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "one", "{propagationPolicy: Foreground}"), nil)
	eventually(t, "the circle goes", func() bool {
		return gone(t, "configmaps", ns, "one") && gone(t, "configmaps", ns, "two") && gone(t, "configmaps", ns, "three")
	})
	if gone(t, "configmaps", ns, "b") {
		t.Error("an owner that is not deleted went")
	}
}

// What owner references may be (API reference, "OwnerReference").
func TestOwnerReferencesAreChecked(t *testing.T) {
	ns := namespace(t)
	ref := func(more string) string {
		return "metadata: {name: x, ownerReferences: [" + more + "]}"
	}
	for _, c := range []struct{ refs, message string }{
		{"{apiVersion: v1, kind: ConfigMap, name: a}", "metadata.ownerReferences[0].uid: Required value: must not be empty"},
		{"{apiVersion: v1, kind: ConfigMap, uid: u}", "metadata.ownerReferences[0].name: Required value: must not be empty"},
		{"{apiVersion: v1, name: a, uid: u}", "metadata.ownerReferences[0].kind: Required value: must not be empty"},
		{"{kind: ConfigMap, name: a, uid: u}", "metadata.ownerReferences[0].apiVersion: Required value: must not be empty"},
		{"{apiVersion: v1, kind: Event, name: a, uid: u}", "metadata.ownerReferences[0]: Invalid value: {\"apiVersion\":\"v1\",\"kind\":\"Event\",\"name\":\"a\",\"uid\":\"u\"}: /v1, Kind=Event is disallowed from being an owner"},
		{"{apiVersion: v1, kind: ConfigMap, name: a, uid: u, controller: true}, {apiVersion: v1, kind: ConfigMap, name: b, uid: v, controller: true}", "Only one reference can have Controller set to true."},
	} {
		admin.do(t, call{method: "POST", path: at("configmaps", ns), body: ref(c.refs)}).refused(t, 422, metav1.StatusReasonInvalid, c.message)
	}
	owner := create(t, "configmaps", ns, "metadata: {name: owner}")
	twice := fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, name: owner, uid: %[1]s}, {apiVersion: v1, kind: ConfigMap, name: owner, uid: %[1]s}", owner.GetUID())
	a := admin.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", ns), body: ref(twice)}, nil)
	if refs := a.object(t).GetOwnerReferences(); len(refs) != 1 || len(a.header.Values("Warning")) != 1 {
		t.Errorf("a repeated reference leaves %v with warnings %q", refs, a.header.Values("Warning"))
	}
}

// "Use Cascading Deletion in a Cluster": a deployment takes its sets and pods
// along, or leaves them to be adopted by the next of its kind.
func TestDeploymentsAndTheirPods(t *testing.T) {
	ns := namespace(t)
	names := func(resource string) []string {
		all, _ := list(t, resource, ns, "labelSelector=app%3Dd")
		return all
	}
	create(t, "deployments", ns, deploymentOf("d", 2))
	eventually(t, "pods are made", func() bool { return len(names("pods")) == 2 })
	set := names("replicasets")[0]
	admin.want(t, http.StatusOK, deleteCall("deployments", ns, "d", "{propagationPolicy: Orphan}"), nil)
	eventually(t, "the deployment goes alone", func() bool {
		return gone(t, "deployments", ns, "d") && len(get(t, "replicasets", ns, set).GetOwnerReferences()) == 0
	})
	again := create(t, "deployments", ns, deploymentOf("d", 2))
	eventually(t, "the set is adopted", func() bool {
		refs := get(t, "replicasets", ns, set).GetOwnerReferences()
		return len(refs) == 1 && refs[0].UID == again.GetUID() && refs[0].Controller != nil && *refs[0].Controller
	})
	if pods, sets := names("pods"), names("replicasets"); len(pods) != 2 || len(sets) != 1 {
		t.Errorf("after the adoption there are %v and %v", sets, pods)
	}
	admin.want(t, http.StatusOK, deleteCall("deployments", ns, "d", "{propagationPolicy: Foreground}"), nil)
	eventually(t, "all go", func() bool {
		if gone(t, "deployments", ns, "d") && len(names("replicasets"))+len(names("pods")) > 0 {
			t.Fatal("the deployment went before what blocks it")
		}
		return gone(t, "deployments", ns, "d")
	})
}
