package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

const annotated = "autoscaling.alpha.kubernetes.io/"

// fullAutoscaler has every kind of metric, target and rule that is valid.
const fullAutoscaler = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: a, annotations: {mine: x}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 0
  maxReplicas: 9
  metrics:
  - {type: Object, object: {describedObject: {apiVersion: v1, kind: Service, name: s}, metric: {name: m, selector: {matchLabels: {a: b}}}, target: {type: Value, value: "2"}}}
  - {type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: m}, target: {type: AverageValue, averageValue: 500m}}}
  - {type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: "3"}}}
  - {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 1Gi}}}
  - {type: Resource, resource: {name: memory, target: {type: Utilization, averageUtilization: 70}}}
  - {type: ContainerResource, containerResource: {name: cpu, container: c, target: {type: Utilization, averageUtilization: 60}}}
  - {type: External, external: {metric: {name: m}, target: {type: Value, value: "4"}}}
  - {type: External, external: {metric: {name: m}, target: {type: AverageValue, averageValue: "5"}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 0, selectPolicy: Max, policies: [{type: Pods, value: 4, periodSeconds: 15}], tolerance: 50m}
    scaleDown: {selectPolicy: Disabled, policies: [{type: Percent, value: 100, periodSeconds: 15}]}
status:
  observedGeneration: 7
  lastScaleTime: "2026-01-01T00:00:00Z"
  currentReplicas: 3
  desiredReplicas: 4
  conditions: [{type: AbleToScale, status: "True", lastTransitionTime: "2026-01-01T00:00:00Z", reason: R, message: M}]
  currentMetrics:
  - {type: Resource, resource: {name: cpu, current: {averageUtilization: 45, averageValue: 90m}}}
  - {type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: m}, current: {value: "1", averageValue: 500m}}}
  - {type: Pods, pods: {metric: {name: m}, current: {averageValue: "3"}}}
  - {type: ContainerResource, containerResource: {name: cpu, container: c, current: {averageUtilization: 20, averageValue: 10m}}}
  - {type: External, external: {metric: {name: m}, current: {value: "4", averageValue: "2"}}}
`

func decodeYAML[T runtime.Object](t *testing.T, text string) T {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	obj, _, err := encodings()["json"].Decode(raw, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(T)
}

func autoscalerView() *api.Version {
	return &kinds.Registry().Must("autoscaling", "horizontalpodautoscalers").Versions[1]
}

// TestAutoscalerInV1 spells out the annotations, which programs read.
func TestAutoscalerInV1(t *testing.T) {
	hub := decodeYAML[*autoscalingv2.HorizontalPodAutoscaler](t, fullAutoscaler)
	view, err := autoscalerView().FromHub(hub)
	if err != nil {
		t.Fatal(err)
	}
	got := view.(*autoscalingv1.HorizontalPodAutoscaler)
	want := map[string]string{
		"mine": "x",
		annotated + "metrics": `[{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"m","targetValue":"2","selector":{"matchLabels":{"a":"b"}}}},` +
			`{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"m","targetValue":"0","averageValue":"500m"}},` +
			`{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"3"}},` +
			`{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}},` +
			`{"type":"Resource","resource":{"name":"memory","targetAverageUtilization":70}},` +
			`{"type":"ContainerResource","containerResource":{"name":"cpu","targetAverageUtilization":60,"container":"c"}},` +
			`{"type":"External","external":{"metricName":"m","targetValue":"4"}},` +
			`{"type":"External","external":{"metricName":"m","targetAverageValue":"5"}}]`,
		annotated + "current-metrics": `[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":45,"currentAverageValue":"90m"}},` +
			`{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"m","currentValue":"1","averageValue":"500m"}},` +
			`{"type":"Pods","pods":{"metricName":"m","currentAverageValue":"3"}},` +
			`{"type":"ContainerResource","containerResource":{"name":"cpu","currentAverageUtilization":20,"currentAverageValue":"10m","container":"c"}},` +
			`{"type":"External","external":{"metricName":"m","currentValue":"4","currentAverageValue":"2"}}]`,
		annotated + "conditions": `[{"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"M"}]`,
		annotated + "behavior": `{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":"50m"},` +
			`"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Disabled","Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}`,
	}
	if diff := cmp.Diff(want, got.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if n := ptr.Deref(got.Spec.TargetCPUUtilizationPercentage, 0); n != 50 {
		t.Errorf("target is %d %%, want 50", n)
	}
	if n := ptr.Deref(got.Status.CurrentCPUUtilizationPercentage, 0); n != 45 {
		t.Errorf("current is %d %%, want 45", n)
	}
}

