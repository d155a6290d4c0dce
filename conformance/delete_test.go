package conformance

import (
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func deleteCall(resource, ns, name, options string) call {
	return call{method: "DELETE", path: at(resource, ns, name), body: options}
}

// API concepts, "Resource deletion": an object with finalizers stays, marked,
// until the last one is taken away.
func TestFinalizersHoldAnObject(t *testing.T) {
	ns := namespace(t)
	u := create(t, "configmaps", ns, "metadata: {name: a, finalizers: [test.dev/one, test.dev/two]}")
	w := watch(t, at("configmaps", ns)+"?fieldSelector=metadata.name%3Da&resourceVersion="+u.GetResourceVersion())
	marked := admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "a", ""), nil).object(t)
	if marked.GetDeletionTimestamp() == nil || marked.GetDeletionGracePeriodSeconds() == nil || *marked.GetDeletionGracePeriodSeconds() != 0 {
		t.Errorf("marked object is %v", marked)
	}
	again := admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "a", ""), nil).object(t)
	if !again.GetDeletionTimestamp().Equal(marked.GetDeletionTimestamp()) {
		t.Errorf("deleted again: %s, then %s", marked.GetDeletionTimestamp(), again.GetDeletionTimestamp())
	}
	admin.do(t, call{method: "PATCH", path: at("configmaps", ns, "a"), contentType: jsonPatch, body: `[{"op":"add","path":"/metadata/finalizers/-","value":"test.dev/three"}]`}).
		refused(t, 422, metav1.StatusReasonInvalid, "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers")
	patch(t, "configmaps", ns, "a", `{"metadata":{"deletionTimestamp":null},"data":{"still":"changes"}}`)
	if kept := get(t, "configmaps", ns, "a"); kept.GetDeletionTimestamp() == nil {
		t.Error("a patch revived the object")
	}
	patch(t, "configmaps", ns, "a", `{"metadata":{"finalizers":["test.dev/two"]}}`)
	patch(t, "configmaps", ns, "a", `{"metadata":{"finalizers":null}}`)
	if !gone(t, "configmaps", ns, "a") {
		t.Error("still there without finalizers")
	}
	for i, want := range []string{"MODIFIED", "MODIFIED", "MODIFIED", "DELETED"} {
		if e := w.next(t); e.Type != want {
			t.Errorf("event %d is %s, want %s: %s", i, e.Type, want, e.Object)
		}
	}
}

// Pod lifecycle, "Termination of Pods": the period counts from the request, can
// be shortened and never lengthened, and zero removes at once.
func TestGracefulDeletionOfPods(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	create(t, "pods", ns, podOn("a", node))
	period := func(options string) (time.Duration, int64) {
		t.Helper()
		var p corev1.Pod
		before := time.Now()
		admin.want(t, http.StatusOK, deleteCall("pods", ns, "a", options), &p)
		if p.DeletionTimestamp == nil || p.DeletionGracePeriodSeconds == nil {
			t.Fatalf("deleted pod has %v and %v", p.DeletionTimestamp, p.DeletionGracePeriodSeconds)
		}
		return p.DeletionTimestamp.Sub(before), *p.DeletionGracePeriodSeconds
	}
	check := func(what, options string, want int64) {
		t.Helper()
		ahead, seconds := period(options)
		if seconds != want || ahead > time.Duration(want)*time.Second {
			t.Errorf("%s: %d seconds, %s ahead; want %d", what, seconds, ahead, want)
		}
	}
	check("the pod's own period", "", 30)
	check("shorter", `{gracePeriodSeconds: 10}`, 10)
	check("longer", `{gracePeriodSeconds: 20}`, 10)
	if p := get(t, "pods", ns, "a"); p.GetGeneration() != 2 {
		t.Errorf("generation of a pod that was deleted once is %d", p.GetGeneration())
	}
	// "Negative values will be treated as the value 1s on the delete path."
	check("negative", `{gracePeriodSeconds: -1}`, 1)
	admin.want(t, http.StatusOK, deleteCall("pods", ns, "a", `{gracePeriodSeconds: 0}`), nil)
	if !gone(t, "pods", ns, "a") {
		t.Error("there after a deletion without grace")
	}
	create(t, "pods", ns, podOf("unbound"))
	admin.want(t, http.StatusOK, deleteCall("pods", ns, "unbound", ""), nil)
	if !gone(t, "pods", ns, "unbound") {
		t.Error("a pod without a node was not removed at once")
	}
	admin.do(t, deleteCall("pods", ns, "unbound", "")).refused(t, 404, metav1.StatusReasonNotFound, `pods "unbound" not found`)
}

