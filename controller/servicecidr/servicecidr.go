// Package servicecidr looks after the ranges of service addresses: they are
// marked as ready, kept while services have their addresses, and the range that
// the server was started with is among them.
package servicecidr

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

var kind = networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR")

// Loop is the ServiceCIDR controller.
type Loop struct {
	client         client.Interface
	events         events.Recorder
	ranges, claims *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{
		client: c, events: recorder,
		ranges: c.Registry().Must("networking.k8s.io", "servicecidrs"),
		claims: c.Registry().Must("networking.k8s.io", "ipaddresses"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "service-cidrs-controller" }

// Sources are the ranges, of which each may keep others, and the claims, which
// keep those that are being deleted.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.ranges, Keys: func(old, new api.Object) []api.Key {
			if old != nil && new != nil {
				return []api.Key{{Name: new.GetName()}}
			}
			keys := l.going()
			if new != nil {
				keys = append(keys, api.Key{Name: new.GetName()})
			}
			return keys
		}},
		{Resource: l.claims, Keys: func(old, new api.Object) []api.Key {
			if old != nil && new != nil {
				return nil
			}
			return l.going()
		}},
	}
}

// going are the ranges that are being deleted.
func (l *Loop) going() []api.Key {
	var keys []api.Key
	for o := range l.client.View().List(l.ranges, "") {
		if o.GetDeletionTimestamp() != nil {
			keys = append(keys, api.Key{Name: o.GetName()})
		}
	}
	return keys
}

// Step looks after one range.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	view := l.client.View()
	c, ok := view.Get(l.ranges, key).(*networkingv1.ServiceCIDR)
	if !ok {
		return 0, nil
	}
	var all []*networkingv1.ServiceCIDR
	var claims []*networkingv1.IPAddress
	if c.DeletionTimestamp != nil {
		for o := range view.List(l.ranges, "") {
			all = append(all, o.(*networkingv1.ServiceCIDR))
		}
		for o := range view.List(l.claims, "") {
			if o.GetLabels()[networkingv1.LabelManagedBy] == kinds.ServiceAddressManager {
				claims = append(claims, o.(*networkingv1.IPAddress))
			}
		}
	}
	a := plan(c, all, claims, now)
	if err := l.act(ctx, c, a); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("look after service CIDR %s: %w", key, err)
	}
	return a.after, nil
}

func (l *Loop) act(ctx context.Context, c *networkingv1.ServiceCIDR, a actions) error {
	ref := api.RefTo(l.ranges, c)
	if a.protect {
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"finalizers":[%q]}}`, c.UID, Finalizer)
		if _, err := l.client.Patch(ctx, ref, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, ""); err != nil {
			return err
		}
	}
	if a.release {
		_, err := l.client.Patch(ctx, ref, types.StrategicMergePatchType, controller.DropFinalizer(c, Finalizer), metav1.PatchOptions{}, "")
		return err
	}
	if a.condition == nil {
		return nil
	}
	err := applyCondition(ctx, l.client, ref, *a.condition, "service-cidr-controller")
	if err != nil && !apierrors.IsNotFound(err) && a.condition.Status == metav1.ConditionTrue {
		l.events.Event(events.About(kind, c, ""), corev1.EventTypeWarning, "KubernetesServiceCIDRError", "The ServiceCIDR Status can not be set to Ready=True")
	}
	return err
}

// applyCondition writes a condition as a manager of its own, whoever had it
// before.
func applyCondition(ctx context.Context, c client.Interface, ref api.Ref, condition metav1.Condition, manager string) error {
	patch, err := json.Marshal(map[string]any{
		"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": kind.Kind, "metadata": map[string]any{"name": ref.Name},
		"status": map[string]any{"conditions": []metav1.Condition{condition}},
	})
	if err != nil {
		return err
	}
	_, err = c.Patch(ctx, ref, types.ApplyYAMLPatchType, patch, metav1.PatchOptions{FieldManager: manager, Force: ptr.To(true)}, "status")
	return err
}
