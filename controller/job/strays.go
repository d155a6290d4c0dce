package job

import (
	"context"
	"fmt"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/controller"
)

// A stray is a pod with our finalizer that no job will ever account for: its
// job is gone or finished, or let it go. It is set free, or it could never be
// deleted. Its key is its own with strayPrefix before the name, which no job's
// name can have.
const strayPrefix = "pods/"

func strayKey(p api.Object) api.Key {
	return api.Key{Namespace: p.GetNamespace(), Name: strayPrefix + p.GetName()}
}

func strayPod(key api.Key) (api.Key, bool) {
	name, ok := strings.CutPrefix(key.Name, strayPrefix)
	return api.Key{Namespace: key.Namespace, Name: name}, ok
}

// keysOfJob is the job itself, and, when it is gone, the pods that it leaves.
func (l *Loop) keysOfJob(old, new api.Object) []api.Key {
	if new != nil {
		return []api.Key{{Namespace: new.GetNamespace(), Name: new.GetName()}}
	}
	var keys []api.Key
	for _, p := range l.owned(old.(*batchv1.Job)) {
		if tracked(p) {
			keys = append(keys, strayKey(p))
		}
	}
	return keys
}

func (l *Loop) keysOfPod(old, new api.Object) []api.Key {
	if new != nil && l.stray(new.(*corev1.Pod)) {
		return append(controller.KeysOfOwners(old, nil, kind.Kind, nil), strayKey(new))
	}
	return controller.KeysOfOwners(old, new, kind.Kind, func(p api.Object) []api.Key {
		return controller.KeysThatSelect(l.client.View(), l.jobs, p, selectorOf)
	})
}

func selectorOf(j api.Object) *metav1.LabelSelector { return j.(*batchv1.Job).Spec.Selector }

// stray says whether a pod is one.
func (l *Loop) stray(p *corev1.Pod) bool {
	if !tracked(p) {
		return false
	}
	view := l.client.View()
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		for _, key := range controller.KeysThatSelect(view, l.jobs, p, selectorOf) {
			j, ok := view.Get(l.jobs, key).(*batchv1.Job)
			if ok && managed(j) && !finished(j) && j.DeletionTimestamp == nil && p.DeletionTimestamp == nil {
				return false // it will be adopted
			}
		}
		return true
	}
	if ref.Kind != kind.Kind || ref.APIVersion != kind.GroupVersion().String() {
		return false
	}
	j, ok := view.Get(l.jobs, api.Key{Namespace: p.Namespace, Name: ref.Name}).(*batchv1.Job)
	return !ok || j.UID != ref.UID || managed(j) && finished(j)
}

// free drops the finalizer of a stray.
func (l *Loop) free(ctx context.Context, key api.Key) error {
	p, ok := l.client.View().Get(l.pods, key).(*corev1.Pod)
	if !ok || !l.stray(p) {
		return nil
	}
	if err := l.drop(ctx, p); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("release stray pod %s: %w", key, err)
	}
	return nil
}

// drop takes our finalizer from a pod.
func (l *Loop) drop(ctx context.Context, p *corev1.Pod, more ...controller.MetaPatch) error {
	_, err := l.client.Patch(ctx, api.RefTo(l.pods, p), types.StrategicMergePatchType,
		controller.DropFinalizer(p, batchv1.JobTrackingFinalizer, more...), metav1.PatchOptions{}, "")
	return err
}
