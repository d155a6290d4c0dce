package controller_test

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/internal/podstate"
)

// What agents do to pods, as far as loops see it.

func setReady(p *corev1.Pod, ready bool, now metav1.Time) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		c := podstate.Condition(p, kind)
		if c == nil {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind})
			c = podstate.Condition(p, kind)
		}
		if c.Status != status {
			c.Status, c.LastTransitionTime = status, now
		}
	}
}

// placeFor is the node that a pod asks for by name, or n.
func placeFor(p *corev1.Pod) string {
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				return f.Values[0]
			}
		}
	}
	return "n"
}

// runs places a pod on a node, makes it run and be ready.
func (w *world) runs(p *corev1.Pod) *corev1.Pod {
	w.Helper()
	if p.Spec.NodeName == "" {
		b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: placeFor(p)}}
		if _, err := w.api.Post(w.Context(), api.RefTo(w.row(p), p), "binding", b); err != nil {
			w.Fatal(err)
		}
	}
	return update(w, p, "status", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodRunning
		if p.Status.StartTime == nil {
			now := w.stamp()
			p.Status.StartTime = &now
		}
		setReady(p, true, w.stamp())
	})
}

// exits ends a pod with a code.
func (w *world) exits(p *corev1.Pod, code int32) *corev1.Pod {
	w.Helper()
	return update(w, p, "status", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			p.Status.Phase = corev1.PodFailed
		}
		setReady(p, false, w.stamp())
		p.Status.ContainerStatuses = nil
		for _, c := range p.Spec.Containers {
			p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
				Name: c.Name, Image: c.Image,
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: w.stamp()}},
			})
		}
	})
}

// gone finishes the deletion of a pod.
func (w *world) gone(p *corev1.Pod) {
	w.Helper()
	zero := int64(0)
	remove(w, p, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.UID}})
}

// agent does what is due for all pods: new ones run, deleted ones end. It says
// whether there was anything.
func (w *world) agent() bool {
	w.Helper()
	did := false
	for _, p := range all[*corev1.Pod](w, "") {
		switch {
		case p.DeletionTimestamp != nil && !slices.Contains(p.Finalizers, dependency.Finalizer) && (p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds > 0):
			w.gone(p)
			did = true
		case p.DeletionTimestamp == nil && len(p.Spec.SchedulingGates) == 0 && p.Status.Phase != corev1.PodRunning && !podstate.Finished(p):
			w.runs(p)
			did = true
		}
	}
	return did
}

// live lets loops and agents take turns until neither has anything to do.
func (w *world) live() {
	w.Helper()
	for range 1000 {
		w.settle()
		if !w.agent() {
			return
		}
		w.clock.Step(time.Second)
	}
	w.Fatal("the pods do not come to rest")
}

func aPod(name string, t corev1.PodTemplateSpec) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: t.Labels}, Spec: *t.Spec.DeepCopy()}
}

func (w *world) pod(name string) *corev1.Pod { return get[*corev1.Pod](w, "default", name) }

func aPriorityClass(name string) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: 1}
}
