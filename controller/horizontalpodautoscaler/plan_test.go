package horizontalpodautoscaler

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/ptr"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func cpu(percent int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

func average(value string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse(value))}
}

func whole(value string) autoscalingv2.MetricTarget {
	return autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr.To(resource.MustParse(value))}
}

func autoscaler(least, most int32, metrics ...autoscalingv2.MetricSpec) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", Generation: 3},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    &least, MaxReplicas: most, Metrics: metrics,
		},
	}
}

// scene is a target whose pods have one container each, which asks for a whole
// CPU and 1 Gi, and are ready for an hour.
func scene(h *autoscalingv2.HorizontalPodAutoscaler, pods int, uses ...string) snapshot {
	s := snapshot{autoscaler: h, now: now, target: target{replicas: int32(pods), current: int32(pods), selector: "app=web"}}
	s.measured.others = make([]reading, len(h.Spec.Metrics))
	for i := range pods {
		s.pods = append(s.pods, readyPod(fmt.Sprintf("web-%d", i)))
	}
	for i, use := range uses {
		s.measured.resources = append(s.measured.resources, usageOf(fmt.Sprintf("web-%d", i), "main", use))
	}
	return s
}

func readyPod(name string) *corev1.Pod {
	long := metav1.NewTime(now.Add(-time.Hour))
	ask := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: ask}}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &long,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: long}},
		},
	}
}

func usageOf(pod, container, use string) metricsv1beta1.PodMetrics {
	return metricsv1beta1.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: pod}, Timestamp: metav1.NewTime(now), Window: metav1.Duration{Duration: 15 * time.Second},
		Containers: []metricsv1beta1.ContainerMetrics{{Name: container, Usage: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(use), corev1.ResourceMemory: resource.MustParse(use),
		}}},
	}
}

// size is what is decided: the size there will be.
func size(s snapshot) int32 {
	if d := plan(s); d.rescale {
		return d.size
	}
	return s.target.replicas
}

func (d decision) of(kind autoscalingv2.HorizontalPodAutoscalerConditionType) string {
	for _, c := range d.status.Conditions {
		if c.Type == kind {
			return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
		}
	}
	return ""
}

func wantCondition(t *testing.T, d decision, kind autoscalingv2.HorizontalPodAutoscalerConditionType, want string) {
	t.Helper()
	if got := d.of(kind); !strings.HasPrefix(got, want) {
		t.Errorf("condition %s is %q, want %q", kind, got, want)
	}
}

// Documentation: "Horizontal Pod Autoscaling", "Algorithm details".
func TestResourceUtilization(t *testing.T) {
	for _, c := range []struct {
		name string
		pods int
		uses []string
		want int32
	}{
		{"twice as much as wanted", 2, []string{"1", "1"}, 4},
		{"half as much", 4, []string{"250m", "250m", "250m", "250m"}, 2},
		{"rounded up", 3, []string{"700m", "700m", "700m"}, 5},
		{"uneven", 2, []string{"1", "0"}, 2},
		{"within the tolerance above", 10, slices.Repeat([]string{"549m"}, 10), 10},
		{"beyond it", 10, slices.Repeat([]string{"560m"}, 10), 12},
		{"within the tolerance below", 10, slices.Repeat([]string{"450m"}, 10), 10},
		{"below it", 10, slices.Repeat([]string{"440m"}, 10), 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := scene(autoscaler(1, 20, cpu(50)), c.pods, c.uses...)
			s.had = history{} // the present size is what was recommended before
			s.now = now
			if got := settled(s); got != c.want {
				t.Errorf("%d pods become %d, want %d", c.pods, got, c.want)
			}
		})
	}
	s := scene(autoscaler(1, 20, cpu(50)), 2, "1", "500m")
	d := plan(s)
	got := d.status.CurrentMetrics[0].Resource
	if *got.Current.AverageUtilization != 75 || got.Current.AverageValue.String() != "750m" || got.Name != "cpu" {
		t.Errorf("the status has %+v", got)
	}
	if want := "cpu resource utilization (percentage of request) above target"; d.reason != want {
		t.Errorf("reason %q, want %q", d.reason, want)
	}
}

