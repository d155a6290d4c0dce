package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/horizontalpodautoscaler"
)

// meter is what the pods of a world use, and what servers of metrics say.
type meter struct {
	w       *world
	load    int64             // thousandths of a CPU, shared by all running pods
	answers map[string]string // by path and query
	asked   []string
}

func (m *meter) Pods(_ context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error) {
	var out []metricsv1beta1.PodMetrics
	for _, p := range all[*corev1.Pod](m.w, namespace) {
		if p.Status.Phase == corev1.PodRunning && selector.Matches(labels.Set(p.Labels)) {
			out = append(out, metricsv1beta1.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Timestamp: m.w.stamp(), Window: metav1.Duration{Duration: 10 * time.Second}})
		}
	}
	for i := range out {
		out[i].Containers = []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(m.load/int64(len(out)), resource.DecimalSI)}}}
	}
	return out, nil
}

func (m *meter) Serves(gv schema.GroupVersion) bool {
	for path := range m.answers {
		if strings.HasPrefix(path, gv.String()+"/") {
			return true
		}
	}
	return false
}

func (m *meter) Get(_ context.Context, gv schema.GroupVersion, namespace string, path []string, query url.Values) ([]byte, error) {
	at := gv.String() + "/" + namespace + "/" + strings.Join(path, "/")
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	m.asked = append(m.asked, at)
	answer, ok := m.answers[at]
	if !ok {
		return nil, apierrors.NewGenericServerResponse(404, "get", gv.WithResource(path[0]).GroupResource(), "", "", 0, true)
	}
	return []byte(answer), nil
}

// autoscaled is a world with a deployment "web", whose pods ask for a CPU each,
// and its autoscaler, whose pods are to use half of that.
func autoscaled(w *world, change func(*autoscalingv2.HorizontalPodAutoscaler)) *meter {
	m := &meter{w: w, answers: map[string]string{}}
	w.run(func(c client.Interface, r events.Recorder) controller.Loop {
		return horizontalpodautoscaler.New(c, r, m, nil)
	})
	d := aDeployment("web", 2)
	d.Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	create(w, d)
	w.live()
	create(w, anAutoscaler("web", change))
	return m
}

func anAutoscaler(name string, change func(*autoscalingv2.HorizontalPodAutoscaler)) *autoscalingv2.HorizontalPodAutoscaler {
	h := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    ptr.To[int32](1), MaxReplicas: 10,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)},
			}}},
		},
	}
	if change != nil {
		change(h)
	}
	return h
}

func (w *world) autoscaler(name string) *autoscalingv2.HorizontalPodAutoscaler {
	return get[*autoscalingv2.HorizontalPodAutoscaler](w, "default", name)
}

// elapse lets time pass while agents work.
func (w *world) elapse(d time.Duration) {
	w.Helper()
	for ; d > 0; d -= 15 * time.Second {
		w.pass(15 * time.Second)
		w.live()
	}
}

func (w *world) wantSize(want int32) {
	w.Helper()
	if got := *w.deployment("web").Spec.Replicas; got != want {
		w.Errorf("%d replicas, want %d; autoscaler %+v", got, want, w.autoscaler("web").Status)
	}
}

func (w *world) wantAutoscaler(kind autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string) {
	w.Helper()
	for _, c := range w.autoscaler("web").Status.Conditions {
		if c.Type == kind {
			if c.Status != status || c.Reason != reason || !strings.Contains(c.Message, message) {
				w.Errorf("%s is %s %s: %q; want %s %s: %q", kind, c.Status, c.Reason, c.Message, status, reason, message)
			}
			return
		}
	}
	w.Errorf("there is no condition %s", kind)
}

