// Package namespace empties namespaces that are being deleted, and then lets
// them go.
package namespace

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// Loop is the namespace controller.
type Loop struct {
	client     client.Interface
	remote     Remote
	namespaces *api.Resource
	pods       *api.Resource
}

// Remote is what other servers have in namespaces.
type Remote interface {
	// Unknown are the group-versions whose servers do not say what they serve, each
	// with why not, in order.
	Unknown() []string
	// Empty deletes what they have in a namespace, and answers with how many objects
	// of each PLURAL.GROUP are left, and how many have each finalizer.
	Empty(ctx context.Context, namespace string) (kinds, finalizers map[string]int, err error)
}

// poll is when other servers are asked again that have something left, or do not
// answer: nothing tells when that changes.
const poll = 5 * time.Second

// New makes the loop; it acts as the client's identity. remote is nil where all is
// in the store.
func New(c client.Interface, remote Remote) *Loop {
	return &Loop{client: c, remote: remote, namespaces: c.Registry().Must("", "namespaces"), pods: c.Registry().Must("", "pods")}
}

// contents are what a namespace may hold, pods too.
func (l *Loop) contents() (out []*api.Resource) {
	for _, r := range l.client.Registry().Resources() {
		if r.Namespaced && r.Prefix != "" && r.Offers("delete") {
			out = append(out, r)
		}
	}
	return out
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "namespace-controller" }

// Sources are the namespaces, and what vanishes from one that is being deleted.
func (l *Loop) Sources() []controller.Source {
	sources := []controller.Source{{Resource: l.namespaces}}
	for _, r := range l.contents() {
		sources = append(sources, controller.Source{Resource: r, Keys: func(old, new api.Object) []api.Key {
			o := new
			if o == nil {
				o = old
			}
			key := api.Key{Name: o.GetNamespace()}
			if ns := l.client.View().Get(l.namespaces, key); ns == nil || ns.GetDeletionTimestamp() == nil {
				return nil
			}
			return []api.Key{key}
		}})
	}
	return sources
}

// Step deletes what is left in a namespace, tells what it waits for, and
// finalizes the namespace once nothing is left. Pods go first: what they use
// stays until they have ended (documentation: "Namespaces", "Ordered deletion").
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	ns, ok := l.client.View().Get(l.namespaces, key).(*corev1.Namespace)
	if !ok || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	left, failed := l.empty(ctx, ns.Name, l.pods)
	if failed == nil && len(left.kinds) == 0 {
		left, failed = l.empty(ctx, ns.Name, l.contents()...)
	}
	var unknown []string
	var after time.Duration
	if l.remote != nil {
		unknown = l.remote.Unknown()
		kinds, finalizers, err := l.remote.Empty(ctx, ns.Name)
		left.join(kinds, finalizers)
		if failed == nil {
			failed = err
		}
		if len(unknown) > 0 || len(kinds) > 0 {
			after = poll
		}
	}
	if err := l.report(ctx, ns, left, unknown, failed, now); err != nil {
		return 0, err
	}
	if failed != nil || len(left.kinds) > 0 || len(unknown) > 0 {
		return after, failed // what vanishes wakes us
	}
	done := ns.DeepCopy()
	done.ResourceVersion = "" // nobody else takes this finalizer away
	done.Spec.Finalizers = slices.DeleteFunc(done.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	if _, err := l.client.Update(ctx, l.namespaces, done, "finalize"); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("finalize namespace %s: %w", ns.Name, err)
	}
	return 0, nil
}

// empty deletes the objects of some kinds, and answers with what is still there.
func (l *Loop) empty(ctx context.Context, namespace string, kinds ...*api.Resource) (left remains, failed error) {
	for _, r := range kinds {
		if err := l.clear(ctx, r, namespace); err != nil && failed == nil {
			failed = err
		}
		for o := range l.client.View().List(r, namespace) {
			left.add(r, o)
		}
	}
	return left, failed
}

