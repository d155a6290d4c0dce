package horizontalpodautoscaler

import (
	"errors"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// readings are what the metrics of an autoscaler were found to be.
type readings struct {
	// resources are what the target's pods use, for all metrics of that, or why it
	// is not known.
	resources      []metricsv1beta1.PodMetrics
	resourcesError error
	// others are those of the other metrics, by their place in the spec.
	others []reading
}

// reading is one metric of pods, of an object, or from outside.
type reading struct {
	pods  map[string]sample
	value int64 // thousandths
	err   error
}

// proposal is the size that one metric asks for.
type proposal struct {
	replicas int32
	metric   string // for messages
	status   autoscalingv2.MetricStatus
}

// failure is why a metric asks for nothing: the reason of an event, what was
// being done, and the error.
type failure struct {
	reason, doing string
	err           error
}

// proposalOf is what the metric at a place of the spec asks for.
func proposalOf(s snapshot, i int) (proposal, *failure) {
	spec := &s.autoscaler.Spec.Metrics[i]
	p := proposal{status: autoscalingv2.MetricStatus{Type: spec.Type}}
	fail := func(reason, doing string, err error) (proposal, *failure) {
		return proposal{}, &failure{reason, doing, err}
	}
	switch spec.Type {
	case autoscalingv2.ResourceMetricSourceType:
		current, err := p.resource(s, spec.Resource.Name, "", spec.Resource.Target, "resource")
		if err != nil {
			return fail("FailedGetResourceMetric", fmt.Sprintf("failed to get %s resource metric value", spec.Resource.Name), err)
		}
		p.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: spec.Resource.Name, Current: current}
	case autoscalingv2.ContainerResourceMetricSourceType:
		c := spec.ContainerResource
		current, err := p.resource(s, c.Name, c.Container, c.Target, "container resource")
		if err != nil {
			return fail("FailedGetContainerResourceMetric", fmt.Sprintf("failed to get %s container metric value", c.Container), err)
		}
		p.status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: c.Name, Container: c.Container, Current: current}
	case autoscalingv2.PodsMetricSourceType:
		if err := p.ofPods(s, spec.Pods, s.measured.others[i]); err != nil {
			return fail("FailedGetPodsMetric", "failed to get pods metric value", err)
		}
	case autoscalingv2.ObjectMetricSourceType:
		if err := p.ofObject(s, spec.Object, s.measured.others[i]); err != nil {
			return fail("FailedGetObjectMetric", "failed to get object metric value", err)
		}
	case autoscalingv2.ExternalMetricSourceType:
		if err := p.ofOutside(s, spec.External, s.measured.others[i]); err != nil {
			return fail("FailedGetExternalMetric", fmt.Sprintf("failed to get %s external metric value", spec.External.Metric.Name), err)
		}
	default:
		return fail("InvalidMetricSourceType", "failed to get metric value", fmt.Errorf("unknown metric source type %q", string(spec.Type)))
	}
	return p, nil
}

// resource goes by what pods, or one container of each, use.
func (p *proposal) resource(s snapshot, name corev1.ResourceName, container string, wanted autoscalingv2.MetricTarget, what string) (autoscalingv2.MetricValueStatus, error) {
	var status autoscalingv2.MetricValueStatus
	doing := "utilization"
	if wanted.AverageValue != nil {
		doing = "usage"
	} else if wanted.AverageUtilization == nil {
		return status, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	if err := s.measured.resourcesError; err != nil {
		return status, fmt.Errorf("failed to get %s %s: unable to get metrics for resource %s: %w", name, doing, name, err)
	}
	of := samplesOf(s.measured.resources, name, container)
	var average int64
	var err error
	if wanted.AverageValue != nil {
		p.metric = string(name) + " resource"
		p.replicas, average, err = byValue(s, of, name, wanted.AverageValue.MilliValue())
	} else {
		p.metric = fmt.Sprintf("%s %s utilization (percentage of request)", name, what)
		status.AverageUtilization = new(int32)
		p.replicas, *status.AverageUtilization, average, err = byUtilization(s, of, name, container, *wanted.AverageUtilization)
	}
	if err != nil {
		return status, fmt.Errorf("failed to get %s %s: %w", name, doing, err)
	}
	format := resource.DecimalSI
	if name == corev1.ResourceMemory {
		format = resource.BinarySI
	}
	status.AverageValue = resource.NewMilliQuantity(average, format)
	return status, nil
}

// samplesOf are what each pod, or one of its containers, uses. A pod of which not
// all is known is left out.
func samplesOf(list []metricsv1beta1.PodMetrics, name corev1.ResourceName, container string) map[string]sample {
	out := make(map[string]sample, len(list))
	for i := range list {
		m := &list[i]
		one := sample{at: m.Timestamp.Time, window: m.Window.Duration}
		known := false
		for _, c := range m.Containers {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Usage[name]
			one.value += q.MilliValue()
			if known = ok; !ok {
				break
			}
		}
		if known {
			out[m.Name] = one
		}
	}
	return out
}

func (p *proposal) ofPods(s snapshot, m *autoscalingv2.PodsMetricSource, r reading) error {
	if r.err != nil {
		return fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, r.err)
	}
	size, average, err := byValue(s, r.pods, "", m.Target.AverageValue.MilliValue())
	if err != nil {
		return err
	}
	p.replicas, p.metric = size, "pods metric "+m.Metric.Name
	p.status.Pods = &autoscalingv2.PodsMetricStatus{
		Metric:  *m.Metric.DeepCopy(),
		Current: autoscalingv2.MetricValueStatus{AverageValue: resource.NewMilliQuantity(average, resource.DecimalSI)},
	}
	return nil
}