// settled is the size after the windows have passed.
func settled(s snapshot) int32 {
	s.had = history{recommended: []change{{1, s.now.Add(-50 * time.Minute)}}}
	return size(s)
}

func TestResourceAverageValue(t *testing.T) {
	memory := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceMemory, Target: average("100Mi")}}
	s := scene(autoscaler(1, 20, memory), 2, "150Mi", "250Mi")
	s.pods[0].Spec.Containers[0].Resources = corev1.ResourceRequirements{} // not needed
	d := plan(s)
	if d.size != 4 {
		t.Errorf("2 pods become %d", d.size)
	}
	if got := d.status.CurrentMetrics[0].Resource.Current.AverageValue.String(); got != "200Mi" {
		t.Errorf("average value %s", got)
	}
}

// Documentation: "Container resource metrics".
func TestContainerResource(t *testing.T) {
	m := autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
		Name: corev1.ResourceCPU, Container: "main", Target: cpu(50).Resource.Target,
	}}
	s := scene(autoscaler(1, 20, m), 1, "1")
	s.measured.resources[0].Containers = append(s.measured.resources[0].Containers, usageOf("", "sidecar", "5").Containers...)
	s.pods[0].Spec.Containers = append(s.pods[0].Spec.Containers, corev1.Container{Name: "sidecar"})
	d := plan(s)
	if d.size != 2 {
		t.Errorf("1 pod becomes %d", d.size)
	}
	if got := d.status.CurrentMetrics[0].ContainerResource; got.Container != "main" || *got.Current.AverageUtilization != 100 {
		t.Errorf("the status has %+v", got)
	}
	m.ContainerResource.Container = "other"
	d = plan(s)
	wantCondition(t, d, autoscalingv2.ScalingActive, "False FailedGetContainerResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)")
}

// A pod asks for what its containers and sidecars ask for, or for what it asks for
// as a whole.
func TestRequests(t *testing.T) {
	ask := func(q string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q)}}
	}
	p := readyPod("p")
	p.Spec.InitContainers = []corev1.Container{
		{Name: "init", Resources: ask("8")},
		{Name: "sidecar", Resources: ask("500m"), RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)},
	}
	level := p.DeepCopy()
	level.Spec.Resources = ptr.To(ask("3"))
	bare := readyPod("bare")
	bare.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	for _, c := range []struct {
		pod       *corev1.Pod
		container string
		want      int64
		fails     string
	}{
		{p, "", 1500, ""},
		{p, "main", 1000, ""},
		{p, "sidecar", 500, ""},
		{p, "init", 0, "container init not found in Pod p"},
		{level, "", 3000, ""},
		{level, "main", 1000, ""},
		{bare, "", 0, "missing request for cpu in container main of Pod bare"},
	} {
		got, err := requestOf(c.pod, c.container, corev1.ResourceCPU)
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && err.Error() != c.fails {
			t.Errorf("pod %s, container %q: %d, %v; want %d, %q", c.pod.Name, c.container, got, err, c.want, c.fails)
		}
	}
}

func TestPodsMetric(t *testing.T) {
	m := autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "qps"}, Target: average("10")}}
	s := scene(autoscaler(1, 20, m), 2)
	s.measured.others[0].pods = map[string]sample{"web-0": {value: 20000}, "web-1": {value: 40000}}
	d := plan(s)
	if d.size != 4 { // 6 are asked for, twice the size is the most
		t.Errorf("2 pods become %d", d.size)
	}
	wantCondition(t, d, autoscalingv2.ScalingLimited, "True ScaleUpLimit: the desired replica count is increasing faster than the maximum scale rate")
	if got := d.status.CurrentMetrics[0].Pods; got.Metric.Name != "qps" || got.Current.AverageValue.String() != "30" {
		t.Errorf("the status has %+v", got)
	}
}