// clear deletes all objects of one kind in a namespace; some may take their
// time. Pods that others want to stop before stay until those are gone.
func (l *Loop) clear(ctx context.Context, r *api.Resource, namespace string) error {
	var live []api.Object
	var held map[types.UID]bool
	if r == l.pods {
		held = dependency.Graph{Registry: l.client.Registry(), View: l.client.View()}.Held(namespace)
	}
	for o := range l.client.View().List(r, namespace) {
		if o.GetDeletionTimestamp() == nil && !held[o.GetUID()] {
			live = append(live, o)
		}
	}
	background := metav1.DeletePropagationBackground
	return controller.AtOnce(ctx, len(live), func(ctx context.Context, i int) error {
		o, uid := live[i], live[i].GetUID()
		err := l.client.Delete(ctx, api.RefTo(r, o), metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &uid}})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return fmt.Errorf("delete %s: %w", api.RefTo(r, o), err)
	})
}

// remains counts what a namespace still holds.
type remains struct {
	kinds      map[string]int
	finalizers map[string]int
}

func (l *remains) add(r *api.Resource, o api.Object) {
	if l.kinds == nil {
		l.kinds, l.finalizers = map[string]int{}, map[string]int{}
	}
	// The group is named even where it is empty, as upstream has it: "pods."
	l.kinds[r.Plural+"."+r.Group]++
	for _, f := range o.GetFinalizers() {
		l.finalizers[f]++
	}
}

// join adds what others have counted.
func (l *remains) join(kinds, finalizers map[string]int) {
	if l.kinds == nil {
		l.kinds, l.finalizers = map[string]int{}, map[string]int{}
	}
	for name, n := range kinds {
		l.kinds[name] += n
	}
	for name, n := range finalizers {
		l.finalizers[name] += n
	}
}

func list(counts map[string]int, format string) string {
	var parts []string
	for name, n := range counts {
		parts = append(parts, fmt.Sprintf(format, name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// report keeps the conditions by which a namespace tells why it is still there.
func (l *Loop) report(ctx context.Context, ns *corev1.Namespace, left remains, unknown []string, failed error, now time.Time) error {
	changed := ns.DeepCopy()
	set := func(kind corev1.NamespaceConditionType, bad bool, badReason, badMessage, goodReason, goodMessage string) {
		c := corev1.NamespaceCondition{Type: kind, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodMessage, LastTransitionTime: metav1.NewTime(now)}
		if bad {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, badReason, badMessage
		}
		for i, was := range changed.Status.Conditions {
			if was.Type == kind {
				if was.Status == c.Status {
					c.LastTransitionTime = was.LastTransitionTime
				}
				changed.Status.Conditions[i] = c
				return
			}
		}
		changed.Status.Conditions = append(changed.Status.Conditions, c)
	}
	failure := ""
	if failed != nil {
		failure = "Failed to delete all resource types, 1 remaining: " + failed.Error()
	}
	undiscovered := fmt.Sprintf("Discovery failed for some groups, %d failing: unable to retrieve the complete list of server APIs: %s", len(unknown), strings.Join(unknown, ", "))
	set(corev1.NamespaceDeletionDiscoveryFailure, len(unknown) > 0, "DiscoveryFailed", undiscovered, "ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, failed != nil, "ContentDeletionFailed", failure, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	set(corev1.NamespaceContentRemaining, len(left.kinds) > 0, "SomeResourcesRemain", "Some resources are remaining: "+list(left.kinds, "%s has %d resource instances"), "ContentRemoved", "All content successfully removed")
	set(corev1.NamespaceFinalizersRemaining, len(left.finalizers) > 0, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+list(left.finalizers, "%s in %d resource instances"), "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	if equality.Semantic.DeepEqual(changed.Status, ns.Status) {
		return nil
	}
	if _, err := l.client.Update(ctx, l.namespaces, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of namespace %s: %w", ns.Name, err)
	}
	return nil
}
