package horizontalpodautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custombeta1 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta1"
	custombeta2 "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalv1beta1 "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Metrics are the three APIs of metrics, asked as the loop. Errors are API status
// errors.
type Metrics interface {
	// Pods are what the pods of a namespace that a selector matches use.
	Pods(ctx context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error)
	// Serves says whether another server serves a group-version.
	Serves(gv schema.GroupVersion) bool
	// Get asks that server for /namespaces/NAMESPACE/RESOURCE[/NAME[/SUBRESOURCE]].
	Get(ctx context.Context, gv schema.GroupVersion, namespace string, path []string, query url.Values) ([]byte, error)
}

// defaultWindow is that of metrics which do not say over how long they were
// measured.
const defaultWindow = time.Minute

// measure finds out all metrics of an autoscaler.
func (l *Loop) measure(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, selector labels.Selector) readings {
	out := readings{others: make([]reading, len(h.Spec.Metrics))}
	known := false
	for i := range h.Spec.Metrics {
		m, r := &h.Spec.Metrics[i], &out.others[i]
		switch m.Type {
		case autoscalingv2.ResourceMetricSourceType, autoscalingv2.ContainerResourceMetricSourceType:
			if !known {
				out.resources, out.resourcesError = l.resources(ctx, h.Namespace, selector)
				known = true
			}
		case autoscalingv2.PodsMetricSourceType:
			r.pods, r.err = l.ofPods(ctx, h.Namespace, m.Pods.Metric, selector)
		case autoscalingv2.ObjectMetricSourceType:
			r.value, r.err = l.ofObject(ctx, h.Namespace, m.Object)
		case autoscalingv2.ExternalMetricSourceType:
			r.value, r.err = l.external(ctx, h.Namespace, m.External.Metric)
		}
	}
	return out
}

func (l *Loop) resources(ctx context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error) {
	list, err := l.metrics.Pods(ctx, namespace, selector)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	return list, nil
}

// ofPods is one metric of each pod.
func (l *Loop) ofPods(ctx context.Context, namespace string, m autoscalingv2.MetricIdentifier, selector labels.Selector) (map[string]sample, error) {
	list, err := l.custom(ctx, namespace, []string{"pods", "*", m.Name}, m.Selector, selector.String())
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := map[string]sample{}
	for _, v := range list {
		s := sample{at: v.Timestamp.Time, window: defaultWindow, value: v.Value.MilliValue()}
		if v.WindowSeconds != nil {
			s.window = time.Duration(*v.WindowSeconds) * time.Second
		}
		out[v.DescribedObject.Name] = s
	}
	return out, nil
}

// ofObject is one metric of an object of the autoscaler's namespace, or of that
// namespace.
func (l *Loop) ofObject(ctx context.Context, namespace string, m *autoscalingv2.ObjectMetricSource) (int64, error) {
	of := schema.FromAPIVersionAndKind(m.DescribedObject.APIVersion, m.DescribedObject.Kind).GroupKind()
	path := []string{"metrics", m.Metric.Name}
	if of != (schema.GroupKind{Kind: "Namespace"}) {
		resource, err := l.resourceOf(of)
		if err != nil {
			return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: unable to map kind %s to resource: %w", of, err)
		}
		path = []string{resource, m.DescribedObject.Name, m.Metric.Name}
	}
	list, err := l.custom(ctx, namespace, path, m.Metric.Selector, "")
	if err != nil {
		return 0, err
	}
	if len(list) != 1 {
		return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: the custom metrics API server returned %v results when we asked for exactly one", len(list))
	}
	return list[0].Value.MilliValue(), nil
}

// resourceOf is the resource of a kind, with its group.
func (l *Loop) resourceOf(of schema.GroupKind) (string, error) {
	for _, served := range l.client.Registry().Served() {
		if served.Version.Group == of.Group && served.Kind == of.Kind {
			return schema.GroupResource{Group: of.Group, Resource: served.Plural}.String(), nil
		}
	}
	return "", &apimeta.NoKindMatchError{GroupKind: of}
}

// custom asks the custom metrics API, in the newest version that is served. The
// answer is given in that; versions differ in how they name a metric alone.
func (l *Loop) custom(ctx context.Context, namespace string, path []string, metric *metav1.LabelSelector, pods string) ([]custombeta2.MetricValue, error) {
	of, err := metav1.LabelSelectorAsSelector(metric)
	if err != nil {
		return nil, err
	}
	versions := []schema.GroupVersion{custombeta2.SchemeGroupVersion, custombeta1.SchemeGroupVersion}
	i := slices.IndexFunc(versions, l.metrics.Serves)
	if i < 0 {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: no custom metrics API (%s) registered", versions[0].Group)
	}
	query := url.Values{}
	for name, value := range map[string]string{"labelSelector": pods, "metricLabelSelector": of.String()} {
		if value != "" {
			query.Set(name, value)
		}
	}
	data, err := l.metrics.Get(ctx, versions[i], namespace, path, query)
	var out custombeta2.MetricValueList
	if err == nil && i == 0 {
		err = json.Unmarshal(data, &out)
	} else if err == nil {
		var old custombeta1.MetricValueList
		err = json.Unmarshal(data, &old)
		for _, v := range old.Items {
			out.Items = append(out.Items, custombeta2.MetricValue{DescribedObject: v.DescribedObject, Timestamp: v.Timestamp, WindowSeconds: v.WindowSeconds, Value: v.Value})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	return out.Items, nil
}

// external is the sum of all values of a metric from outside of the cluster.
func (l *Loop) external(ctx context.Context, namespace string, m autoscalingv2.MetricIdentifier) (sum int64, err error) {
	of, err := metav1.LabelSelectorAsSelector(m.Selector)
	if err != nil {
		return 0, err
	}
	query := url.Values{}
	if text := of.String(); text != "" {
		query.Set("labelSelector", text)
	}
	data, err := l.metrics.Get(ctx, externalv1beta1.SchemeGroupVersion, namespace, []string{m.Name}, query)
	var list externalv1beta1.ExternalMetricValueList
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return 0, errors.New("no metrics returned from external metrics API")
	}
	for _, v := range list.Items {
		n := v.Value.MilliValue()
		if n > 0 && sum > math.MaxInt64-n {
			return math.MaxInt64, nil
		}
		sum += n
	}
	return sum, nil
}
