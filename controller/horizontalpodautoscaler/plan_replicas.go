package horizontalpodautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	resourcehelpers "k8s.io/component-helpers/resource"

	"hansa.dev/hansa/internal/podstate"
)

// Kubernetes' defaults of the controller manager's flags.
const (
	// tolerance is how far a ratio may be from 1 without effect.
	tolerance = 0.1
	// cpuInitialization is the time after its start in which what a pod uses is
	// only believed when it was measured while the pod was ready.
	cpuInitialization = 5 * time.Minute
	// initialReadiness is the time after its start in which a pod that becomes
	// unready has never been ready.
	initialReadiness = 30 * time.Second
)

// sample is what one pod was measured to have, in thousandths.
type sample struct {
	at     time.Time     // the end of the window
	window time.Duration // that it was measured over
	value  int64
}

// tolerances are those for few and for many.
type tolerances struct{ down, up float64 }

func tolerancesOf(h *autoscalingv2.HorizontalPodAutoscaler) tolerances {
	t := tolerances{tolerance, tolerance}
	b := h.Spec.Behavior
	if b == nil {
		return t
	}
	if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
		t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
	}
	if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
		t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
	}
	return t
}

func (t tolerances) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// pods of a target, by what they count for.
type groups struct {
	ready int
	// unready have not begun to work, missing work and were not measured, ignored
	// end.
	unready, missing, ignored []string
}

