package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/bench/internal/rig"
)

// Of the rolling updates: how many, of how many pods, and the requests a second.
const (
	updates        = 5
	servers        = 4
	requestsPerSec = 500
)

// rolling updates a served Deployment under load. A pod that is to end goes on
// for two seconds, as is usual, for those who have not heard of it yet.
func (b *bench) rolling(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*timeout)
	defer cancel()
	const name = "rolling"
	labels := map[string]string{"app": name}
	service := corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	if err := b.writer.Call(ctx, http.MethodPost, services, service, &service); err != nil {
		return err
	}
	spec := serverSpec(1)
	spec.TerminationGracePeriodSeconds = ptr.To(int64(3))
	spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 2}}}
	d := appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To(int32(servers)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ptr.To(intstr.FromInt32(1)), MaxUnavailable: ptr.To(intstr.FromInt32(0)),
			}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}
	if err := b.rollOut(ctx, http.MethodPost, deployments, d); err != nil {
		return err
	}
	stop := b.load(ctx, "http://"+service.Spec.ClusterIP+"/live")
	began := time.Now()
	for i := range updates {
		d.Spec.Template.Annotations = map[string]string{"bench.hansa.dev/update": strconv.Itoa(i)}
		if err := b.rollOut(ctx, http.MethodPut, deployments+"/"+name, d); err != nil {
			stop()
			return fmt.Errorf("update %d: %w", i, err)
		}
	}
	took := time.Since(began)
	done, failed := stop()
	b.Seconds("rolling_update", took/updates)
	b.Figure("rolling_requests", float64(done)/took.Seconds(), "1/s")
	b.Figure("rolling_failed", float64(failed), "requests")
	return b.writer.Call(ctx, http.MethodDelete, deployments+"/"+name, nil, nil)
}

// rollOut sends a change and waits until the Deployment is what it asks for.
func (b *bench) rollOut(ctx context.Context, method, path string, change any) error {
	var d appsv1.Deployment
	if err := b.writer.Call(ctx, method, path, change, &d); err != nil {
		return err
	}
	return rig.Watch(ctx, b.watcher, named(deployments, d.Name), nil, func(e rig.Event[appsv1.Deployment]) (bool, error) {
		s := e.Object.Status
		return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == servers && s.Replicas == servers && s.AvailableReplicas == servers, nil
	})
}

// load asks at a steady rate, each time by a new connection, until stop is called,
// which waits for the answers.
func (b *bench) load(ctx context.Context, url string) (stop func() (done, failed int64)) {
	ctx, cancel := context.WithCancel(ctx)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}}
	var done, failed atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(time.Second / requestsPerSec)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			all.Go(func() {
				if err := ask(client, url); err != nil {
					failed.Add(1)
				}
				done.Add(1)
			})
		}
	})
	return func() (int64, int64) {
		cancel()
		all.Wait()
		return done.Load(), failed.Load()
	}
}

func ask(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
