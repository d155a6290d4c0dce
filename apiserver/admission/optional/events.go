package optional

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/apiserver/admission"
)

// EventRateLimit keeps events from being written faster than is good for a
// cluster.
type EventRateLimit struct {
	clock  clock.PassiveClock
	limits []*eventLimit
}

type eventLimit struct {
	Type      string `json:"type"`
	QPS       int32  `json:"qps"`       // events a second
	Burst     int32  `json:"burst"`     // events at once
	CacheSize int32  `json:"cacheSize"` // how many keys are remembered; 0 is 4096

	buckets *lru.Cache // rate.Limiter by key
}

const defaultBuckets = 4096

// keys are what an event shares its limit by.
var keys = map[string]func(a *admission.Attributes) string{
	"Server":    func(*admission.Attributes) string { return "" },
	"Namespace": func(a *admission.Attributes) string { return a.Namespace },
	"User":      func(a *admission.Attributes) string { return a.User.GetName() },
	"SourceAndObject": func(a *admission.Attributes) string {
		e, ok := a.Object.(*corev1.Event)
		if !ok {
			return ""
		}
		o := e.InvolvedObject
		return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
	},
}

func newEventRateLimit(file []byte, clk clock.PassiveClock) (*EventRateLimit, error) {
	var c struct {
		APIVersion string        `json:"apiVersion"`
		Kind       string        `json:"kind"`
		Limits     []*eventLimit `json:"limits"`
	}
	if len(file) == 0 {
		return nil, errors.New("it needs limits; give them in the file of --admission-control-config-file")
	}
	if err := yaml.UnmarshalStrict(file, &c); err != nil {
		return nil, err
	}
	if err := expect(c.APIVersion, c.Kind, "eventratelimit.admission.k8s.io/v1alpha1"); err != nil {
		return nil, err
	}
	if len(c.Limits) == 0 {
		return nil, errors.New("limits: there must be at least one")
	}
	for i, l := range c.Limits {
		switch {
		case keys[l.Type] == nil:
			return nil, fmt.Errorf("limits[%d].type: %q is not Server, Namespace, User or SourceAndObject", i, l.Type)
		case l.QPS <= 0:
			return nil, fmt.Errorf("limits[%d].qps: %d is not positive", i, l.QPS)
		case l.Burst <= 0:
			return nil, fmt.Errorf("limits[%d].burst: %d is not positive", i, l.Burst)
		case l.CacheSize < 0:
			return nil, fmt.Errorf("limits[%d].cacheSize: %d is negative", i, l.CacheSize)
		}
		size := int(l.CacheSize)
		if size == 0 {
			size = defaultBuckets
		}
		l.buckets = lru.New(size)
	}
	return &EventRateLimit{clk, c.Limits}, nil
}

// Validate implements admission.Validator.
func (x *EventRateLimit) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Resource.Kind != "Event" || a.DryRun || a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	var errs []error
	for _, l := range x.limits {
		key := keys[l.Type](a)
		bucket, ok := l.buckets.Get(key)
		if !ok {
			bucket = rate.NewLimiter(rate.Limit(l.QPS), int(l.Burst))
			l.buckets.Add(key, bucket)
		}
		if !bucket.(*rate.Limiter).AllowN(x.clock.Now(), 1) {
			errs = append(errs, fmt.Errorf("limit reached on type %v for key %v", l.Type, key))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return apierrors.NewTooManyRequestsError(err.Error())
	}
	return nil
}
