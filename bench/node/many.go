package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/bench/internal/rig"
)

// many starts many pods at once, and removes them.
func (b *bench) many(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	before, err := b.programs()
	if err != nil {
		return err
	}
	used, err := b.cluster.CPU()
	if err != nil {
		return err
	}
	profile := make(chan error, 1)
	go func() { profile <- b.Profile(ctx, b.cluster, "many", "cpu", 10*time.Second) }()
	if err := b.deploy(ctx, "many", podSpec()); err != nil {
		return err
	}
	now, err := b.cluster.CPU()
	if err != nil {
		return err
	}
	b.Figure("many_cpu", (now-used).Seconds()/float64(*many), "s/pod")
	if err := <-profile; err != nil {
		return err
	}
	// Memory is given back once the load is over.
	if err := rig.Wait(ctx, 5*time.Second); err != nil {
		return err
	}
	after, err := b.programs()
	if err != nil {
		return err
	}
	b.added(before, after)
	return b.undeploy(ctx, "many")
}

// deploy makes a Deployment and waits until all its pods are Ready.
func (b *bench) deploy(ctx context.Context, name string, spec corev1.PodSpec) error {
	labels := map[string]string{"app": name}
	var begun, half time.Time
	done := map[string]bool{}
	finished, err := watch(ctx, b.watcher, labelled(pods, name), func(e rig.Event[corev1.Pod]) (bool, error) {
		if begun.IsZero() {
			begun = time.Now()
		}
		if ready(&e.Object) {
			done[e.Object.Name] = true
		}
		if half.IsZero() && len(done) >= *many/2 {
			half = time.Now()
		}
		return len(done) == *many, nil
	})
	if err != nil {
		return err
	}
	d := appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(*many)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}
	if err := b.writer.Call(ctx, http.MethodPost, deployments, d, nil); err != nil {
		return err
	}
	accepted := time.Now()
	if err := <-finished; err != nil {
		return fmt.Errorf("%d of %d pods became Ready: %w", len(done), *many, err)
	}
	b.Seconds(name+"_ready", time.Since(accepted))
	b.Seconds(name+"_half_ready", half.Sub(accepted))
	b.Seconds(name+"_first_pod_made", begun.Sub(accepted))
	return nil
}

// undeploy removes a Deployment and waits until none of its pods is left.
func (b *bench) undeploy(ctx context.Context, name string) error {
	left := *many
	finished, err := watch(ctx, b.watcher, labelled(pods, name), func(e rig.Event[metav1.PartialObjectMetadata]) (bool, error) {
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
	if err := <-finished; err != nil {
		return fmt.Errorf("%d of %d pods are left: %w", left, *many, err)
	}
	b.Seconds(name+"_deleted", time.Since(accepted))
	return nil
}

// program is what all processes of one name have.
type program struct {
	pss int64 // bytes
	cpu time.Duration
}

// ours are the programs that run pods, by the kernel's names for them. All others
// are what runs in pods.
var ours = map[string]string{"containerd": "runtime", "containerd-shim": "shim", "pause": "pause"}

// programs sums up the processes of the cluster.
func (b *bench) programs() (map[string]program, error) {
	ps, err := b.cluster.Processes()
	if err != nil {
		return nil, err
	}
	sums := map[string]program{}
	for _, p := range ps {
		name, ok := ours[p.Name]
		switch {
		case p.PID == b.cluster.PID():
			name = "server"
		case !ok:
			name = "workload"
		}
		sum := sums[name]
		sum.pss += p.PSS
		sum.cpu += p.CPU
		sums[name] = sum
	}
	return sums, nil
}

// added says what a pod adds to each program, and in all beside its own
// processes.
func (b *bench) added(before, after map[string]program) {
	each := func(bytes int64) float64 { return float64(bytes) / float64(*many) / (1 << 20) }
	var all int64
	for _, name := range slices.Sorted(maps.Keys(after)) {
		grown := after[name].pss - before[name].pss
		b.Figure("many_memory_"+name, each(grown), "MiB/pod")
		if name != "workload" {
			all += grown
		}
	}
	b.Figure("many_memory", each(all), "MiB/pod")
}