// group sorts pods. Only what they use of the CPU says something of their start.
func group(pods []*corev1.Pod, of map[string]sample, resource corev1.ResourceName, now time.Time) (g groups) {
	for _, p := range pods {
		s, measured := of[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			g.ignored = append(g.ignored, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.unready = append(g.unready, p.Name)
		case !measured:
			g.missing = append(g.missing, p.Name)
		case resource == corev1.ResourceCPU && starting(p, s, now):
			g.unready = append(g.unready, p.Name)
		default:
			g.ready++
		}
	}
	return g
}

// starting says whether a sample of the CPU may tell of a pod's start rather than
// of its work (documentation: "Horizontal Pod Autoscaling", "Algorithm details").
func starting(p *corev1.Pod, s sample, now time.Time) bool {
	ready := podstate.Condition(p, corev1.PodReady)
	if ready == nil || p.Status.StartTime == nil {
		return true
	}
	start, since := p.Status.StartTime.Time, ready.LastTransitionTime.Time
	if start.Add(cpuInitialization).After(now) {
		return ready.Status == corev1.ConditionFalse || s.at.Before(since.Add(s.window))
	}
	return ready.Status == corev1.ConditionFalse && start.Add(initialReadiness).After(since)
}

// perPod is the size for a value that each pod should have on average. ratio says
// how samples stand to that; missing is what pods without a sample are taken to
// have when replicas would be removed. of is changed.
func perPod(s snapshot, of map[string]sample, resource corev1.ResourceName, ratio func(map[string]sample) (float64, error), missing func(pod string) int64) (int32, error) {
	if len(s.pods) == 0 {
		return 0, errors.New("no pods returned by selector while calculating replica count")
	}
	g := group(s.pods, of, resource, s.now)
	for _, name := range append(g.ignored, g.unready...) {
		delete(of, name)
	}
	if len(of) == 0 {
		return 0, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	now, t := s.target.replicas, tolerancesOf(s.autoscaler)
	r, err := ratio(of)
	if err != nil {
		return 0, err
	}
	early := len(g.unready) > 0 && r > 1
	if !early && len(g.missing) == 0 {
		if t.within(r) {
			return now, nil
		}
		return clamp(math.Ceil(r * float64(g.ready))), nil
	}
	// Pods of which nothing is known are taken to have what dampens the change.
	for _, name := range g.missing {
		switch {
		case r < 1:
			of[name] = sample{value: missing(name)}
		case r > 1:
			of[name] = sample{}
		}
	}
	if early {
		for _, name := range g.unready {
			of[name] = sample{}
		}
	}
	again, err := ratio(of)
	if err != nil {
		return 0, err
	}
	if t.within(again) || r < 1 && again > 1 || r > 1 && again < 1 {
		return now, nil
	}
	size := clamp(math.Ceil(again * float64(len(of))))
	if again < 1 && size > now || again > 1 && size < now {
		return now, nil
	}
	return size, nil
}

// byValue is the size for an average value, and the average there is.
func byValue(s snapshot, of map[string]sample, resource corev1.ResourceName, wanted int64) (size int32, average int64, err error) {
	first := true // it is about what was measured alone
	ratio := func(of map[string]sample) (float64, error) {
		total := int64(0)
		for _, one := range of {
			total += one.value
		}
		mean := total / int64(len(of))
		if first {
			average, first = mean, false
		}
		return float64(mean) / float64(wanted), nil
	}
	size, err = perPod(s, of, resource, ratio, func(string) int64 { return wanted })
	return size, average, err
}

// byUtilization is the size for an average share, in percent, of what pods or one
// container of each ask for, and the share and average value there are.
func byUtilization(s snapshot, of map[string]sample, resource corev1.ResourceName, container string, wanted int32) (size, percent int32, average int64, err error) {
	var requests map[string]int64
	percent = -1
	ratio := func(of map[string]sample) (float64, error) {
		if requests == nil {
			var err error
			if requests, err = requestsOf(s.pods, container, resource); err != nil {
				return 0, err
			}
		}
		var used, asked, n int64
		for name, one := range of {
			if request, ok := requests[name]; ok {
				used, asked, n = used+one.value, asked+request, n+1
			}
		}
		if asked == 0 {
			return 0, errors.New("no metrics returned matched known pods")
		}
		share := clamp(float64(used * 100 / asked))
		if percent < 0 {
			percent, average = share, used/n
		}
		return float64(share) / float64(wanted), nil
	}
	// A target beyond 100 % is what pods without a sample are taken to have.
	missing := func(pod string) int64 { return requests[pod] * int64(max(100, wanted)) / 100 }
	size, err = perPod(s, of, resource, ratio, missing)
	return size, percent, average, err
}

// requestsOf is what each pod, or one of its containers, asks for, in thousandths.
func requestsOf(pods []*corev1.Pod, container string, resource corev1.ResourceName) (map[string]int64, error) {
	out := make(map[string]int64, len(pods))
	for _, p := range pods {
		n, err := requestOf(p, container, resource)
		if err != nil {
			return nil, err
		}
		out[p.Name] = n
	}
	return out, nil
}

func requestOf(p *corev1.Pod, container string, resource corev1.ResourceName) (int64, error) {
	if container == "" && resourcehelpers.IsPodLevelRequestsSet(p) {
		q, ok := resourcehelpers.PodRequests(p, resourcehelpers.PodResourcesOptions{})[resource]
		if !ok {
			return 0, fmt.Errorf("missing pod-level request for %s in Pod %s", resource, p.Name)
		}
		return q.MilliValue(), nil
	}
	all, found := int64(0), false
	add := func(c *corev1.Container) error {
		if container != "" && container != c.Name {
			return nil
		}
		q, ok := c.Resources.Requests[resource]
		if !ok {
			return fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, p.Name)
		}
		all, found = all+q.MilliValue(), true
		return nil
	}
	for i := range p.Spec.Containers {
		if err := add(&p.Spec.Containers[i]); err != nil {
			return 0, err
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if err := add(c); err != nil {
			return 0, err
		}
	}
	if container != "" && !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, p.Name)
	}
	return all, nil
}

// byRatio is the size for a value of the whole: of an object, or from outside.
// Without replicas there is nothing that the value is the work of, so it is the
// ratio itself.
func byRatio(s snapshot, ratio float64) (int32, error) {
	now := s.target.replicas
	if now == 0 {
		return clamp(math.Ceil(ratio)), nil
	}
	if tolerancesOf(s.autoscaler).within(ratio) {
		return now, nil
	}
	if len(s.pods) == 0 {
		return 0, errors.New("unable to calculate ready pods: no pods returned by selector while calculating replica count")
	}
	ready := 0
	for _, p := range s.pods {
		if p.Status.Phase == corev1.PodRunning && podstate.Ready(p) {
			ready++
		}
	}
	return clamp(math.Ceil(ratio * float64(ready))), nil
}

// byShare is the size for a value of the whole that is divided among the replicas
// there are, and what is each one's part.
func byShare(s snapshot, value, wanted int64) (size int32, each int64) {
	there := s.target.current
	size = there
	ratio := float64(value) / (float64(wanted) * float64(there)) // infinite when there are none
	if !tolerancesOf(s.autoscaler).within(ratio) {
		size = clamp(math.Ceil(float64(value) / float64(wanted)))
	}
	if value == math.MaxInt64 || there == 0 {
		return size, value
	}
	return size, int64(math.Ceil(float64(value) / float64(there)))
}
