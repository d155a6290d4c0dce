package apiservice

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// AvailabilityName is the name of the loop that keeps the condition Available.
const AvailabilityName = "apiservice-availability"

// A remote server is asked every half minute, and after it failed sooner, from 5
// ms doubling to that, as in Kubernetes.
const (
	resync       = 30 * time.Second
	firstBackoff = 5 * time.Millisecond
)

// Availability keeps the condition Available of all APIServices. Its keys are
// their names.
type Availability struct {
	client                     client.Interface
	services, backends, slices *api.Resource
	probe                      func(context.Context, *apiregistrationv1.APIService) error
	gauge                      *prometheus.GaugeVec
	total                      *prometheus.CounterVec

	mu       sync.Mutex
	failures map[api.Key]time.Duration // how long the last one that failed waits
}

// NewAvailability makes the loop; it acts as the client's identity. probe asks the
// server of a remote APIService whether it is well.
func NewAvailability(c client.Interface, metrics prometheus.Registerer, probe func(context.Context, *apiregistrationv1.APIService) error) *Availability {
	l := &Availability{
		client:   c,
		services: c.Registry().Must(apiregistrationv1.GroupName, "apiservices"),
		backends: c.Registry().Must("", "services"),
		slices:   c.Registry().Must(discoveryv1.GroupName, "endpointslices"),
		probe:    probe,
		gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "aggregator_unavailable_apiservice",
			Help: "Gauge of APIServices which are marked as unavailable broken down by APIService name.",
		}, []string{"name"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "aggregator_unavailable_apiservice_total",
			Help: "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
		}, []string{"name", "reason"}),
		failures: map[api.Key]time.Duration{},
	}
	metrics.MustRegister(l.gauge, l.total)
	return l
}

// Name is the loop's name.
func (l *Availability) Name() string { return AvailabilityName }

// Sources are APIServices, and the services and endpoints behind them.
func (l *Availability) Sources() []controller.Source {
	behind := func(namespace, name string) (keys []api.Key) {
		for o := range l.client.View().ByIndex(l.services, kinds.IndexBackend, namespace+"/"+name) {
			keys = append(keys, api.Key{Name: o.GetName()})
		}
		return keys
	}
	return []controller.Source{
		{Resource: l.services, Keys: func(old, new api.Object) []api.Key {
			was, _ := old.(*apiregistrationv1.APIService)
			is, _ := new.(*apiregistrationv1.APIService)
			if was != nil && is != nil && !matters(was, is) {
				return nil
			}
			return []api.Key{{Name: either(old, new).GetName()}}
		}},
		{Resource: l.backends, Keys: func(old, new api.Object) []api.Key {
			o := either(old, new)
			return behind(o.GetNamespace(), o.GetName())
		}},
		{Resource: l.slices, Keys: func(old, new api.Object) []api.Key {
			o := either(old, new)
			return behind(o.GetNamespace(), o.GetLabels()[discoveryv1.LabelServiceName])
		}},
	}
}

// matters says whether a change of an APIService is one to look at: not when it
// only fails with other words, which would have a failing server asked at once,
// for ever.
func matters(was, is *apiregistrationv1.APIService) bool {
	if !equality.Semantic.DeepEqual(was.Spec, is.Spec) {
		return true
	}
	a, b := kinds.APIServiceCondition(was, apiregistrationv1.Available), kinds.APIServiceCondition(is, apiregistrationv1.Available)
	return a == nil || b == nil || a.Status != b.Status || a.Reason != b.Reason
}

func either(old, new api.Object) api.Object {
	if new != nil {
		return new
	}
	return old
}

// Step finds out whether one APIService is available, and says so.
func (l *Availability) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	s, ok := l.client.View().Get(l.services, key).(*apiregistrationv1.APIService)
	if !ok {
		l.gauge.DeleteLabelValues(key.Name)
		l.after(key, nil)
		return 0, nil
	}
	if s.Spec.Service == nil {
		return 0, l.report(ctx, s, kinds.LocallyAvailable(metav1.NewTime(now)))
	}
	c := unreachable(s, l.backend(s), l.endpoints(s))
	var after time.Duration
	if c == nil {
		err := l.probe(ctx, s)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		found := probed(err)
		c, after = &found, l.after(key, err)
	} else {
		l.after(key, nil)
		after = resync
	}
	c.LastTransitionTime = metav1.NewTime(now)
	return after, l.report(ctx, s, *c)
}

// after is when a server is asked again.
func (l *Availability) after(key api.Key, err error) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.failures, key)
		return resync
	}
	l.failures[key] = min(max(2*l.failures[key], firstBackoff), resync)
	return l.failures[key]
}

func (l *Availability) backend(s *apiregistrationv1.APIService) *corev1.Service {
	b, _ := l.client.View().Get(l.backends, api.Key{Namespace: s.Spec.Service.Namespace, Name: s.Spec.Service.Name}).(*corev1.Service)
	return b
}

func (l *Availability) endpoints(s *apiregistrationv1.APIService) (list []*discoveryv1.EndpointSlice) {
	for o := range l.client.View().List(l.slices, s.Spec.Service.Namespace) {
		if o.GetLabels()[discoveryv1.LabelServiceName] == s.Spec.Service.Name {
			list = append(list, o.(*discoveryv1.EndpointSlice))
		}
	}
	return list
}

// report writes the condition down, if it is another one, and counts it.
func (l *Availability) report(ctx context.Context, s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition) error {
	next := s.DeepCopy()
	kinds.SetAPIServiceCondition(next, c)
	gauge := 0.0
	if !kinds.APIServiceAvailable(next) {
		gauge = 1
	}
	l.gauge.WithLabelValues(s.Name).Set(gauge)
	if equality.Semantic.DeepEqual(s.Status, next.Status) {
		return nil
	}
	if _, err := l.client.Update(ctx, l.services, next, "status"); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("update status of APIService %s: %w", s.Name, err)
	}
	if kinds.APIServiceAvailable(s) && gauge == 1 {
		l.total.WithLabelValues(s.Name, c.Reason).Inc()
	}
	return nil
}
