// Package resourceclaim keeps the books of ResourceClaims: it makes those that
// pods ask for by a template, and frees those whose pods have ended.
package resourceclaim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// podPrefix begins the keys of pods; those of claims are their own.
const podPrefix = "pods/"

// Loop is the ResourceClaim controller.
type Loop struct {
	client                  client.Interface
	events                  events.Recorder
	pods, claims, templates *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	return &Loop{
		client: c, events: recorder, pods: c.Registry().Must("", "pods"),
		claims:    c.Registry().Must("resource.k8s.io", "resourceclaims"),
		templates: c.Registry().Must("resource.k8s.io", "resourceclaimtemplates"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "resource-claim-controller" }

// Sources are pods with claims, which wake their claims as well, claims, and
// templates, which pods may wait for.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.pods, Keys: func(old, new api.Object) []api.Key {
			p, ok := new.(*corev1.Pod)
			if !ok {
				p = old.(*corev1.Pod)
			}
			if len(p.Spec.ResourceClaims) == 0 {
				return nil
			}
			keys := []api.Key{podKey(p)}
			if !ok || done(p) {
				for _, entry := range p.Spec.ResourceClaims {
					if name, _ := nameOf(p, entry); name != "" {
						keys = append(keys, api.Key{Namespace: p.Namespace, Name: name})
					}
				}
			}
			return keys
		}},
		{Resource: l.claims, Keys: func(old, new api.Object) []api.Key {
			o := new
			if o == nil {
				o = old
			}
			return append(l.podsThat(o.GetNamespace(), func(p *corev1.Pod, entry corev1.PodResourceClaim) bool {
				name, _ := nameOf(p, entry)
				return name == o.GetName()
			}), api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
		}},
		{Resource: l.templates, Keys: func(_, new api.Object) []api.Key {
			if new == nil {
				return nil
			}
			return l.podsThat(new.GetNamespace(), func(_ *corev1.Pod, entry corev1.PodResourceClaim) bool {
				return ptr.Deref(entry.ResourceClaimTemplateName, "") == new.GetName()
			})
		}},
	}
}

func podKey(p *corev1.Pod) api.Key {
	return api.Key{Namespace: p.Namespace, Name: podPrefix + p.Name}
}

// podsThat are the pods of a namespace that have such an entry.
func (l *Loop) podsThat(namespace string, match func(*corev1.Pod, corev1.PodResourceClaim) bool) []api.Key {
	var keys []api.Key
	for o := range l.client.View().List(l.pods, namespace) {
		p := o.(*corev1.Pod)
		if slices.ContainsFunc(p.Spec.ResourceClaims, func(entry corev1.PodResourceClaim) bool { return match(p, entry) }) {
			keys = append(keys, podKey(p))
		}
	}
	return keys
}

// Step looks at one pod or at one claim.
func (l *Loop) Step(ctx context.Context, key api.Key, _ time.Time) (time.Duration, error) {
	view := l.client.View()
	if name, ok := strings.CutPrefix(key.Name, podPrefix); ok {
		p, ok := view.Get(l.pods, api.Key{Namespace: key.Namespace, Name: name}).(*corev1.Pod)
		if !ok || p.DeletionTimestamp != nil || done(p) {
			return 0, nil
		}
		if err := l.servePod(ctx, p); err != nil {
			return 0, fmt.Errorf("claims of pod %s/%s: %w", p.Namespace, p.Name, err)
		}
		return 0, nil
	}
	c, ok := view.Get(l.claims, key).(*resourcev1.ResourceClaim)
	if !ok {
		return 0, nil
	}
	if err := l.serveClaim(ctx, c); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("resource claim %s: %w", key, err)
	}
	return 0, nil
}

func (l *Loop) servePod(ctx context.Context, p *corev1.Pod) error {
	plan := planPod(p, seen{l, p.Namespace})
	// A missing template wakes the pod when it comes.
	for _, why := range plan.missing {
		l.failed(p, why)
	}
	for _, entry := range slices.Sorted(maps.Keys(plan.create)) {
		made, err := l.client.Create(ctx, l.claims, plan.create[entry], metav1.CreateOptions{})
		if err != nil {
			l.failed(p, fmt.Sprintf("PodResourceClaim %s: create ResourceClaim : %v", entry, err))
			return fmt.Errorf("make the claim %s: %w", entry, err)
		}
		plan.found[entry] = made.GetName()
	}
	if err := l.note(ctx, p, plan.found); err != nil {
		return err
	}
	for _, c := range plan.reserve {
		c = c.DeepCopy()
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
		if _, err := l.client.Update(ctx, l.claims, c, "status"); err != nil {
			return fmt.Errorf("reserve claim %s: %w", c.Name, err)
		}
	}
	return nil
}