// Documentation: "HorizontalPodAutoscaler Walkthrough".
func TestAutoscalerFollowsLoad(t *testing.T) {
	w := workloads(t)
	m := autoscaled(w, nil)
	m.load = 1000 // half of what two pods ask for
	w.elapse(time.Minute)
	w.wantSize(2)
	w.rests()
	m.load = 3000
	w.elapse(2 * time.Minute)
	w.wantSize(6)
	w.said("Normal SuccessfulRescale New size: 4; reason: cpu resource utilization (percentage of request) above target",
		"Normal SuccessfulRescale New size: 6; reason: cpu resource utilization (percentage of request) above target")
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "cpu resource utilization")
	w.wantAutoscaler(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "")
	if s := w.autoscaler("web").Status; s.CurrentReplicas != 6 || s.DesiredReplicas != 6 || *s.CurrentMetrics[0].Resource.Current.AverageUtilization != 50 || s.LastScaleTime == nil || *s.ObservedGeneration != 1 {
		t.Errorf("status %+v", s)
	}
	w.rests()
	m.load = 400
	w.elapse(4 * time.Minute)
	w.wantSize(6) // the highest recommendation of five minutes
	w.wantAutoscaler(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ScaleDownStabilized", "")
	w.elapse(2 * time.Minute)
	w.wantSize(1)
	w.said("Normal SuccessfulRescale New size: 1; reason: All metrics below target")
	w.rests()
}

// An autoscaler whose bounds change is looked at at once.
func TestAutoscalerBounds(t *testing.T) {
	w := workloads(t)
	m := autoscaled(w, nil)
	m.load = 1000
	w.live()
	update(w, w.autoscaler("web"), "", func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.MinReplicas = ptr.To[int32](4) })
	w.live()
	w.wantSize(4)
	w.said("New size: 4; reason: Current number of replicas below Spec.MinReplicas")
	update(w, w.autoscaler("web"), "", func(h *autoscalingv2.HorizontalPodAutoscaler) {
		h.Spec.MinReplicas, h.Spec.MaxReplicas = ptr.To[int32](1), 3
	})
	w.live()
	w.wantSize(3)
	w.said("New size: 3; reason: Current number of replicas above Spec.MaxReplicas")
}

// Somebody who scales to zero switches the autoscaler off.
func TestAutoscalerDisabled(t *testing.T) {
	w := workloads(t)
	m := autoscaled(w, nil)
	m.load = 1000
	w.live()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](0) })
	w.elapse(time.Minute)
	w.wantSize(0)
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "")
	w.rests()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](2) })
	w.elapse(time.Minute)
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "")
}

func TestAutoscalerWithoutScale(t *testing.T) {
	w := workloads(t)
	autoscaled(w, nil)
	for _, c := range []struct{ version, kind, name, want string }{
		{"apps/v1", "Deployment", "gone", `deployments.apps "gone" not found`},
		{"batch/v1", "Job", "web", "the server could not find the requested resource"},
		{"example.com/v1", "Thing", "web", `no matches for kind "Thing" in group "example.com"`},
	} {
		update(w, w.autoscaler("web"), "", func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: c.version, Kind: c.kind, Name: c.name}
		})
		w.live()
		w.wantAutoscaler(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", c.want)
		w.said("Warning FailedGetScale " + c.want)
		w.rests()
	}
}

func TestAutoscalersOfTheSamePods(t *testing.T) {
	w := workloads(t)
	m := autoscaled(w, nil)
	m.load = 1000
	w.live()
	create(w, anAutoscaler("other", nil))
	w.elapse(time.Minute)
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionFalse, "AmbiguousSelector", "pods by selector app=web are controlled by more than one HPA (e.g. [default/other default/web])")
	w.said("Warning AmbiguousSelector")
	remove(w, w.autoscaler("other"), metav1.DeleteOptions{})
	w.elapse(time.Minute)
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "")
	w.rests()
}

func (w *world) setMetric(spec autoscalingv2.MetricSpec) {
	w.Helper()
	update(w, w.autoscaler("web"), "", func(h *autoscalingv2.HorizontalPodAutoscaler) {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{spec}
	})
	w.live()
}