// API reference, "DeleteOptions": preconditions are checked against the object
// as it is; the query may say what the body does not.
func TestPreconditionsOfDeletes(t *testing.T) {
	ns := namespace(t)
	u := create(t, "configmaps", ns, "metadata: {name: a}")
	admin.do(t, deleteCall("configmaps", ns, "a", "{preconditions: {uid: other}}")).
		refused(t, 409, metav1.StatusReasonConflict, "the UID in the precondition (other) does not match the UID in record ("+string(u.GetUID())+")")
	admin.do(t, deleteCall("configmaps", ns, "a", "{preconditions: {resourceVersion: '1'}}")).
		refused(t, 409, metav1.StatusReasonConflict, "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ("+u.GetResourceVersion()+")")
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(u.GetUID()), ResourceVersion: ptr.To(u.GetResourceVersion())}}
	if err := kube.CoreV1().ConfigMaps(ns).Delete(t.Context(), "a", options); err != nil {
		t.Errorf("fitting preconditions: %v", err)
	}
	for _, bad := range []struct{ options, message string }{
		{"{propagationPolicy: Sideways}", `propagationPolicy: Unsupported value: "Sideways"`},
		{"{propagationPolicy: Orphan, orphanDependents: true}", "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set"},
		{"{dryRun: [Some]}", `dryRun: Unsupported value: ["Some"]`},
	} {
		admin.do(t, deleteCall("configmaps", ns, "a", bad.options)).refused(t, 422, metav1.StatusReasonInvalid, bad.message)
	}
}

// A delete of what is not a graceful kind answers with a Status that names it.
func TestDeleteAnswersWithStatus(t *testing.T) {
	ns := namespace(t)
	u := create(t, "configmaps", ns, "metadata: {name: a}")
	s := admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "a", ""), nil).status(t)
	if s.Status != metav1.StatusSuccess || s.Details == nil || s.Details.Name != "a" || s.Details.Kind != "configmaps" || s.Details.UID != u.GetUID() || s.Code != 0 {
		t.Errorf("status is %+v %+v", s, s.Details)
	}
	create(t, "serviceaccounts", ns, "metadata: {name: a}")
	if o := admin.want(t, http.StatusOK, deleteCall("serviceaccounts", ns, "a", ""), nil).object(t); o.GetKind() != "ServiceAccount" {
		t.Errorf("deleting a service account gave a %s", o.GetKind())
	}
}

// API concepts, "deletecollection": selectors choose, and those chosen are
// deleted by the same rules as one by one.
func TestDeleteCollection(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		label := "no"
		if name < "c" {
			label = "yes"
		}
		create(t, "configmaps", ns, "metadata: {name: "+name+", labels: {pick: '"+label+"'}}")
	}
	create(t, "configmaps", ns, "metadata: {name: held, labels: {pick: 'yes'}, finalizers: [test.dev/f]}")
	create(t, "pods", ns, podOn("p", node))
	names := func(list *corev1.ConfigMapList) (out []string) {
		for _, c := range list.Items {
			if c.Name != "kube-root-ca.crt" {
				out = append(out, c.Name)
			}
		}
		return out
	}
	var deleted, left corev1.ConfigMapList
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("configmaps", ns) + "?labelSelector=pick%3Dyes&dryRun=All"}, &deleted)
	if got := names(&deleted); !slices.Equal(got, []string{"a", "b", "held"}) {
		t.Errorf("dry run answers with %v", got)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("configmaps", ns) + "?labelSelector=pick%3Dyes"}, &deleted)
	if got := names(&deleted); !slices.Equal(got, []string{"a", "b", "held"}) {
		t.Errorf("answers with %v", got)
	}
	admin.want(t, http.StatusOK, call{path: at("configmaps", ns)}, &left)
	if got := names(&left); !slices.Equal(got, []string{"c", "d", "held"}) {
		t.Errorf("left are %v", got)
	}
	held := get(t, "configmaps", ns, "held")
	if held.GetDeletionTimestamp() == nil {
		t.Error("what has finalizers is not marked")
	}
	patch(t, "configmaps", ns, "held", `{"metadata":{"finalizers":null}}`)
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("pods", ns), body: "{gracePeriodSeconds: 7}"}, nil)
	if p := get(t, "pods", ns, "p"); p.GetDeletionGracePeriodSeconds() == nil || *p.GetDeletionGracePeriodSeconds() != 7 {
		t.Errorf("pod of the collection has %v", p.GetDeletionGracePeriodSeconds())
	}
	err := kube.CoreV1().ConfigMaps(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=c"})
	if err != nil || !gone(t, "configmaps", ns, "c") || gone(t, "configmaps", ns, "d") {
		t.Errorf("by field selector: %v", err)
	}
	admin.do(t, call{method: "DELETE", path: at("configmaps", "")}).refused(t, 405, metav1.StatusReasonMethodNotAllowed, "")
	admin.do(t, call{method: "DELETE", path: at("namespaces", "")}).refused(t, 405, metav1.StatusReasonMethodNotAllowed, "")
}

