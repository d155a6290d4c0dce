// Package deployment rolls Deployments out: it keeps one ReplicaSet for each
// revision of a pod template and moves pods from the old ones to the new.
package deployment

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
)

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("Deployment")
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
)

// Loop is the Deployment controller.
type Loop struct {
	client      client.Interface
	events      events.Recorder
	deployments *api.Resource
	sets        *api.Resource
	pods        *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	return &Loop{client: c, events: recorder, deployments: r.Must("apps", "deployments"), sets: r.Must("apps", "replicasets"), pods: r.Must("", "pods")}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "deployment-controller" }

// Sources are the deployments, their sets, and the ends of pods, for which a
// deployment that recreates waits.
func (l *Loop) Sources() []controller.Source {
	return []controller.Source{
		{Resource: l.deployments},
		{Resource: l.sets, Keys: func(old, new api.Object) []api.Key {
			return controller.KeysOfOwners(old, new, "Deployment", func(rs api.Object) []api.Key {
				return controller.KeysThatSelect(l.client.View(), l.deployments, rs, func(o api.Object) *metav1.LabelSelector {
					return o.(*appsv1.Deployment).Spec.Selector
				})
			})
		}},
		{Resource: l.pods, Keys: l.ownerOfEndedPod},
	}
}

func (l *Loop) ownerOfEndedPod(old, new api.Object) []api.Key {
	if old == nil || new != nil {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(old)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	rs := l.client.View().Get(l.sets, api.Key{Namespace: old.GetNamespace(), Name: ref.Name})
	if rs == nil {
		return nil
	}
	return controller.KeysOfOwners(rs, nil, "Deployment", nil)
}

// Step takes a rollout one step further, and writes down where it is.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	d, ok := l.client.View().Get(l.deployments, key).(*appsv1.Deployment)
	if !ok {
		return 0, nil
	}
	s, err := l.look(ctx, d)
	if err != nil {
		return 0, err
	}
	if s.current != nil && d.DeletionTimestamp == nil {
		if s.current, err = l.refresh(ctx, s); err != nil {
			return 0, err
		}
	}
	dec := plan(s)
	if revision, asked := backTo(d); asked {
		if s.current != nil {
			return 0, l.goBack(ctx, d, s.all(), revision)
		}
		dec = decision{create: true} // what it goes back from is a revision, too
	}
	failed := l.act(ctx, &s, dec)
	st, after := status(s, now)
	if err := l.report(ctx, s, st); err != nil {
		return 0, err
	}
	return after, failed
}

// look gathers the deployment's sets, adopting and releasing as its selector
// says.
func (l *Loop) look(ctx context.Context, d *appsv1.Deployment) (snapshot, error) {
	view := l.client.View()
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return snapshot{}, fmt.Errorf("selector of deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	candidates := controller.Candidates[*appsv1.ReplicaSet](view, l.sets, d)
	owner := controller.Owner{Resource: l.deployments, Kind: kind, Object: d}
	sets, err := controller.Settle(ctx, l.client, owner, l.sets, controller.Claim(d, selector, candidates))
	if err != nil {
		return snapshot{}, err
	}
	s := standIn(d, sets)
	for _, rs := range s.old {
		for o := range view.ByIndex(l.pods, api.IndexOwner, string(rs.UID)) {
			if p := o.(*corev1.Pod); p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
				s.oldPods = true
			}
		}
	}
	return s, nil
}

// standIn looks for the set that the deployment asks for, and for the one that is
// rolled out instead where that one failed (design/rollback.md). What follows
// then sees a deployment that asks for the latter.
func standIn(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) snapshot {
	s := snapshot{d: d}
	s.current, s.old = split(d, sets)
	if _, on := onfailure.Read(d.Annotations); !on || s.current == nil {
		return s
	}
	if f := onfailure.FailureOf(s.current, revisionOf(s.current)); f != nil {
		s.failed = failedText(f)
		good, held := onfailure.Held(d, s.current, sets, func(rs *appsv1.ReplicaSet) int64 { return revisionOf(rs) })
		if !held {
			return s
		}
		instead := *d
		instead.Spec.Template = good.Spec.Template
		instead.Spec.Template.Labels = controller.WithoutHash(good.Spec.Template.Labels)
		s.d, s.asked = &instead, s.current
		s.current, s.old = split(s.d, sets)
		return s
	}
	from, to := onfailure.Undone(d)
	if to != s.current.Name {
		return s
	}
	s.failed = failedPrefix + "was rolled back"
	for _, rs := range s.old {
		if f := onfailure.FailureOf(rs, revisionOf(rs)); f != nil && rs.Name == from {
			s.failed = failedText(f)
		}
	}
	return s
}

