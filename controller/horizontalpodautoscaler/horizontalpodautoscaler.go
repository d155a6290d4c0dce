// Package horizontalpodautoscaler gives workloads as many replicas as their
// metrics ask for (documentation: "Horizontal Pod Autoscaling").
//
// A step reads the scale of an autoscaler's target, measures, plans (pure, in the
// files plan*.go), scales and writes the status. Metrics change by themselves, so
// every autoscaler is looked at each 15 seconds; without autoscalers nothing is.
package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

// syncPeriod is how often an autoscaler is looked at
// (--horizontal-pod-autoscaler-sync-period).
const syncPeriod = 15 * time.Second

// Name is the loop's identity.
const Name = "horizontal-pod-autoscaler"

var kind = autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")

// Loop is the horizontal pod autoscaler. Its keys are autoscalers.
type Loop struct {
	client            client.Interface
	events            events.Recorder
	metrics           Metrics
	counts            *counts
	autoscalers, pods *api.Resource

	mu sync.Mutex
	// had is what each did; selectors are those of the targets, to find pods that
	// two are about. An autoscaler that is new has a selector of nothing.
	had       map[api.Key]history
	selectors map[api.Key]labels.Selector
}

// New makes the loop; it acts as the client's identity, and counts what it does in
// a registry, if there is one.
func New(c client.Interface, recorder events.Recorder, m Metrics, r prometheus.Registerer) *Loop {
	return &Loop{
		client: c, events: recorder, metrics: m, counts: newCounts(r),
		autoscalers: c.Registry().Must("autoscaling", "horizontalpodautoscalers"), pods: c.Registry().Must("", "pods"),
		had: map[api.Key]history{}, selectors: map[api.Key]labels.Selector{},
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return Name }

// Sources are autoscalers that come, go or are changed by others.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{{Resource: l.autoscalers, Keys: func(old, new api.Object) []api.Key {
		o := new
		if o == nil {
			o = old
		} else if old != nil && old.GetUID() == new.GetUID() && old.GetGeneration() == new.GetGeneration() {
			return nil // its status, mostly
		}
		return []api.Key{{Namespace: o.GetNamespace(), Name: o.GetName()}}
	}}}
}

// Step looks at one autoscaler. What keeps it from scaling is said on the object;
// it is tried again after the usual time.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	h, ok := l.client.View().Get(l.autoscalers, key).(*autoscalingv2.HorizontalPodAutoscaler)
	if !ok || h.DeletionTimestamp != nil {
		l.forget(key)
		return 0, nil
	}
	s := snapshot{autoscaler: h, now: now, had: l.historyOf(key)}
	row, scale, err := l.scaleOf(h)
	if err != nil {
		d := unknown(h, err, s.had, now)
		l.counts.observe(s, d, false)
		return syncPeriod, l.write(ctx, h, d)
	}
	s.target = target{replicas: scale.Spec.Replicas, current: scale.Status.Replicas, selector: scale.Status.Selector}
	l.look(ctx, key, &s)
	d, done := plan(s), false
	if d.rescale {
		next := scale.DeepCopy()
		next.Spec.Replicas = d.size
		switch _, err := l.client.Update(ctx, row, next, "scale"); {
		case err == nil:
			d, done = d.done(s), true
		case apierrors.IsConflict(err), errors.Is(err, ctx.Err()):
			return 0, fmt.Errorf("scale %s %s/%s: %w", row.Kind, h.Namespace, scale.Name, err)
		default:
			d = d.refused(s, err)
		}
	}
	l.counts.observe(s, d, done)
	l.mu.Lock()
	l.had[key] = d.had
	l.mu.Unlock()
	return syncPeriod, l.write(ctx, h, d)
}

