package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/internal/ocibuild"
)

// podSpec runs until it is asked to end, and then ends.
func podSpec() corev1.PodSpec {
	return corev1.PodSpec{
		Containers: []corev1.Container{{
			Name: "main", Image: ocibuild.Busybox, Command: []string{"sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait"},
			ImagePullPolicy: corev1.PullNever,
		}},
	}
}

// step is something that a watcher sees happen to a pod.
type step struct {
	name string
	seen func(*corev1.Pod) bool
}

var steps = []step{
	{"pod_scheduled", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" }},
	{"pod_sandbox", func(p *corev1.Pod) bool { return p.Status.PodIP != "" }},
	{"pod_running", running},
}

func running(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// singles starts pods one after the other. The first one is not counted: it
// finds the image's programs not yet in memory.
func (b *bench) singles(ctx context.Context) error {
	took := map[string][]time.Duration{}
	var gone []time.Duration
	for i := range *single + 1 {
		name := fmt.Sprintf("single%d", i)
		steps, err := b.one(ctx, name)
		if err != nil {
			return fmt.Errorf("pod %s: %w", name, err)
		}
		d, err := b.remove(ctx, name)
		if err != nil {
			return fmt.Errorf("delete pod %s: %w", name, err)
		}
		if i == 0 {
			b.Spread("pod_first", []time.Duration{steps["pod_running"]})
			continue
		}
		for step, d := range steps {
			took[step] = append(took[step], d)
		}
		gone = append(gone, d)
	}
	for _, s := range append([]step{{name: "pod_create"}}, steps...) {
		b.Spread(s.name, took[s.name])
	}
	b.Figure("pod_running_p99", float64(rig.Quantile(slices.Sorted(slices.Values(took["pod_running"])), 0.99))/float64(time.Millisecond), "ms")
	b.Spread("pod_deleted", gone)
	return nil
}

// one starts a pod and says when each step was seen, counted from the moment
// at which its creation was answered; "pod_create" is how long that took.
func (b *bench) one(ctx context.Context, name string) (map[string]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	at := map[string]time.Time{}
	finished, err := watch(ctx, b.watcher, named(pods, name), func(e rig.Event[corev1.Pod]) (bool, error) {
		now := time.Now()
		if e.Object.Status.Phase == corev1.PodFailed {
			return true, errors.New(e.Object.Status.Message)
		}
		for _, s := range steps {
			if at[s.name].IsZero() && s.seen(&e.Object) {
				at[s.name] = now
			}
		}
		return running(&e.Object), nil
	})
	if err != nil {
		return nil, err
	}
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: podSpec()}
	sent := time.Now()
	if err := b.writer.Call(ctx, http.MethodPost, pods, pod, nil); err != nil {
		return nil, err
	}
	accepted := time.Now()
	if err := <-finished; err != nil {
		return nil, err
	}
	took := map[string]time.Duration{"pod_create": accepted.Sub(sent)}
	for step, t := range at {
		took[step] = t.Sub(accepted)
	}
	return took, nil
}

func (b *bench) remove(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	finished, err := watch(ctx, b.watcher, named(pods, name), func(e rig.Event[metav1.PartialObjectMetadata]) (bool, error) {
		return e.Type == "DELETED", nil
	})
	if err != nil {
		return 0, err
	}
	if err := b.writer.Call(ctx, http.MethodDelete, pods+"/"+name, nil, nil); err != nil {
		return 0, err
	}
	accepted := time.Now()
	err = <-finished
	return time.Since(accepted), err
}