func TestObjectMetric(t *testing.T) {
	ref := autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "Service", Name: "front"}
	m := autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{DescribedObject: ref, Metric: autoscalingv2.MetricIdentifier{Name: "qps"}, Target: whole("100")}}
	s := scene(autoscaler(1, 20, m), 4)
	s.pods[3].Status.Conditions[0].Status = corev1.ConditionFalse
	s.measured.others[0].value = 150_000
	d := plan(s)
	if d.size != 5 || d.reason != "Service metric qps above target" { // 1.5 × 3 that are ready
		t.Errorf("4 pods become %d: %s", d.size, d.reason)
	}
	if got := d.status.CurrentMetrics[0].Object; got.DescribedObject != ref || got.Current.Value.String() != "150" {
		t.Errorf("the status has %+v", got)
	}
	m.Object.Target = average("25")
	if d := plan(s); d.size != 6 || d.status.CurrentMetrics[0].Object.Current.AverageValue.String() != "37500m" {
		t.Errorf("by average, 4 pods become %d, status %+v", d.size, d.status.CurrentMetrics[0].Object)
	}
	m.Object.Target = autoscalingv2.MetricTarget{}
	wantCondition(t, plan(s), autoscalingv2.ScalingActive, "False FailedGetObjectMetric: the HPA was unable to compute the replica count: invalid object metric source")
}

func TestExternalMetric(t *testing.T) {
	m := autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "queue"}, Target: whole("10")}}
	s := scene(autoscaler(1, 20, m), 2)
	s.measured.others[0].value = 15_000
	if d := plan(s); d.size != 3 || d.status.CurrentMetrics[0].External.Current.Value.String() != "15" {
		t.Errorf("2 pods become %d, status %+v", d.size, d.status.CurrentMetrics[0].External)
	}
	m.External.Target = average("5")
	if d := plan(s); d.size != 3 || d.status.CurrentMetrics[0].External.Current.AverageValue.String() != "7500m" {
		t.Errorf("by average, 2 pods become %d, status %+v", d.size, d.status.CurrentMetrics[0].External)
	}
	s.measured.others[0].value = math.MaxInt64
	if d := plan(s); d.size != 4 {
		t.Errorf("a value that has no end makes 2 pods %d", d.size)
	}
	s.measured.others[0] = reading{err: errors.New("unable to fetch metrics from external metrics API: gone")}
	d := plan(s)
	wantCondition(t, d, autoscalingv2.ScalingActive, "False FailedGetExternalMetric: the HPA was unable to compute the replica count: failed to get queue external metric: unable to get external metric ns/queue/nil: unable to fetch metrics from external metrics API: gone")
	if d.rescale || len(d.events) != 2 || d.events[1].reason != "FailedComputeMetricsReplicas" {
		t.Errorf("rescale %v, events %+v", d.rescale, d.events)
	}
}

// The largest proposal counts; what some metrics do not say keeps replicas from
// being removed, not from being added.
func TestSeveralMetrics(t *testing.T) {
	queue := autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "queue"}, Target: whole("10")}}
	s := scene(autoscaler(1, 20, cpu(50), queue), 4, "500m", "500m", "500m", "500m")
	s.measured.others[1].value = 15_000
	if d := plan(s); d.size != 6 || d.reason != "external metric queue(nil) above target" {
		t.Errorf("4 pods become %d: %s", d.size, d.reason)
	}
	s.measured.others[1].err = errors.New("gone")
	if got := settled(s); got != 4 {
		t.Errorf("with one metric gone, 4 pods become %d", got)
	}
	for i := range s.measured.resources {
		s.measured.resources[i].Containers[0].Usage[corev1.ResourceCPU] = resource.MustParse("100m")
	}
	if got := settled(s); got != 4 {
		t.Errorf("though one metric is gone, 4 pods become %d", got)
	}
	for i := range s.measured.resources {
		s.measured.resources[i].Containers[0].Usage[corev1.ResourceCPU] = resource.MustParse("1")
	}
	d := plan(s)
	if d.size != 8 {
		t.Errorf("though one metric is gone, 4 pods become %d, want 8", d.size)
	}
	wantCondition(t, d, autoscalingv2.ScalingActive, "True ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)")
}