func (l *Loop) failed(p *corev1.Pod, message string) {
	l.events.Event(events.About(podKind, p, ""), corev1.EventTypeWarning, "FailedResourceClaimCreation", message)
}

// note writes the names of claims into the pod's status, beside those that are
// there.
func (l *Loop) note(ctx context.Context, p *corev1.Pod, found map[string]string) error {
	if len(found) == 0 {
		return nil
	}
	names := map[string]string{}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.ResourceClaimName != nil {
			names[s.Name] = *s.ResourceClaimName
		}
	}
	maps.Copy(names, found)
	var statuses []corev1.PodResourceClaimStatus
	for _, entry := range slices.Sorted(maps.Keys(names)) {
		statuses = append(statuses, corev1.PodResourceClaimStatus{Name: entry, ResourceClaimName: ptr.To(names[entry])})
	}
	patch, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": p.Name, "namespace": p.Namespace, "uid": p.UID},
		"status": map[string]any{"resourceClaimStatuses": statuses},
	})
	if err != nil {
		return err
	}
	opts := metav1.PatchOptions{FieldManager: "ResourceClaimController", Force: ptr.To(true)}
	if _, err := l.client.Patch(ctx, api.RefTo(l.pods, p), types.ApplyYAMLPatchType, patch, opts, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("note its claims: %w", err)
	}
	return nil
}

func (l *Loop) serveClaim(ctx context.Context, c *resourcev1.ResourceClaim) error {
	pods, err := l.podsOf(ctx, c)
	if err != nil {
		return err
	}
	plan := planClaim(c, pods)
	now := c
	if plan.status {
		next := c.DeepCopy()
		next.Status.ReservedFor = plan.reservedFor
		if plan.deallocate {
			next.Status.Allocation = nil
		}
		written, err := l.client.Update(ctx, l.claims, next, "status")
		if err != nil {
			return err
		}
		now = written.(*resourcev1.ResourceClaim)
	}
	if plan.release {
		next := now.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if _, err := l.client.Update(ctx, l.claims, next, ""); err != nil {
			return err
		}
	}
	if plan.remove {
		return l.client.Delete(ctx, api.RefTo(l.claims, c), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &c.UID}})
	}
	return nil
}

// podsOf are the pods that a claim names. Those that the view does not show are
// asked of the server: taking a claim from a pod that is new would be wrong.
func (l *Loop) podsOf(ctx context.Context, c *resourcev1.ResourceClaim) (map[string]*corev1.Pod, error) {
	var names []string
	for _, r := range c.Status.ReservedFor {
		if isPod(r) {
			names = append(names, r.Name)
		}
	}
	if name, _ := podOf(c); name != "" {
		names = append(names, name)
	}
	pods := map[string]*corev1.Pod{}
	for _, name := range names {
		ref := api.Ref{Resource: l.pods, Namespace: c.Namespace, Name: name}
		p, ok := l.client.View().Get(l.pods, ref.Key()).(*corev1.Pod)
		if !ok {
			o, err := l.client.Get(ctx, ref)
			if apierrors.IsNotFound(err) {
				continue
			} else if err != nil {
				return nil, fmt.Errorf("read pod %s: %w", name, err)
			}
			p = o.(*corev1.Pod)
		}
		pods[name] = p
	}
	return pods, nil
}

// seen is a namespace as the view shows it.
type seen struct {
	*Loop
	namespace string
}

func (w seen) claim(name string) *resourcev1.ResourceClaim {
	c, _ := w.client.View().Get(w.claims, api.Key{Namespace: w.namespace, Name: name}).(*resourcev1.ResourceClaim)
	return c
}

func (w seen) template(name string) *resourcev1.ResourceClaimTemplate {
	t, _ := w.client.View().Get(w.templates, api.Key{Namespace: w.namespace, Name: name}).(*resourcev1.ResourceClaimTemplate)
	return t
}

func (w seen) generated(p *corev1.Pod, entry string) *resourcev1.ResourceClaim {
	for o := range w.client.View().ByIndex(w.claims, api.IndexOwner, string(p.UID)) {
		c := o.(*resourcev1.ResourceClaim)
		if metav1.IsControlledBy(c, p) && c.Annotations[resourcev1.PodResourceClaimAnnotation] == entry {
			return c
		}
	}
	return nil
}
