package controller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/revision"
)

// Revisions are the ControllerRevisions that belong to an owner, sorted by
// number, once those that its selector asks for are adopted and others released.
func Revisions(ctx context.Context, c client.Interface, owner Owner, selector labels.Selector) ([]*appsv1.ControllerRevision, error) {
	row := c.Registry().Must("apps", "controllerrevisions")
	candidates := Candidates[*appsv1.ControllerRevision](c.View(), row, owner.Object)
	history, err := Settle(ctx, c, owner, row, Claim(owner.Object, selector, candidates))
	if err != nil {
		return nil, err
	}
	revision.Sort(history)
	return history, nil
}

// KeepRevision makes the owner's present template the last one of its sorted
// history, and answers with that history. collided says that it could not, since
// the name is taken: the owner's status is to count that, which makes the next
// name another one.
func KeepRevision(ctx context.Context, c client.Interface, o revision.Owner, history []*appsv1.ControllerRevision) (now []*appsv1.ControllerRevision, collided bool, err error) {
	change, err := revision.Plan(o, history)
	if err != nil {
		return nil, false, err
	}
	row := c.Registry().Must("apps", "controllerrevisions")
	switch {
	case change.Create:
		made, err := c.Create(ctx, row, change.Revision, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return history, true, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("create controller revision %s/%s: %w", change.Revision.Namespace, change.Revision.Name, err)
		}
		return append(history, made.(*appsv1.ControllerRevision)), false, nil
	case change.Renumber:
		made, err := c.Update(ctx, row, change.Revision, "")
		if err != nil {
			return nil, false, fmt.Errorf("renumber controller revision %s/%s: %w", change.Revision.Namespace, change.Revision.Name, err)
		}
		now = nil
		for _, r := range history {
			if r.Name != change.Revision.Name {
				now = append(now, r)
			}
		}
		return append(now, made.(*appsv1.ControllerRevision)), false, nil
	}
	return history, false, nil
}

// PruneRevisions deletes revisions that nobody needs (revision.Surplus).
func PruneRevisions(ctx context.Context, c client.Interface, surplus []*appsv1.ControllerRevision) error {
	row := c.Registry().Must("apps", "controllerrevisions")
	for _, r := range surplus {
		err := c.Delete(ctx, api.RefTo(row, r), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete controller revision %s/%s: %w", r.Namespace, r.Name, err)
		}
	}
	return nil
}

// OwnRevisions are the ControllerRevisions, of that resource, that an object
// controls, sorted by number.
func OwnRevisions(view client.View, row *api.Resource, owner metav1.Object) []*appsv1.ControllerRevision {
	history := Owned[*appsv1.ControllerRevision](view, row, owner)
	revision.Sort(history)
	return history
}