// Documentation: "Configurable tolerance".
func TestTolerance(t *testing.T) {
	h := autoscaler(1, 20, cpu(50))
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{
		ScaleUp:   rules(0, autoscalingv2.MaxChangePolicySelect, percent(100, 15)),
		ScaleDown: rules(0, autoscalingv2.MaxChangePolicySelect, percent(100, 15)),
	}
	for _, c := range []struct {
		up, down, use string
		want          int32
	}{
		{"0", "0", "510m", 11},
		{"0.5", "0", "700m", 10},
		{"0.5", "0", "800m", 16},
		{"0", "0.5", "300m", 10},
		{"0", "0", "480m", 10},
		{"0", "0.05", "440m", 9},
	} {
		h.Spec.Behavior.ScaleUp.Tolerance, h.Spec.Behavior.ScaleDown.Tolerance = ptr.To(resource.MustParse(c.up)), ptr.To(resource.MustParse(c.down))
		if got := settled(scene(h, 10, slices.Repeat([]string{c.use}, 10)...)); got != c.want {
			t.Errorf("tolerances %s and %s, %s of 500m: 10 become %d, want %d", c.up, c.down, c.use, got, c.want)
		}
	}
}

// Pods without metrics are taken to use all they ask for when replicas would be
// removed, and nothing when some would be added.
func TestMissingPods(t *testing.T) {
	for _, c := range []struct {
		name string
		pods int
		uses []string
		want int32
	}{
		{"dampen growth", 3, []string{"1"}, 3},                    // (1+0+0)/3 = 33 %: would shrink
		{"dampen growth to less", 4, []string{"1", "1", "1"}, 6},  // 3/4 = 75 % of 4
		{"keep from shrinking", 2, []string{"100m"}, 2},           // (0.1+1)/2 = 55 %
		{"shrink less", 8, slices.Repeat([]string{"100m"}, 7), 4}, // 1.7/8 = 21 %
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := settled(scene(autoscaler(1, 20, cpu(50)), c.pods, c.uses...)); got != c.want {
				t.Errorf("%d pods become %d, want %d", c.pods, got, c.want)
			}
		})
	}
	// With a target above what is asked for, that counts.
	if got := settled(scene(autoscaler(1, 20, cpu(200)), 2, "100m")); got != 2 {
		t.Errorf("2 pods become %d, want 2: (0.1+2)/2 is 105 %% of 2 × 200 %%", got)
	}
}

// Pods that are not ready yet are left out, and taken to use nothing when
// replicas would be added.
func TestUnreadyPods(t *testing.T) {
	s := scene(autoscaler(1, 20, cpu(50)), 4, "1", "1", "1", "1")
	s.pods[3].Status.Phase = corev1.PodPending
	if got := settled(s); got != 6 {
		t.Errorf("4 pods, one pending, become %d, want 6", got)
	}
	s.pods[2].Status.Phase, s.pods[3].Status.Phase = corev1.PodFailed, corev1.PodRunning
	s.pods[1].DeletionTimestamp = ptr.To(metav1.NewTime(now))
	if got := settled(s); got != 4 { // 2 are left, at 100 %
		t.Errorf("of 4 pods 2 end: %d, want 4", got)
	}
	for _, p := range s.pods {
		p.Status.Phase = corev1.PodPending
	}
	s.pods[1].DeletionTimestamp = nil
	wantCondition(t, plan(s), autoscalingv2.ScalingActive, "False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)")
	s.pods = nil
	wantCondition(t, plan(s), autoscalingv2.ScalingActive, "False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: no pods returned by selector while calculating replica count")
}

