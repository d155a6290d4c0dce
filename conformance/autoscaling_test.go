package conformance

import (
	"encoding/json"
	"net/http"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// nextOf waits for the next event of an autoscaler that meets a condition, and gives
// its object: the loop writes conditions in between.
func nextOf[T any](t *testing.T, w *watching, kind string, met func(T) bool) T {
	t.Helper()
	for {
		e := w.next(t)
		if e.Type != kind && e.Type != "MODIFIED" {
			t.Fatalf("there comes %s, waiting for %s", e.Type, kind)
		}
		var obj T
		if err := json.Unmarshal(e.Object, &obj); err != nil {
			t.Fatal(err)
		}
		if e.Type == kind && met(obj) {
			return obj
		}
	}
}

// "Horizontal Pod Autoscaling", API object: both versions are the same object. What
// v1 has no fields for is kept in annotations of it, and comes back when it is
// written by v1; watches of either version tell of what the other wrote.
func TestAutoscalerHasTwoVersions(t *testing.T) {
	ns := namespace(t)
	path := func(version string, below ...string) string {
		return under("autoscaling/"+version, "horizontalpodautoscalers", ns, below...)
	}
	v1Watch, v2Watch := watch(t, path("v1")), watch(t, path("v2"))
	var old autoscalingv1.HorizontalPodAutoscaler
	admin.want(t, http.StatusCreated, call{method: "POST", path: path("v1"), body: `{metadata: {name: h, labels: {a: b}},
spec: {minReplicas: 2, maxReplicas: 3, targetCPUUtilizationPercentage: 70, scaleTargetRef: {apiVersion: example.com/v1, kind: Widget, name: none}}}`}, &old)
	v2 := func(c call) (h autoscalingv2.HorizontalPodAutoscaler) {
		t.Helper()
		c.path = path("v2", "h")
		admin.want(t, http.StatusOK, c, &h)
		return h
	}
	hpa := v2(call{})
	if m := hpa.Spec.Metrics; hpa.UID != old.UID || hpa.Labels["a"] != "b" || *hpa.Spec.MinReplicas != 2 || hpa.Spec.MaxReplicas != 3 || len(hpa.Annotations) != 0 ||
		len(m) != 1 || m[0].Resource.Name != "cpu" || *m[0].Resource.Target.AverageUtilization != 70 || hpa.Spec.ScaleTargetRef.Kind != "Widget" {
		t.Errorf("in v2 it is %+v", hpa)
	}
	v1Watch.expect(t, "ADDED h")
	all := func(autoscalingv2.HorizontalPodAutoscaler) bool { return true }
	if h := nextOf(t, v2Watch, "ADDED", all); h.UID != old.UID || h.APIVersion != "autoscaling/v2" || len(h.Spec.Metrics) != 1 {
		t.Errorf("a watch of v2 tells of %+v", h)
	}

	// What only v2 can say. The metric that v1 has a field for comes back last.
	spec := v2(call{method: "PATCH", contentType: mergePatch, body: `{"spec":{"maxReplicas":5,
"metrics":[{"type":"Resource","resource":{"name":"memory","target":{"type":"AverageValue","averageValue":"1Gi"}}},{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":60}}}],
"behavior":{"scaleDown":{"stabilizationWindowSeconds":7}}}}`}).Spec
	five := func(h autoscalingv1.HorizontalPodAutoscaler) bool { return h.Spec.MaxReplicas == 5 }
	seen := nextOf(t, v1Watch, "MODIFIED", five)
	if seen.UID != old.UID || seen.APIVersion != "autoscaling/v1" || *seen.Spec.TargetCPUUtilizationPercentage != 60 ||
		seen.Annotations["autoscaling.alpha.kubernetes.io/metrics"] == "" || seen.Annotations["autoscaling.alpha.kubernetes.io/behavior"] == "" {
		t.Errorf("a watch of v1 tells of %+v", seen)
	}

	// Out by v1 and back: nothing is lost, and what v1 changed has changed.
	back := sample{Unstructured: admin.want(t, http.StatusOK, call{path: path("v1", "h")}, nil).object(t), resource: "horizontalpodautoscalers", ns: ns}.write(t, func(u *unstructured.Unstructured) { u.Object["spec"].(map[string]any)["maxReplicas"] = int64(6) })
	if back.GetUID() != old.UID {
		t.Errorf("written back is %v", back)
	}
	hpa, spec.MaxReplicas = v2(call{}), 6
	if got, want := encode(t, hpa.Spec), encode(t, spec); got != want {
		t.Errorf("after a write by v1 it is\n%s, want\n%s", got, want)
	}
	for key := range hpa.Annotations {
		t.Errorf("in v2 it has the annotation %s", key)
	}
	six := nextOf(t, v2Watch, "MODIFIED", func(h autoscalingv2.HorizontalPodAutoscaler) bool { return h.Spec.MaxReplicas == 6 })
	if got, want := encode(t, six.Spec), encode(t, spec); got != want {
		t.Errorf("a watch of v2 tells of %s, want %s", got, want)
	}

	// Conditions, which the loop writes, are in an annotation of v1.
	eventually(t, "v1 has the conditions of v2", func() bool {
		var a autoscalingv1.HorizontalPodAutoscaler
		admin.want(t, http.StatusOK, call{path: path("v1", "h")}, &a)
		var conditions []autoscalingv1.HorizontalPodAutoscalerCondition
		err := json.Unmarshal([]byte(a.Annotations["autoscaling.alpha.kubernetes.io/conditions"]), &conditions)
		return err == nil && len(conditions) > 0 && conditions[0].Type == autoscalingv1.AbleToScale
	})
	var list autoscalingv1.HorizontalPodAutoscalerList
	admin.want(t, http.StatusOK, call{path: path("v1") + "?labelSelector=a%3Db"}, &list)
	if len(list.Items) != 1 || list.Items[0].Spec.MaxReplicas != 6 {
		t.Errorf("the list of v1 has %+v", list.Items)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path("v1", "h")}, nil)
	if h := nextOf(t, v2Watch, "DELETED", all); h.UID != old.UID || h.APIVersion != "autoscaling/v2" {
		t.Errorf("a watch of v2 tells of the deletion of %+v", h)
	}
	admin.want(t, http.StatusNotFound, call{path: path("v2", "h")}, nil)
}
