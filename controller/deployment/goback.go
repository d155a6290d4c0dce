package deployment

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
)

// What Kubernetes says of a deployment that is to go back.
const (
	reasonWentBack   = "DeploymentRollback"
	reasonNoRevision = "DeploymentRollbackRevisionNotFound"
	reasonSame       = "DeploymentRollbackTemplateUnchanged"
)

// backTo is the revision that somebody asks to go back to, by what has been a field
// of the spec before apps/v1; 0 is the one before the last. A deployment that is
// paused or deleted does not.
func backTo(d *appsv1.Deployment) (revision int64, asked bool) {
	revision, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedRollbackTo], 10, 64)
	return revision, err == nil && !d.Spec.Paused && d.DeletionTimestamp == nil
}

// backward is a decision about that.
type backward struct {
	set             *appsv1.ReplicaSet // whose template and annotations come back; nil: none
	reason, message string             // of an event
}

// planBack looks for a revision among the sets.
func planBack(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, revision int64) backward {
	if revision == 0 {
		if revision = lastButOne(sets); revision == 0 {
			return backward{nil, reasonNoRevision, "Unable to find last revision."}
		}
	}
	for _, rs := range sets {
		switch {
		case revisionOf(rs) != revision:
		case controller.SameTemplate(&rs.Spec.Template, &d.Spec.Template):
			return backward{nil, reasonSame, fmt.Sprintf("The rollback revision contains the same template as current deployment %q", d.Name)}
		default:
			return backward{rs, reasonWentBack, fmt.Sprintf("Rolled back deployment %q to revision %d", d.Name, revision)}
		}
	}
	return backward{nil, reasonNoRevision, "Unable to find the revision to rollback to."}
}

// lastButOne is the largest revision but one; 0: there is none.
func lastButOne(sets []*appsv1.ReplicaSet) (second int64) {
	last := int64(0)
	for _, rs := range sets {
		switch n := revisionOf(rs); {
		case n >= last:
			last, second = n, last
		case n > second:
			second = n
		}
	}
	return second
}

// goBack puts an earlier template back, and in any case takes the wish away.
func (l *Loop) goBack(ctx context.Context, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, revision int64) error {
	b := planBack(d, sets, revision)
	changed := d.DeepCopy()
	if b.set != nil {
		changed.Spec.Template = *b.set.Spec.Template.DeepCopy()
		delete(changed.Spec.Template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
		maps.DeleteFunc(changed.Annotations, func(k, _ string) bool { return !notCopied[k] })
		for k, v := range b.set.Annotations {
			if !notCopied[k] {
				changed.Annotations[k] = v
			}
		}
	}
	delete(changed.Annotations, appsv1.DeprecatedRollbackTo)
	if _, err := l.client.Update(ctx, l.deployments, changed, ""); err != nil {
		return fmt.Errorf("take deployment %s/%s back: %w", d.Namespace, d.Name, err)
	}
	severity := corev1.EventTypeWarning
	if b.set != nil {
		severity = corev1.EventTypeNormal
	}
	l.events.Event(events.About(kind, d, ""), severity, b.reason, b.message)
	return nil
}
