package conformance

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A set's history as a client sees it: numbers, names, labels and data of
// ControllerRevisions, their order after going back, and how many stay
// (documentation: "StatefulSets", "Revision history"). No pod is needed for it.
func TestStatefulSetRevisions(t *testing.T) {
	ns := namespace(t)
	create(t, "statefulsets", ns, `{"apiVersion": "apps/v1", "kind": "StatefulSet",
		"metadata": {"name": "web", "annotations": {"kubernetes.io/change-cause": "the first"}},
		"spec": {"replicas": 0, "revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": "web"}},
			"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}}`)
	revisions := func() []appsv1.ControllerRevision {
		t.Helper()
		list, err := kube.AppsV1().ControllerRevisions(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(list.Items, func(a, b appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
		return list.Items
	}
	// last awaits that the set's history consists of these numbers and that the
	// last one is the set's.
	last := func(numbers ...int64) appsv1.ControllerRevision {
		t.Helper()
		var got []appsv1.ControllerRevision
		eventually(t, "the history is complete", func() bool {
			got = revisions()
			set, err := kube.AppsV1().StatefulSets(ns).Get(t.Context(), "web", metav1.GetOptions{})
			return err == nil && slices.EqualFunc(got, numbers, func(r appsv1.ControllerRevision, n int64) bool { return r.Revision == n }) &&
				set.Status.ObservedGeneration == set.Generation && set.Status.UpdateRevision == got[len(got)-1].Name && set.Status.CurrentRevision == set.Status.UpdateRevision
		})
		return got[len(got)-1]
	}
	image := func(to string) {
		t.Helper()
		c := call{method: "PATCH", path: at("statefulsets", ns, "web"), contentType: strategicPatch, body: `{"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "` + to + `"}]}}}}`}
		admin.want(t, http.StatusOK, c, nil)
	}
	first := last(1)
	hash, named := strings.CutPrefix(first.Name, "web-")
	ref := metav1.GetControllerOf(&first)
	if !named || first.Labels["controller.kubernetes.io/hash"] != hash || first.Annotations["kubernetes.io/change-cause"] != "the first" || ref == nil || ref.Kind != "StatefulSet" || ref.Name != "web" {
		t.Errorf("the first revision is %+v", first.ObjectMeta)
	}
	if data := string(first.Data.Raw); !strings.HasPrefix(data, `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}}`) || !strings.Contains(data, `"image":"a:1"`) {
		t.Errorf("its data are %s", data)
	}
	image("a:2")
	last(1, 2)
	// Its data, as a patch, put the template back; the revision is the last one then.
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("statefulsets", ns, "web"), contentType: strategicPatch, body: string(first.Data.Raw)}, nil)
	if back := last(2, 3); back.UID != first.UID {
		t.Errorf("the revision gone back to is %s, not %s", back.Name, first.Name)
	}
	image("a:4")
	last(3, 4)
	// Its data cannot be changed.
	changed := revisions()[1]
	changed.Data.Raw = []byte(`{"spec":{}}`)
	admin.do(t, call{method: "PUT", path: at("controllerrevisions", ns, changed.Name), body: encode(t, changed)}).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "field is immutable")

	// Orphans stay, and belong to the next set of the name.
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("statefulsets", ns, "web") + "?propagationPolicy=Orphan"}, nil)
	eventually(t, "the set is gone", func() bool { return gone(t, "statefulsets", ns, "web") })
	create(t, "statefulsets", ns, `{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
		"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}},
			"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:4"}]}}}}`)
	if now := last(3, 4); !metav1.IsControlledBy(&now, get(t, "statefulsets", ns, "web")) {
		t.Errorf("it belongs to %+v", now.OwnerReferences)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: at("statefulsets", ns, "web")}, nil)
	eventually(t, "the history is gone", func() bool { return len(revisions()) == 0 })
}
