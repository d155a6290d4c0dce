// Command pod measures how long pods take to run, their image present.
//
//	pod_running        create accepted → Running seen by a watcher, median of -n
//	pod_…              when other steps were seen, from the same moment
//	pod_deleted        delete accepted → gone, median of -n
//	deployment_ready   create of a Deployment accepted → all of -replicas pods Ready
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/internal/ocibuild"
)

var (
	single   = flag.Int("n", 20, "`number` of single pods, one after the other")
	replicas = flag.Int("replicas", 50, "`number` of pods of the Deployment")
	repeat   = flag.Int("deployments", 1, "`number` of Deployments, one after the other")
	settle   = flag.Duration("settle", 3*time.Second, "how long the cluster rests between two measurements")
)

func main() {
	rig.Main(rig.Program{
		Doc:    "pod measures how long pods take to run, their image present.",
		Images: []string{ocibuild.Busybox},
		Run:    run,
	})
}

const (
	pods        = "/api/v1/namespaces/default/pods"
	deployments = "/apis/apps/v1/namespaces/default/deployments"
)

// bench is a cluster with an administrator who asks and one who watches.
type bench struct {
	*rig.Rig
	cluster *rig.Cluster
	writer  *rig.Client
	watcher *rig.Client
}

func run(ctx context.Context, r *rig.Rig) (err error) {
	c := r.NewCluster("pods")
	defer c.Remove(ctx, &err)
	if err := c.Up(ctx); err != nil {
		return err
	}
	if err := c.Import(ctx, ocibuild.Busybox); err != nil {
		return err
	}
	target, err := c.Target()
	if err != nil {
		return err
	}
	b := &bench{Rig: r, cluster: c, writer: target.Connect(), watcher: target.Connect()}
	defer b.writer.Close()
	defer b.watcher.Close()
	// The default service account is a moment behind the ready line.
	if err := b.await(ctx, "/api/v1/namespaces/default/serviceaccounts?fieldSelector=metadata.name%3Ddefault"); err != nil {
		return err
	}
	if err := b.singles(ctx); err != nil {
		return err
	}
	for i := range *repeat {
		if err := rig.Wait(ctx, *settle); err != nil {
			return err
		}
		if err := b.deployment(ctx, fmt.Sprintf("many%d", i)); err != nil {
			return err
		}
	}
	return nil
}

// await returns when a list has something in it.
func (b *bench) await(ctx context.Context, list string) error {
	return rig.Watch(ctx, b.watcher, list+"&watch=true", nil, func(rig.Event[metav1.PartialObjectMetadata]) (bool, error) { return true, nil })
}

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
	b.Spread("pod_deleted", gone)
	return nil
}

// timeout is how long a pod may take before the benchmark gives up.
const timeout = time.Minute

// watch starts a watch in the background and returns when it stands.
func watch[T any](ctx context.Context, c *rig.Client, path string, see func(rig.Event[T]) (bool, error)) (finished <-chan error, err error) {
	done, started := make(chan error, 1), make(chan struct{})
	go func() { done <- rig.Watch(ctx, c, path, func() { close(started) }, see) }()
	select {
	case <-started:
		return done, nil
	case err := <-done:
		return nil, err
	}
}

// one starts a pod and says when each step was seen, counted from the moment
// at which its creation was answered; "pod_create" is how long that took.
func (b *bench) one(ctx context.Context, name string) (map[string]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	at := map[string]time.Time{}
	finished, err := watch(ctx, b.watcher, pods+"?watch=true&fieldSelector=metadata.name%3D"+name, func(e rig.Event[corev1.Pod]) (bool, error) {
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
	finished, err := watch(ctx, b.watcher, pods+"?watch=true&fieldSelector=metadata.name%3D"+name, func(e rig.Event[metav1.PartialObjectMetadata]) (bool, error) {
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

// deployment starts many pods at once and waits until all are Ready, then
// removes them.
func (b *bench) deployment(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	labels := map[string]string{"app": name}
	var begun, half time.Time
	done := map[string]bool{}
	finished, err := watch(ctx, b.watcher, pods+"?watch=true&labelSelector=app%3D"+name, func(e rig.Event[corev1.Pod]) (bool, error) {
		if begun.IsZero() {
			begun = time.Now()
		}
		if ready(&e.Object) {
			done[e.Object.Name] = true
		}
		if half.IsZero() && len(done) >= *replicas/2 {
			half = time.Now()
		}
		return len(done) == *replicas, nil
	})
	if err != nil {
		return err
	}
	d := appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(*replicas)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec()},
		},
	}
	before, err := b.cluster.CPU()
	if err != nil {
		return err
	}
	profile := make(chan error, 1)
	go func() { profile <- b.Profile(ctx, b.cluster, name, "cpu", 10*time.Second) }()
	if err := b.writer.Call(ctx, http.MethodPost, deployments, d, nil); err != nil {
		return err
	}
	accepted := time.Now()
	if err := <-finished; err != nil {
		return fmt.Errorf("deployment %s: %d of %d pods became Ready: %w", name, len(done), *replicas, err)
	}
	took := time.Since(accepted)
	after, err := b.cluster.CPU()
	if err != nil {
		return err
	}
	b.Seconds("deployment_ready", took)
	b.Figure("deployment_cpu", (after-before).Seconds()/float64(*replicas), "s/pod")
	b.Seconds("deployment_half", half.Sub(accepted))
	b.Seconds("deployment_first_pod_made", begun.Sub(accepted))
	if err := <-profile; err != nil {
		return err
	}
	return b.memory(ctx, name)
}

// memory says what the pods of a Deployment take, and removes them.
func (b *bench) memory(ctx context.Context, name string) error {
	ps, err := b.cluster.Processes()
	if err != nil {
		return err
	}
	var sum int64
	for _, p := range ps {
		sum += p.PSS
	}
	b.Figure("memory_pss_with_pods", float64(sum)/(1<<20), "MiB")
	left := *replicas
	finished, err := watch(ctx, b.watcher, pods+"?watch=true&labelSelector=app%3D"+name, func(e rig.Event[metav1.PartialObjectMetadata]) (bool, error) {
		if e.Type == "DELETED" {
			left--
		}
		return left == 0, nil
	})
	if err != nil {
		return err
	}
	if err := b.writer.Call(ctx, http.MethodDelete, deployments+"/"+name, nil, nil); err != nil {
		return err
	}
	accepted := time.Now()
	err = <-finished
	b.Seconds("deployment_deleted", time.Since(accepted))
	return err
}