// Namespaces, "Deleting a namespace": all that is in it goes, and nothing new
// comes in meanwhile.
func TestDeletedNamespaceTakesEverythingAlong(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: free}")
	create(t, "configmaps", ns, "metadata: {name: held, finalizers: [test.dev/f]}")
	create(t, "secrets", ns, "metadata: {name: s}")
	create(t, "services", ns, "metadata: {name: s}\nspec: {ports: [{port: 80}]}")
	create(t, "pods", ns, podOf("p"))
	create(t, "deployments", ns, deploymentOf("d", 1))
	create(t, "roles", ns, "metadata: {name: r}")
	answer := admin.want(t, http.StatusOK, deleteCall("namespaces", "", ns, ""), nil).object(t)
	if answer.GetDeletionTimestamp() == nil || field(answer, "status", "phase") != "Terminating" || field(answer, "spec", "finalizers") != `["kubernetes"]` {
		t.Errorf("deleted namespace is %v", answer)
	}
	s := admin.do(t, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: late}"}).
		refused(t, 403, metav1.StatusReasonForbidden, `configmaps "late" is forbidden: unable to create new content in namespace `+ns+" because it is being terminated")
	if s.Details == nil || len(s.Details.Causes) != 1 || s.Details.Causes[0].Type != corev1.NamespaceTerminatingCause {
		t.Errorf("details are %+v", s.Details)
	}
	eventually(t, "the namespace says what holds it", func() bool {
		n, err := kube.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceFinalizersRemaining && c.Status == corev1.ConditionTrue && c.Reason == "SomeFinalizersRemain"
		})
	})
	if gone(t, "configmaps", ns, "held") || !gone(t, "configmaps", ns, "free") {
		t.Error("the held object went, or the free one did not")
	}
	patch(t, "configmaps", ns, "held", `{"metadata":{"finalizers":null}}`)
	eventually(t, "the namespace goes", func() bool { return gone(t, "namespaces", "", ns) })
	for _, resource := range []string{"secrets", "services", "pods", "deployments", "replicasets", "roles", "configmaps"} {
		var list metav1.PartialObjectMetadataList
		admin.want(t, http.StatusOK, call{path: at(resource, ns)}, &list)
		if len(list.Items) != 0 {
			t.Errorf("%d %s outlive their namespace", len(list.Items), resource)
		}
	}
	_, err := kube.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("creating in a namespace that is not there: %v", err)
	}
	for _, forever := range []string{"default", "kube-system", "kube-public"} {
		admin.do(t, deleteCall("namespaces", "", forever, "")).refused(t, 403, metav1.StatusReasonForbidden, "this namespace may not be deleted")
	}
}

// DeleteOptions, ignoreStoreReadErrorWithClusterBreakingPotential: nothing that
// can be read is deleted by it.
func TestUnsafeDeletion(t *testing.T) {
	ns := namespace(t)
	const option = `{ignoreStoreReadErrorWithClusterBreakingPotential: true}`
	create(t, "secrets", ns, "metadata: {name: a}")
	create(t, "pods", ns, podOf("p"))
	for resource, name := range map[string]string{"secrets": "a", "pods": "p"} {
		before := get(t, resource, ns, name)
		for _, path := range []string{at(resource, ns, name), at(resource, ns, name) + "?dryRun=All"} {
			admin.do(t, call{method: "DELETE", path: path, body: option}).refused(t, 409, metav1.StatusReasonConflict,
				"Key: /registry/"+resource+"/"+ns+"/"+name+", ResourceVersion: 0, AdditionalErrorMsg: unsafe deletion is not allowed because the object is decodable from storage")
		}
		admin.do(t, call{method: "DELETE", path: at(resource, ns, name) + "?ignoreStoreReadErrorWithClusterBreakingPotential=true"}).refused(t, 409, metav1.StatusReasonConflict, "unsafe deletion is not allowed")
		admin.do(t, call{method: "DELETE", path: at(resource, ns), body: option}).refused(t, 422, metav1.StatusReasonInvalid, "is not allowed with DELETECOLLECTION, try again after removing the option")
		if after := get(t, resource, ns, name); after.GetResourceVersion() != before.GetResourceVersion() {
			t.Errorf("%s %s was written to: %v", resource, name, after.Object)
		}
	}
	for _, resource := range []string{"namespaces", "clusterroles"} {
		admin.do(t, deleteCall(resource, "", ns, option)).refused(t, 500, metav1.StatusReasonInternalError, "no unsafe deleter provided, can not honor ignoreStoreReadErrorWithClusterBreakingPotential")
	}
	admin.do(t, deleteCall("secrets", ns, "none", option)).refused(t, 404, metav1.StatusReasonNotFound, `secrets "none" not found`)
	admin.do(t, deleteCall("secrets", ns, "a", `{ignoreStoreReadErrorWithClusterBreakingPotential: true, propagationPolicy: Orphan}`)).
		refused(t, 422, metav1.StatusReasonInvalid, "cannot be set together with .propagationPolicy")
	grant(t, ns, "roles", ns, `[{apiGroups: [""], resources: [secrets], verbs: [delete]}]`)
	ordinary := impersonating(t, ns)
	ordinary.do(t, deleteCall("secrets", ns, "a", option)).refused(t, 403, metav1.StatusReasonForbidden, `secrets "a" is forbidden: not permitted to do "unsafe-delete-ignore-read-errors", reason: `)
	get(t, "secrets", ns, "a")
}
