// Package disruption counts the pods of PodDisruptionBudgets, so that evictions
// know how many of them can be spared, and takes back marks of disruptions that
// did not come.
//
// It writes only what budgets allow; what they let go is noted by the eviction
// itself, in the version of the status that it read, so that neither ever
// overlooks the other.
package disruption

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/podstate"
)

// Name is the loop's identity.
const Name = "disruption-controller"

var (
	kind    = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")
	podKind = corev1.SchemeGroupVersion.WithKind("Pod")
)

// Loop is the disruption controller. Its keys are budgets, and pods to look at
// for themselves, whose names stand behind podPrefix.
type Loop struct {
	client  client.Interface
	events  events.Recorder
	budgets *api.Resource
	pods    *api.Resource
	sets    *api.Resource

	mu sync.Mutex
	// strange are budgets with pods whose owner is of a kind that is not served,
	// or not scaled: they wait for kinds to change. Guarded by mu.
	strange map[api.Key]bool
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{
		client: c, events: recorder, strange: map[api.Key]bool{},
		budgets: r.Must(policyv1.GroupName, "poddisruptionbudgets"), pods: r.Must("", "pods"), sets: r.Must("apps", "replicasets"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return Name }

// Sources are budgets, pods, and whatever has replicas.
func (l *Loop) Sources() []controller.Source {
	sources := []controller.Source{{Resource: l.budgets}, {Resource: l.pods, Keys: l.keysOfPod}}
	for _, r := range l.client.Registry().Resources() {
		if scales(r) {
			sources = append(sources, controller.Source{Resource: r, Keys: l.keysOfOwner})
		}
	}
	return sources
}

// Waiting are the budgets that other kinds may help.
func (l *Loop) Waiting() []api.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []api.Key
	for key := range l.strange {
		keys = append(keys, key)
	}
	return keys
}

func (l *Loop) wait(key api.Key, strange bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if strange {
		l.strange[key] = true
	} else {
		delete(l.strange, key)
	}
}

// podPrefix begins the names in keys of pods; no budget's name has a slash.
const podPrefix = "pods/"

func podKey(p api.Object) api.Key {
	return api.Key{Namespace: p.GetNamespace(), Name: podPrefix + p.GetName()}
}

// keysOfPod are the budgets that a change of a pod may concern, and the pod
// itself if it is marked, or has come under several budgets.
func (l *Loop) keysOfPod(old, new api.Object) []api.Key {
	var keys []api.Key
	if new != nil {
		if yes, _ := marked(new.(*corev1.Pod), time.Time{}); yes {
			keys = append(keys, podKey(new))
		}
	}
	if old != nil && new != nil && !concerns(old.(*corev1.Pod), new.(*corev1.Pod)) {
		return keys
	}
	of := l.budgetsOf(new)
	if old == nil || new == nil || !labels.Equals(old.GetLabels(), new.GetLabels()) {
		if len(of) > 1 {
			keys = append(keys, podKey(new))
		}
		of = append(of, l.budgetsOf(old)...)
	}
	return append(keys, of...)
}

// concerns says whether a change of a pod can change what its budgets allow.
func concerns(a, b *corev1.Pod) bool {
	return a.UID != b.UID || podstate.Ready(a) != podstate.Ready(b) || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) ||
		!labels.Equals(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

// keysOfOwner are the budgets that may have pods of something with replicas. It
// does not look at them: a custom resource may have to be converted for that.
func (l *Loop) keysOfOwner(old, new api.Object) []api.Key {
	any := new
	if any == nil {
		any = old
	}
	if old != nil && new != nil && old.GetGeneration() == new.GetGeneration() && len(old.GetOwnerReferences()) == len(new.GetOwnerReferences()) {
		return nil
	}
	var keys []api.Key
	for o := range l.client.View().List(l.budgets, any.GetNamespace()) {
		keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
	}
	return keys
}

// budgetsOf are the budgets that select a pod. Without a pod there are none.
func (l *Loop) budgetsOf(p api.Object) []api.Key {
	if p == nil {
		return nil
	}
	var keys []api.Key
	for o := range l.client.View().List(l.budgets, p.GetNamespace()) {
		s, err := metav1.LabelSelectorAsSelector(o.(*policyv1.PodDisruptionBudget).Spec.Selector)
		if err == nil && s.Matches(labels.Set(p.GetLabels())) {
			keys = append(keys, api.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
		}
	}
	return keys
}

// Step computes what a budget allows, or looks after one pod.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	if name, ok := strings.CutPrefix(key.Name, podPrefix); ok {
		return l.lookAfter(ctx, api.Key{Namespace: key.Namespace, Name: name}, now)
	}
	b, ok := l.client.View().Get(l.budgets, key).(*policyv1.PodDisruptionBudget)
	if !ok {
		l.wait(key, false)
		return 0, nil
	}
	v, why := l.count(key, b, now)
	status := v.status
	if why != nil {
		status = failed(b, why, now)
	}
	for _, p := range v.late {
		l.events.Event(events.About(podKind, p, ""), corev1.EventTypeWarning, "NotDeleted",
			fmt.Sprintf("Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name))
	}
	if equality.Semantic.DeepEqual(status, b.Status) {
		return v.after, nil
	}
	changed := b.DeepCopy()
	changed.Status = status
	if _, err := l.client.Update(ctx, l.budgets, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update status of disruption budget %s: %w", key, err)
	}
	return v.after, nil
}

// count finds the pods of a budget and their owners, plans, and tells of what is
// odd about them.
func (l *Loop) count(key api.Key, b *policyv1.PodDisruptionBudget, now time.Time) (verdict, error) {
	say := func(kindOf, reason, message string) {
		l.events.Event(events.About(kind, b, ""), kindOf, reason, message)
	}
	pods, err := l.selected(b)
	if err != nil {
		say(corev1.EventTypeWarning, "NoPods", "Failed to get pods: "+err.Error())
		return verdict{}, err
	}
	if len(pods) == 0 && b.Status.ObservedGeneration != b.Generation {
		say(corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	var scale int32
	unmanaged := false
	if byScale(&b.Spec) {
		scale, unmanaged, err = replicas(pods, l.ownerOf)
		l.wait(key, err != nil)
	}
	var v verdict
	if err == nil {
		v, err = plan(b, pods, scale, now)
	}
	if err != nil {
		say(corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: "+err.Error())
		return verdict{}, err
	}
	if unmanaged && !equality.Semantic.DeepEqual(v.status, b.Status) {
		say(corev1.EventTypeWarning, "UnmanagedPods", fmt.Sprintf("Pods selected by this PodDisruptionBudget (selector: %v) were found to be unmanaged. "+
			"As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector))
	}
	return v, nil
}

// selected are the pods of a budget, ended ones too.
func (l *Loop) selected(b *policyv1.PodDisruptionBudget) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil || b.Spec.Selector == nil {
		return nil, err
	}
	some := l.client.View().List(l.pods, b.Namespace)
	for k, v := range b.Spec.Selector.MatchLabels {
		some = l.client.View().ByIndex(l.pods, api.IndexLabel, k+"="+v)
		break
	}
	var pods []*corev1.Pod
	for o := range some {
		if o.GetNamespace() == b.Namespace && selector.Matches(labels.Set(o.GetLabels())) {
			pods = append(pods, o.(*corev1.Pod))
		}
	}
	return pods, nil
}

// lookAfter takes a stale mark from a pod, and tells of several budgets that
// select it: it cannot be evicted.
func (l *Loop) lookAfter(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	p, ok := l.client.View().Get(l.pods, key).(*corev1.Pod)
	if !ok {
		return 0, nil
	}
	if of := l.budgetsOf(p); len(of) > 1 {
		l.events.Event(events.About(podKind, p, ""), corev1.EventTypeWarning, "MultiplePodDisruptionBudgets",
			fmt.Sprintf("Pod %q/%q matches multiple PodDisruptionBudgets.  Chose %q arbitrarily.", p.Namespace, p.Name, of[0].Name))
	}
	yes, left := marked(p, now)
	if !yes || left > 0 {
		return left, nil
	}
	if _, err := l.client.Update(ctx, l.pods, unmark(p, now), "status"); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("take the stale mark from pod %s: %w", key, err)
	}
	return 0, nil
}