func (p *proposal) ofObject(s snapshot, m *autoscalingv2.ObjectMetricSource, r reading) error {
	on := m.DescribedObject
	share := m.Target.Type == autoscalingv2.AverageValueMetricType && m.Target.AverageValue != nil
	if !share && (m.Target.Type != autoscalingv2.ValueMetricType || m.Target.Value == nil) {
		return errors.New("invalid object metric source: neither a value target nor an average value target was set")
	}
	if r.err != nil {
		err := fmt.Errorf("unable to get metric %s on %s %s/%s: %w", m.Metric.Name, on.Kind, s.autoscaler.Namespace, on.Name, r.err)
		if share {
			err = fmt.Errorf("failed to get %s object metric: %w", m.Metric.Name, err)
		}
		return err
	}
	p.status.Object = &autoscalingv2.ObjectMetricStatus{DescribedObject: on, Metric: *m.Metric.DeepCopy()}
	if share {
		p.metric = fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector)
		size, each := byShare(s, r.value, m.Target.AverageValue.MilliValue())
		p.replicas, p.status.Object.Current.AverageValue = size, resource.NewMilliQuantity(each, resource.DecimalSI)
		return nil
	}
	size, err := byRatio(s, float64(r.value)/float64(m.Target.Value.MilliValue()))
	if err != nil {
		return err
	}
	p.replicas, p.metric = size, fmt.Sprintf("%s metric %s", on.Kind, m.Metric.Name)
	p.status.Object.Current.Value = resource.NewMilliQuantity(r.value, resource.DecimalSI)
	return nil
}

func (p *proposal) ofOutside(s snapshot, m *autoscalingv2.ExternalMetricSource, r reading) error {
	share := m.Target.AverageValue != nil
	if !share && m.Target.Value == nil {
		return errors.New("invalid external metric source: neither a value target nor an average value target was set")
	}
	failed := "failed to get external metric " + m.Metric.Name
	if share {
		failed = fmt.Sprintf("failed to get %s external metric", m.Metric.Name)
	}
	if r.err != nil {
		return fmt.Errorf("%s: unable to get external metric %s/%s/%+v: %w", failed, s.autoscaler.Namespace, m.Metric.Name, m.Metric.Selector, r.err)
	}
	p.metric = fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector)
	p.status.External = &autoscalingv2.ExternalMetricStatus{Metric: *m.Metric.DeepCopy()}
	if share {
		size, each := byShare(s, r.value, m.Target.AverageValue.MilliValue())
		p.replicas, p.status.External.Current.AverageValue = size, resource.NewMilliQuantity(each, resource.DecimalSI)
		return nil
	}
	size, err := byRatio(s, float64(r.value)/float64(m.Target.Value.MilliValue()))
	if err != nil {
		return fmt.Errorf("%s: %w", failed, err)
	}
	p.replicas, p.status.External.Current.Value = size, resource.NewMilliQuantity(r.value, resource.DecimalSI)
	return nil
}
