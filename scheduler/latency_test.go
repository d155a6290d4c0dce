package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/client/events"
)

// BenchmarkBind takes a pod from its creation to its node, with the request
// layer and a store in memory: one at a time on an idle cluster, and 1,000 at
// once.
func BenchmarkBind(b *testing.B) {
	for _, at := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d at once", at), func(b *testing.B) { benchmarkBind(b, at) })
	}
}

func benchmarkBind(b *testing.B, at int) {
	c := direct.New(requesttest.Handler(b, nil), requesttest.Admin, "kube-scheduler")
	pods := c.Registry().Must("", "pods")
	s := New(Config{Client: c, Events: events.Discard, Clock: clock.RealClock{}, Log: slog.New(slog.DiscardHandler)})
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		<-done
	})
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: *podOf("", "100k").Spec.Containers[0].Resources.Requests.Cpu()}
	if _, err := c.Create(ctx, c.Registry().Must("", "nodes"), n, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	bound := make(chan string, at)
	cancel := c.View().Subscribe(pods, func(old, now api.Object) {
		if old != nil && now != nil && old.(*corev1.Pod).Spec.NodeName == "" && now.(*corev1.Pod).Spec.NodeName != "" {
			bound <- now.GetName()
		}
	})
	defer cancel()
	serial := 0
	for b.Loop() {
		names := make([]string, at)
		for i := range names {
			serial++
			names[i] = fmt.Sprintf("p%d", serial)
			if _, err := c.Create(ctx, pods, podOf(names[i], "0"), metav1.CreateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		for range names {
			<-bound
		}
		b.StopTimer()
		now := int64(0)
		for _, name := range names {
			if err := c.Delete(ctx, api.Ref{Resource: pods, Namespace: "default", Name: name}, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
}