// TestAutoscalerThroughV1 reads in v1 and writes what was read: nothing is lost.
func TestAutoscalerThroughV1(t *testing.T) {
	hub := decodeYAML[*autoscalingv2.HorizontalPodAutoscaler](t, fullAutoscaler)
	view, err := autoscalerView().FromHub(hub)
	if err != nil {
		t.Fatal(err)
	}
	back, err := autoscalerView().ToHub(view)
	if err != nil {
		t.Fatal(err)
	}
	back.GetObjectKind().SetGroupVersionKind(hub.GroupVersionKind())
	if diff := cmp.Diff(asJSON(t, hub), asJSON(t, back)); diff != "" {
		t.Errorf("changed on the way (-want +got):\n%s", diff)
	}
}

// TestAutoscalerFromV1 is about what a client of v1 may leave out or get wrong.
func TestAutoscalerFromV1(t *testing.T) {
	cpu := func(n int32) []autoscalingv2.MetricSpec {
		return []autoscalingv2.MetricSpec{{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{
			Name: "cpu", Target: autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: &n}}}}
	}
	for name, c := range map[string]struct {
		in       autoscalingv1.HorizontalPodAutoscaler
		metrics  []autoscalingv2.MetricSpec
		behavior bool
	}{
		"nothing":          {metrics: cpu(80)},
		"the CPU's target": {in: autoscalingv1.HorizontalPodAutoscaler{Spec: autoscalingv1.HorizontalPodAutoscalerSpec{TargetCPUUtilizationPercentage: ptr.To[int32](30)}}, metrics: cpu(30)},
		"garbage":          {in: annotatedWith("metrics", "garbage"), metrics: cpu(80)},
		"no metrics":       {in: annotatedWith("metrics", "[]"), metrics: cpu(80)},
		"empty behavior":   {in: annotatedWith("behavior", "{}"), metrics: cpu(80)},
		"behavior":         {in: annotatedWith("behavior", `{"scaleup":{}}`), metrics: cpu(80), behavior: true},
		"a pod's metric": {in: annotatedWith("metrics", `[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"0"}}]`),
			metrics: decodeYAML[*autoscalingv2.HorizontalPodAutoscaler](t, `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, spec: {metrics: [{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: "0"}}}]}}`).Spec.Metrics},
	} {
		hub, err := autoscalerView().ToHub(&c.in)
		if err != nil {
			t.Fatal(err)
		}
		got := hub.(*autoscalingv2.HorizontalPodAutoscaler)
		if diff := cmp.Diff(c.metrics, got.Spec.Metrics); diff != "" {
			t.Errorf("%s: metrics (-want +got):\n%s", name, diff)
		}
		if (got.Spec.Behavior != nil) != c.behavior {
			t.Errorf("%s: behavior is %v", name, got.Spec.Behavior)
		}
		if len(got.Annotations) > 0 {
			t.Errorf("%s: annotations %v are stored", name, got.Annotations)
		}
	}
}

func annotatedWith(key, value string) autoscalingv1.HorizontalPodAutoscaler {
	var h autoscalingv1.HorizontalPodAutoscaler
	h.Annotations = map[string]string{annotated + key: value}
	return h
}
