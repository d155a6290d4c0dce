package rollback

import (
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
)

// flavor is what is particular to a kind. Functions that write do so to an
// object of their own.
type flavor struct {
	kind schema.GroupVersionKind
	// look fills in what the workload and its revisions say, and answers with
	// the objects that carry them.
	look        func(w api.Object, s *snapshot) (map[*revision]api.Object, error)
	ownersOfPod func(old, new api.Object) []api.Key
	// undo puts the template of a revision back.
	undo func(w, carrier api.Object) error
	// suspend and resume stop pods from being replaced, and let it go on.
	suspend, resume func(w api.Object)
	pausesFirst     bool // see snapshot
	conditionOf     func(w api.Object) *condition
	setCondition    func(w api.Object, c *condition)
}

const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	causeAnnotation    = "kubernetes.io/change-cause"
	// oursBegin is how messages begin by which the loop of Deployments tells of
	// a revision that this one found to have failed.
	oursBegin = "Revision "
)

// NewDeployments makes the loop of Deployments; it acts as the client's identity.
func NewDeployments(c client.Interface, recorder events.Recorder) *Loop {
	r := c.Registry()
	l := &Loop{client: c, events: recorder, workloads: r.Must("apps", "deployments"), carriers: r.Must("apps", "replicasets"), pods: r.Must("", "pods")}
	l.flavor = flavor{
		kind:        appsv1.SchemeGroupVersion.WithKind("Deployment"),
		look:        l.lookAtDeployment,
		ownersOfPod: l.deploymentsOfPod,
		undo:        undoDeployment,
		suspend:     func(w api.Object) { w.(*appsv1.Deployment).Spec.Paused = true },
		resume:      func(w api.Object) { w.(*appsv1.Deployment).Spec.Paused = false },
	}
	l.conditionOf, l.setCondition = conditions(
		func(w api.Object) *[]appsv1.DeploymentCondition { return &w.(*appsv1.Deployment).Status.Conditions },
		func(c appsv1.DeploymentCondition) (appsv1.DeploymentConditionType, condition) {
			return c.Type, condition{c.Status, c.Reason, c.Message, c.LastTransitionTime.Time}
		},
		func(c condition) appsv1.DeploymentCondition {
			at := metav1.NewTime(c.since)
			return appsv1.DeploymentCondition{Type: onfailure.ConditionType, Status: c.status, Reason: c.reason, Message: c.message, LastUpdateTime: at, LastTransitionTime: at}
		})
	return l
}

// conditions finds and writes the condition RolledBack among those of a kind.
func conditions[T ~string, C any](list func(w api.Object) *[]C, read func(C) (T, condition), made func(condition) C) (of func(api.Object) *condition, set func(api.Object, *condition)) {
	of = func(w api.Object) *condition {
		for _, had := range *list(w) {
			if kind, c := read(had); kind == onfailure.ConditionType {
				return &c
			}
		}
		return nil
	}
	set = func(w api.Object, c *condition) {
		all := list(w)
		*all = slices.DeleteFunc(*all, func(had C) bool {
			kind, _ := read(had)
			return kind == onfailure.ConditionType
		})
		if c != nil {
			*all = append(*all, made(*c))
		}
	}
	return of, set
}

func (l *Loop) deploymentsOfPod(old, new api.Object) []api.Key {
	p := new
	if p == nil {
		p = old
	}
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind != "ReplicaSet" {
		return nil
	}
	rs := l.client.View().Get(l.carriers, api.Key{Namespace: p.GetNamespace(), Name: ref.Name})
	if rs == nil {
		return nil
	}
	return controller.KeysOfOwners(rs, nil, "Deployment", nil)
}

func numberOfSet(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (l *Loop) lookAtDeployment(w api.Object, s *snapshot) (map[*revision]api.Object, error) {
	d, view := w.(*appsv1.Deployment), l.client.View()
	s.observed = d.Status.ObservedGeneration >= d.Generation
	s.suspended = d.Spec.Paused
	s.handsOff = d.Spec.Paused
	s.desired, s.whole = ptr.Deref(d.Spec.Replicas, 1), true
	s.minReady = time.Duration(d.Spec.MinReadySeconds) * time.Second
	s.hasDeadline = true
	s.policy.Deadline = time.Duration(ptr.Deref(d.Spec.ProgressDeadlineSeconds, 0)) * time.Second
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == reasonDeadline && !strings.HasPrefix(c.Message, oursBegin) {
			s.expired = c.LastUpdateTime.Time
		}
	}
	carriers := map[*revision]api.Object{}
	sets := slices.DeleteFunc(controller.Owned[*appsv1.ReplicaSet](view, l.carriers, d), func(rs *appsv1.ReplicaSet) bool { return rs.DeletionTimestamp != nil })
	asked := controller.SetWithTemplate(sets, &d.Spec.Template)
	good, _ := onfailure.LastGood(sets, numberOfSet)
	for _, rs := range sets {
		r := revisionOf(rs, numberOfSet(rs))
		carriers[r] = rs
		for o := range view.ByIndex(l.pods, api.IndexOwner, string(rs.UID)) {
			r.pods = append(r.pods, o.(*corev1.Pod))
		}
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				r.refused = &refusal{ptr.Deref(rs.Spec.Replicas, 1) - int32(len(r.pods)), c.LastTransitionTime.Time, c.Message, strings.Contains(c.Message, dependency.Unheld)}
			}
		}
		if rs == asked {
			s.asked = r
			continue
		}
		if s.old = append(s.old, r); rs == good {
			s.lastGood = r
		}
	}
	return carriers, nil
}

// revisionOf is what the marks of a carrier say.
func revisionOf(carrier api.Object, number int64) *revision {
	return &revision{
		name: carrier.GetName(), number: number,
		good: onfailure.GoodAt(carrier, number), everGood: carrier.GetAnnotations()[onfailure.GoodMark] != "",
		failed: onfailure.FailureOf(carrier, number),
	}
}

// undoDeployment puts template and cause back, as `kubectl rollout undo` does.
func undoDeployment(w, carrier api.Object) error {
	d, rs := w.(*appsv1.Deployment), carrier.(*appsv1.ReplicaSet)
	d.Spec.Template = *rs.Spec.Template.DeepCopy()
	delete(d.Spec.Template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	if delete(d.Annotations, causeAnnotation); rs.Annotations[causeAnnotation] != "" {
		d.Annotations[causeAnnotation] = rs.Annotations[causeAnnotation]
	}
	return nil
}
