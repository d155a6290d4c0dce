package daemonset

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/revision"
)

// history are the revisions of a set.
type history struct {
	current *appsv1.ControllerRevision   // of the present template
	old     []*appsv1.ControllerRevision // the oldest first
}

// hashOf is what pods of a revision are labelled with. Revisions of old have no
// hash but their name.
func hashOf(r *appsv1.ControllerRevision) string {
	return cmp.Or(r.Labels[appsv1.ControllerRevisionHashLabelKey], r.Name)
}

// history brings the set's revisions up to date with its template. It has no
// current one when its name was taken: the status, which counts that, wakes us.
func (l *Loop) history(ctx context.Context, ds *appsv1.DaemonSet, pods []*corev1.Pod) (history, error) {
	selector, err := l.selector(ds)
	if err != nil {
		return history{}, err
	}
	all, err := controller.Revisions(ctx, l.client, l.ownerOf(ds), selector)
	if err != nil {
		return history{}, err
	}
	all, collided, err := controller.KeepRevision(ctx, l.client, revisionOwner(ds), all)
	if err != nil {
		return history{}, err
	}
	if collided {
		st := *ds.Status.DeepCopy()
		st.CollisionCount = ptr.To(ptr.Deref(st.CollisionCount, 0) + 1)
		return history{}, l.report(ctx, ds, st)
	}
	last := len(all) - 1
	h := history{current: all[last]}
	for _, r := range all[:last] {
		if !bytes.Equal(r.Data.Raw, h.current.Data.Raw) {
			h.old = append(h.old, r)
		} else if err := l.merge(ctx, r, h.current, pods); err != nil {
			return history{}, err
		}
	}
	return h, nil
}

// standIn is the set with the template that is rolled out where the revision of
// its own failed (design/rollback.md), and the name of that revision.
func (l *Loop) standIn(ds *appsv1.DaemonSet) (*appsv1.DaemonSet, string, error) {
	t, failed, err := revision.StandIn(revisionOwner(ds), controller.OwnRevisions(l.client.View(), l.revisions, ds))
	if err != nil || t == nil {
		return ds, "", err
	}
	instead := *ds
	instead.Spec.Template = *t
	return &instead, failed, nil
}

func revisionOwner(ds *appsv1.DaemonSet) revision.Owner {
	return revision.Owner{
		Object: ds, Kind: kind, Template: &ds.Spec.Template, HashLabel: revision.PodHashLabel,
		Collisions: ds.Status.CollisionCount, Default: pod.DefaultTemplate,
	}
}

// merge makes the pods of a revision, which keeps the same template as another
// one, those of the other, and deletes it. Such a revision was adopted.
func (l *Loop) merge(ctx context.Context, r, into *appsv1.ControllerRevision, pods []*corev1.Pod) error {
	for _, p := range pods {
		if p.Labels[appsv1.ControllerRevisionHashLabelKey] != hashOf(r) {
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": p.UID, "labels": map[string]string{appsv1.ControllerRevisionHashLabelKey: hashOf(into)},
		}})
		if err != nil {
			return fmt.Errorf("encode a patch: %w", err)
		}
		_, err = l.client.Patch(ctx, api.RefTo(l.pods, p), types.MergePatchType, patch, metav1.PatchOptions{}, "")
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("label pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return controller.PruneRevisions(ctx, l.client, []*appsv1.ControllerRevision{r})
}

// prune deletes old revisions beyond the history to keep; those that have pods
// count, and stay, and so does one that is asked for although it failed.
func (l *Loop) prune(ctx context.Context, ds *appsv1.DaemonSet, h history, pods []*corev1.Pod, failed string) error {
	live := map[string]bool{}
	for _, r := range h.old {
		if r.Name == failed {
			live[hashOf(r)] = true
		}
	}
	for _, p := range pods {
		live[p.Labels[appsv1.ControllerRevisionHashLabelKey]] = true
	}
	limit := ptr.Deref(ds.Spec.RevisionHistoryLimit, 10)
	for _, r := range h.old {
		if live[hashOf(r)] {
			limit--
		}
	}
	surplus := revision.Surplus(h.old, max(0, limit), func(r *appsv1.ControllerRevision) bool { return live[hashOf(r)] })
	return controller.PruneRevisions(ctx, l.client, surplus)
}