// refresh brings annotations and minReadySeconds of the current set up to date.
func (l *Loop) refresh(ctx context.Context, s snapshot) (*appsv1.ReplicaSet, error) {
	rs := s.current.DeepCopy()
	changed := annotate(rs, s.d, lastRevision(s.old)+1)
	if rs.Spec.MinReadySeconds != s.d.Spec.MinReadySeconds {
		rs.Spec.MinReadySeconds = s.d.Spec.MinReadySeconds
		changed = true
	}
	if !changed {
		return s.current, nil
	}
	return l.updateSet(ctx, rs)
}

func (l *Loop) updateSet(ctx context.Context, rs *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
	o, err := l.client.Update(ctx, l.sets, rs, "")
	if err != nil {
		return nil, fmt.Errorf("update replica set %s/%s: %w", rs.Namespace, rs.Name, err)
	}
	return o.(*appsv1.ReplicaSet), nil
}

// act carries out a decision and keeps the snapshot up to date with it.
func (l *Loop) act(ctx context.Context, s *snapshot, dec decision) error {
	if dec.create {
		if err := l.create(ctx, s, dec.size); err != nil {
			return err
		}
	}
	for _, sc := range dec.scale {
		if err := l.scale(ctx, s, sc); err != nil {
			return err
		}
	}
	for _, rs := range dec.remove {
		err := l.client.Delete(ctx, api.RefTo(l.sets, rs), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &rs.UID, ResourceVersion: &rs.ResourceVersion}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete old replica set %s/%s: %w", rs.Namespace, rs.Name, err)
		}
	}
	return nil
}

// create makes the current set.
func (l *Loop) create(ctx context.Context, s *snapshot, n int32) error {
	rs, err := newSet(s.d, lastRevision(s.old)+1)
	if err != nil {
		return err
	}
	rs.Spec.Replicas = &n
	sized(rs, s.d)
	name := rs.Name
	o, err := l.client.Create(ctx, l.sets, rs, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		// Another template has the same hash: the next hash is tried once the
		// count is in the status, whose change wakes us.
		s.collided = true
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace takes the deployment along
	case err != nil:
		s.refused = fmt.Sprintf("Failed to create new replica set %q: %v", name, err)
		l.events.Event(events.About(kind, s.d, ""), corev1.EventTypeWarning, reasonNotCreated, s.refused)
		return fmt.Errorf("create replica set %s/%s: %w", s.d.Namespace, name, err)
	}
	s.current, s.created = o.(*appsv1.ReplicaSet), true
	if n > 0 {
		l.say(s.d, "Scaled up replica set %s from 0 to %d", name, n)
	}
	return nil
}

func (l *Loop) scale(ctx context.Context, s *snapshot, sc scaling) error {
	rs, from := sc.set.DeepCopy(), size(sc.set)
	rs.Spec.Replicas = &sc.to
	if !sized(rs, s.d) && from == sc.to {
		return nil
	}
	rs, err := l.updateSet(ctx, rs)
	if err != nil {
		return err
	}
	switch {
	case sc.to > from:
		l.say(s.d, "Scaled up replica set %s from %d to %d", rs.Name, from, sc.to)
	case sc.to < from:
		l.say(s.d, "Scaled down replica set %s from %d to %d", rs.Name, from, sc.to)
	}
	if s.current == sc.set {
		s.current = rs
		return nil
	}
	for i := range s.old {
		if s.old[i] == sc.set {
			s.old[i] = rs
		}
	}
	return nil
}

func (l *Loop) say(d *appsv1.Deployment, format string, args ...any) {
	l.events.Event(events.About(kind, d, ""), corev1.EventTypeNormal, "ScalingReplicaSet", fmt.Sprintf(format, args...))
}

// report writes the status, and with it the revision that kubectl shows, if
// they changed. Both go by the status, as in Kubernetes: a revision is no new
// generation.
func (l *Loop) report(ctx context.Context, s snapshot, st appsv1.DeploymentStatus) error {
	d := s.d
	revision := d.Annotations[revisionAnnotation]
	if s.current != nil && d.DeletionTimestamp == nil && revisionOf(s.current) != 0 {
		revision = s.current.Annotations[revisionAnnotation]
	}
	if equality.Semantic.DeepEqual(st, d.Status) && revision == d.Annotations[revisionAnnotation] {
		return nil
	}
	changed := d.DeepCopy()
	changed.Status = st
	if revision != "" {
		if changed.Annotations == nil {
			changed.Annotations = map[string]string{}
		}
		changed.Annotations[revisionAnnotation] = revision
	}
	if _, err := l.client.Update(ctx, l.deployments, changed, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	return nil
}