// --horizontal-pod-autoscaler-cpu-initialization-period and
// --horizontal-pod-autoscaler-initial-readiness-delay.
func TestStartingPods(t *testing.T) {
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	for _, c := range []struct {
		name        string
		start       time.Duration
		ready       corev1.ConditionStatus
		since       time.Duration
		wantIgnored bool
	}{
		{"new and not ready", time.Minute, corev1.ConditionFalse, time.Minute, true},
		{"new, ready for less than a window", time.Minute, corev1.ConditionTrue, 10 * time.Second, true},
		{"new, ready for a window", time.Minute, corev1.ConditionTrue, 15 * time.Second, false},
		{"old and not ready since its start", 10 * time.Minute, corev1.ConditionFalse, 10*time.Minute - 20*time.Second, true},
		{"old and not ready any more", 10 * time.Minute, corev1.ConditionFalse, 9 * time.Minute, false},
		{"old, ready just now", 10 * time.Minute, corev1.ConditionTrue, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := readyPod("p")
			p.Status.StartTime = ptr.To(ago(c.start))
			p.Status.Conditions[0].Status, p.Status.Conditions[0].LastTransitionTime = c.ready, ago(c.since)
			of := map[string]sample{"p": {at: now, window: 15 * time.Second}}
			if g := group([]*corev1.Pod{p}, of, corev1.ResourceCPU, now); (g.ready == 0) != c.wantIgnored {
				t.Errorf("ignored: %v", g.ready == 0)
			}
			if g := group([]*corev1.Pod{p}, of, corev1.ResourceMemory, now); g.ready != 1 {
				t.Error("memory does not depend on the start")
			}
		})
	}
	p := readyPod("p")
	p.Status.Conditions = nil
	if !starting(p, sample{at: now}, now) {
		t.Error("a pod without a condition is starting")
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		least, most   int32
		pods          int
		use           string
		want          int32
		reason, limit string
	}{
		{1, 3, 5, "500m", 3, "Current number of replicas above Spec.MaxReplicas", ""},
		{3, 9, 2, "500m", 3, "Current number of replicas below Spec.MinReplicas", ""},
		{1, 3, 2, "1", 3, "cpu resource utilization (percentage of request) above target", "True TooManyReplicas: the desired replica count is more than the maximum replica count"},
		{2, 9, 3, "1m", 2, "All metrics below target", "True TooFewReplicas: the desired replica count is less than the minimum replica count"},
		{1, 9, 2, "500m", 2, "", "False DesiredWithinRange: the desired count is within the acceptable range"},
	} {
		s := scene(autoscaler(c.least, c.most, cpu(50)), c.pods, slices.Repeat([]string{c.use}, c.pods)...)
		s.had = history{recommended: []change{{1, now.Add(-50 * time.Minute)}}}
		d := plan(s)
		if got := settled(s); got != c.want || d.reason != c.reason {
			t.Errorf("%d pods at %s within %d–%d become %d: %q, want %d: %q", c.pods, c.use, c.least, c.most, got, d.reason, c.want, c.reason)
		}
		wantCondition(t, d, autoscalingv2.ScalingLimited, c.limit)
	}
}

// Documentation: "Implicit maintenance-mode deactivation", and the gate
// HPAScaleToZero, on in 1.37.
func TestScaleToZero(t *testing.T) {
	s := scene(autoscaler(1, 5, cpu(50)), 0)
	d := plan(s)
	wantCondition(t, d, autoscalingv2.ScalingActive, "False ScalingDisabled: scaling is disabled since the replica count of the target is zero")
	if d.rescale {
		t.Error("what somebody scaled to zero is scaled")
	}
	queue := autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: "queue"}, Target: average("10")}}
	h := autoscaler(0, 5, queue)
	s = scene(h, 1)
	s.had = history{recommended: []change{{0, now.Add(-50 * time.Minute)}}}
	d = plan(s)
	if !d.rescale || d.size != 0 {
		t.Fatalf("without work, 1 pod becomes %d", d.size)
	}
	d = d.done(s)
	wantCondition(t, d, autoscalingv2.ScaledToZero, "True ScaledToZero: the HPA controller scaled the workload to zero")
	h.Status = d.status
	s = scene(h, 0)
	s.measured.others[0].value = 25_000
	if d = plan(s); !d.rescale || d.size != 3 {
		t.Errorf("with work, 0 pods become %d", d.size)
	}
	wantCondition(t, d.done(s), autoscalingv2.ScaledToZero, "False NotScaledToZero")
	s.measured.others[0].value = 0
	if d = plan(s); d.rescale {
		t.Errorf("without work, 0 pods become %d", d.size)
	}
	h.Spec.MinReplicas = ptr.To[int32](2) // raised meanwhile
	if d = plan(s); !d.rescale || d.size != 2 || d.reason != "Current number of replicas below Spec.MinReplicas" {
		t.Errorf("with a minimum of 2, 0 pods become %d: %s", d.size, d.reason)
	}
	h.Status.Conditions = nil // somebody scaled it to zero
	if d = plan(scene(h, 0)); d.rescale {
		t.Errorf("what somebody scaled to zero is scaled to %d", d.size)
	}
}