// look completes a snapshot by pods and metrics, if they are needed.
func (l *Loop) look(ctx context.Context, key api.Key, s *snapshot) {
	selector, err := labels.Parse(s.target.selector)
	if err != nil || s.target.selector == "" || !measures(s.autoscaler, s.target) {
		return
	}
	for o := range l.client.View().List(l.pods, key.Namespace) {
		if selector.Matches(labels.Set(o.GetLabels())) {
			s.pods = append(s.pods, o.(*corev1.Pod))
		}
	}
	if s.rivals = l.selecting(key, selector, s.pods); len(s.rivals) <= 1 {
		s.measured = l.measure(ctx, s.autoscaler, selector)
	}
}

// historyOf notes that there is an autoscaler, and says what it did.
func (l *Loop) historyOf(key api.Key) history {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.selectors[key] == nil {
		l.selectors[key] = labels.Nothing()
		l.counts.known(len(l.selectors))
	}
	return l.had[key]
}

func (l *Loop) forget(key api.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.had, key)
	delete(l.selectors, key)
	l.counts.known(len(l.selectors))
	l.counts.forget(key)
}

// selecting notes an autoscaler's selector, and answers with some autoscalers
// that are about one of the pods, at most two, in the order of their names.
func (l *Loop) selecting(key api.Key, selector labels.Selector, pods []*corev1.Pod) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.selectors[key] = selector
	var out []string
	for other, its := range l.selectors {
		if other.Namespace == key.Namespace && slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return its.Matches(labels.Set(p.Labels)) }) {
			out = append(out, other.String())
		}
	}
	slices.Sort(out)
	return out[:min(len(out), 2)]
}

// scaleOf reads the scale of an autoscaler's target, in the preferred version
// that has one.
func (l *Loop) scaleOf(h *autoscalingv2.HorizontalPodAutoscaler) (*api.Resource, *autoscalingv1.Scale, error) {
	ref := h.Spec.ScaleTargetRef
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, nil, err
	}
	unserved := error(&apimeta.NoKindMatchError{GroupKind: schema.GroupKind{Group: gv.Group, Kind: ref.Kind}})
	for _, served := range l.client.Registry().Served() {
		if served.Version.Group != gv.Group || served.Kind != ref.Kind {
			continue
		}
		row := served.Resource
		sub := row.Subresources["scale"]
		if sub == nil {
			unserved = noScale(served, ref.Name)
			continue
		}
		obj := l.client.View().Get(row, api.Key{Namespace: h.Namespace, Name: ref.Name})
		if obj == nil {
			return nil, nil, apierrors.NewNotFound(row.GroupResource(), ref.Name)
		}
		body, err := sub.Get(obj)
		if err != nil {
			return nil, nil, err
		}
		scale, ok := body.(*autoscalingv1.Scale)
		if !ok {
			return nil, nil, fmt.Errorf("the scale of %s is a %T", row.GroupResource(), body)
		}
		return row, scale, nil
	}
	return nil, nil, unserved
}

// noScale is what a server says to who asks for the scale of a kind that has none:
// of a definition's, that the object is missing.
func noScale(served *api.Served, name string) error {
	if served.Version.Decode != nil {
		return apierrors.NewNotFound(served.GroupResource(), name)
	}
	return apierrors.NewGenericServerResponse(404, "get", schema.GroupResource{}, "", "", 0, false)
}

// write tells the events of a decision and stores its status.
func (l *Loop) write(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, d decision) error {
	about := events.About(kind, h, "")
	for _, e := range d.events {
		l.events.Event(about, e.kind, e.reason, e.message)
	}
	if equality.Semantic.DeepEqual(h.Status, d.status) {
		return nil
	}
	next := h.DeepCopy()
	next.Status = d.status
	_, err := l.client.Update(ctx, l.autoscalers, next, "status")
	switch {
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case !apierrors.IsConflict(err):
		l.events.Event(about, events.Warning, "FailedUpdateStatus", err.Error())
	}
	return fmt.Errorf("write status of autoscaler %s/%s: %w", h.Namespace, h.Name, err)
}
