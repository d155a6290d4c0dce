package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/internal/ocibuild"
)

// idleFor is how long pods are watched doing nothing, six rounds of probes; before
// that what follows a start has the same time to end, such as the first garbage
// collections of a hundred shims.
const idleFor = time.Minute

// idle has pods do nothing but answer probes.
func (b *bench) idle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	if err := b.deploy(ctx, "idle", serverSpec(10)); err != nil {
		return err
	}
	if err := rig.Wait(ctx, idleFor); err != nil {
		return err
	}
	before, err := b.programs()
	if err != nil {
		return err
	}
	profile := make(chan error, 1)
	go func() { profile <- b.Profile(ctx, b.cluster, "idle", "cpu", idleFor) }()
	if err := errors.Join(rig.Wait(ctx, idleFor), <-profile); err != nil {
		return err
	}
	after, err := b.programs()
	if err != nil {
		return err
	}
	share := func(name string) float64 {
		return 100 * (after[name].cpu - before[name].cpu).Seconds() / idleFor.Seconds()
	}
	var all float64
	for _, name := range slices.Sorted(maps.Keys(after)) {
		b.Figure("idle_cpu_"+name, share(name), "%")
		if name != "workload" {
			all += share(name)
		}
	}
	b.Figure("idle_cpu", all, "%")
	return b.undeploy(ctx, "idle")
}

// serverSpec serves /ready by HTTP and is asked for it every so many seconds,
// for both probes. It goes on when the file goes.
func serverSpec(period int32) corev1.PodSpec {
	probe := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)}},
		PeriodSeconds: period, FailureThreshold: 1,
	}
	live := probe.DeepCopy()
	live.HTTPGet.Path, live.FailureThreshold = "/live", 3
	const serve = "mkdir /tmp/www && touch /tmp/www/live /tmp/www/ready && exec httpd -f -v -p 8080 -h /tmp/www"
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To(int64(1)), // httpd does not hear SIGTERM
		Containers: []corev1.Container{{
			Name: "main", Image: ocibuild.Busybox, Command: []string{"sh", "-c", serve},
			ImagePullPolicy: corev1.PullNever, ReadinessProbe: probe, LivenessProbe: live,
		}},
	}
}