func TestSelectors(t *testing.T) {
	for _, c := range []struct {
		selector    string
		rivals      []string
		event, want string
	}{
		{"", nil, "SelectorRequired", "False InvalidSelector: the HPA target's scale is missing a selector"},
		{"a in (", nil, "InvalidSelector", "False InvalidSelector: couldn't convert selector into a corresponding internal selector object: "},
		{"app=web", []string{"ns/a", "ns/web"}, "AmbiguousSelector", "False AmbiguousSelector: pods by selector app=web are controlled by more than one HPA (e.g. [ns/a ns/web])"},
	} {
		s := scene(autoscaler(1, 5, cpu(50)), 2, "1", "1")
		s.target.selector, s.rivals = c.selector, c.rivals
		d := plan(s)
		wantCondition(t, d, autoscalingv2.ScalingActive, c.want)
		if d.rescale || d.events[0].reason != c.event {
			t.Errorf("selector %q: rescale %v, events %+v", c.selector, d.rescale, d.events)
		}
	}
}

func TestOutcome(t *testing.T) {
	s := scene(autoscaler(1, 9, cpu(50)), 2, "1", "1")
	s.autoscaler.Status.DesiredReplicas = 2
	d := plan(s)
	if d.status.DesiredReplicas != 2 || d.status.CurrentReplicas != 2 {
		t.Errorf("before it is done the status is %+v", d.status)
	}
	done := d.done(s)
	wantCondition(t, done, autoscalingv2.AbleToScale, "True SucceededRescale: the HPA controller was able to update the target scale to 4")
	if done.status.DesiredReplicas != 4 || !done.status.LastScaleTime.Time.Equal(now) || *done.status.ObservedGeneration != 3 {
		t.Errorf("the status is %+v", done.status)
	}
	if e := done.events[0]; e != (event{"Normal", "SuccessfulRescale", "New size: 4; reason: cpu resource utilization (percentage of request) above target"}) {
		t.Errorf("event %+v", e)
	}
	refused := plan(s).refused(s, errors.New("no"))
	wantCondition(t, refused, autoscalingv2.AbleToScale, "False FailedUpdateScale: the HPA controller was unable to update the target scale: no")
	if refused.status.LastScaleTime != nil || refused.status.DesiredReplicas != 2 || refused.events[0].reason != "FailedRescale" {
		t.Errorf("the status is %+v, the events %+v", refused.status, refused.events)
	}
	d = unknown(s.autoscaler, errors.New("none"), history{}, now)
	wantCondition(t, d, autoscalingv2.AbleToScale, "False FailedGetScale: the HPA controller was unable to get the target's current scale: none")
}

// A condition that stays keeps the time of its last change.
func TestConditionTimes(t *testing.T) {
	s := scene(autoscaler(1, 9, cpu(50)), 2, "500m", "500m")
	s.autoscaler.Status = plan(s).status
	s.now = now.Add(time.Minute)
	d := plan(s)
	for _, c := range d.status.Conditions {
		if !c.LastTransitionTime.Time.Equal(now) {
			t.Errorf("%s changed at %s", c.Type, c.LastTransitionTime)
		}
	}
}
