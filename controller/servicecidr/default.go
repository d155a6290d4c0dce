package servicecidr

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

// DefaultName is what the loop of the default range is called in events and as
// the manager of fields.
const DefaultName = "kubernetes-service-cidr-controller"

// Default keeps the ServiceCIDR of the ranges that the server was started with.
// It is a part of the API server and acts as that.
type Default struct {
	client client.Interface
	events events.Recorder
	ranges *api.Resource
	cidrs  []string
	// told is what was told already, once in the life of a process.
	told map[string]bool
}

// NewDefault makes the loop; cidrs are the ranges, the primary first.
func NewDefault(c client.Interface, recorder events.Recorder, cidrs ...string) *Default {
	return &Default{client: c, events: recorder, ranges: c.Registry().Must("networking.k8s.io", "servicecidrs"), cidrs: cidrs, told: map[string]bool{}}
}

// Name is the loop's name.
func (l *Default) Name() string { return DefaultName }

// Sources is the one object.
func (l *Default) Sources() []controller.Source {
	return []controller.Source{{Resource: l.ranges, Keys: func(old, new api.Object) []api.Key {
		if o := new; o != nil && o.GetName() == kinds.DefaultServiceCIDR || new == nil && old.GetName() == kinds.DefaultServiceCIDR {
			return []api.Key{{Name: kinds.DefaultServiceCIDR}}
		}
		return nil
	}}}
}

// Step makes the range if it is missing, and says that it is ready unless
// somebody has said something already. A range that is not the one that the
// server was started with is left alone.
func (l *Default) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	c, ok := l.client.View().Get(l.ranges, key).(*networkingv1.ServiceCIDR)
	if !ok {
		made, err := l.client.Create(ctx, l.ranges, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: key.Name},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: slices.Clone(l.cidrs)},
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return 0, nil
		} else if err != nil {
			return 0, fmt.Errorf("make the default service CIDR: %w", err)
		}
		c = made.(*networkingv1.ServiceCIDR)
	}
	if c.DeletionTimestamp != nil {
		return 0, nil
	}
	if !slices.Equal(c.Spec.CIDRs, l.cidrs) {
		l.tell(c, "KubernetesDefaultServiceCIDRInconsistent", fmt.Sprintf("The default ServiceCIDR %v does not match the controller flag configurations %s", c.Spec.CIDRs, l.cidrs))
		return 0, nil
	}
	switch ready := meta.FindStatusCondition(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady); {
	case ready != nil && ready.Status == metav1.ConditionTrue:
		return 0, nil
	case ready != nil && ready.Status == metav1.ConditionFalse:
		l.tell(c, ready.Reason, "Configuration matches, but "+ready.Message)
		return 0, nil
	}
	err := applyCondition(ctx, l.client, api.RefTo(l.ranges, c), metav1.Condition{
		Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.NewTime(now),
	}, DefaultName)
	if err != nil {
		l.events.Event(events.About(kind, c, ""), corev1.EventTypeWarning, "KubernetesDefaultServiceCIDRError", "The default ServiceCIDR Status can not be set to Ready=True")
		return 0, fmt.Errorf("mark the default service CIDR as ready: %w", err)
	}
	return 0, nil
}

func (l *Default) tell(c *networkingv1.ServiceCIDR, reason, message string) {
	if !l.told[reason] {
		l.told[reason] = true
		l.events.Event(events.About(kind, c, ""), corev1.EventTypeWarning, reason, message)
	}
}