// Without a server for them, metrics of other kinds cannot be had.
func TestAutoscalerWithoutServers(t *testing.T) {
	w := workloads(t)
	autoscaled(w, nil)
	one := ptr.To(resource.MustParse("1"))
	id := autoscalingv2.MetricIdentifier{Name: "qps"}
	w.setMetric(autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: id, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: one}}})
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetPodsMetric", "unable to get metric qps: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered")
	w.setMetric(autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front"},
		Metric:          id, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: one},
	}})
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetObjectMetric", "unable to get metric qps on Ingress default/front: unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered")
	w.setMetric(autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: id, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: one}}})
	w.wantAutoscaler(autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetExternalMetric", "unable to fetch metrics from external metrics API: the server could not find the requested resource (get qps.external.metrics.k8s.io)")
	w.said("Warning FailedGetPodsMetric", "Warning FailedGetObjectMetric", "Warning FailedGetExternalMetric", "Warning FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: failed to get pods metric value: unable to get metric qps")
	w.rests()
}

// The APIs of custom and external metrics (k8s.io/metrics) as they are asked.
func TestAutoscalerAsksServers(t *testing.T) {
	w := workloads(t)
	m := autoscaled(w, nil)
	var values []map[string]any
	for _, p := range w.pods() {
		values = append(values, map[string]any{"describedObject": map[string]any{"name": p.Name}, "value": "3", "windowSeconds": 30})
	}
	list := func(items ...map[string]any) string {
		data, err := json.Marshal(map[string]any{"items": items})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	green := &metav1.LabelSelector{MatchLabels: map[string]string{"color": "green"}}
	target := func(q string) autoscalingv2.MetricTarget {
		return autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr.To(resource.MustParse(q))}
	}
	object := func(version, kind string) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
			DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: version, Kind: kind, Name: "front"},
			Metric:          autoscalingv2.MetricIdentifier{Name: "qps"}, Target: target("1"),
		}}
	}
	for i, c := range []struct {
		at, answer string
		spec       autoscalingv2.MetricSpec
		want       int32
	}{
		{
			"custom.metrics.k8s.io/v1beta1/default/pods/*/qps?labelSelector=app%3Dweb", list(values...),
			autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "qps"},
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("2"))},
			}}, 3,
		},
		{"custom.metrics.k8s.io/v1beta2/default/ingresses.networking.k8s.io/front/qps", list(map[string]any{"value": "1200m"}), object("networking.k8s.io/v1", "Ingress"), 4},
		{"custom.metrics.k8s.io/v1beta2/default/services/front/qps", list(map[string]any{"value": "1200m"}), object("v1", "Service"), 5},
		{"custom.metrics.k8s.io/v1beta2/default/metrics/qps", list(map[string]any{"value": "1200m"}), object("v1", "Namespace"), 6},
		{
			"external.metrics.k8s.io/v1beta1/default/queue?labelSelector=color%3Dgreen", list(map[string]any{"value": "3"}, map[string]any{"value": "4"}),
			autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "queue", Selector: green}, Target: target("6")}}, 7,
		},
	} {
		m.answers[c.at] = c.answer
		w.setMetric(c.spec)
		if len(m.asked) == 0 || m.asked[len(m.asked)-1] != c.at {
			t.Errorf("%d: asked for %v, want %s", i, m.asked, c.at)
		}
		w.wantSize(c.want)
	}
}

// Whatever write is the last of a process, the next one goes on, and nothing is
// scaled beyond what is asked for.
func TestAutoscalerCrashes(t *testing.T) {
	for at := range 3 {
		for _, after := range []bool{false, true} {
			for _, load := range []int64{400, 3100} {
				t.Run(fmt.Sprintf("write %d, after it %v, load %d", at, after, load), func(t *testing.T) {
					w := workloads(t)
					m := autoscaled(w, nil)
					loop := w.loops[len(w.loops)-1]
					m.load = load
					loop.client.dieAt(at, after)
					w.elapse(time.Minute)
					loop.client.heal()
					w.elapse(6 * time.Minute)
					w.wantSize(int32((load + 499) / 500))
					w.rests()
				})
			}
		}
	}
}
