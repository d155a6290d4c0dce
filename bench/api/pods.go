package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/bench/internal/rig"
)

// Of pods: the size in protobuf as it is sent, the number of templates, and
// where they are.
const (
	podSize   = 2 << 10
	templates = 200
	podPath   = "/api/v1/namespaces/pods/pods"
)

func podName(i int64) string { return fmt.Sprintf("load-%03d-%08d", i%templates, i) }

// newPod is pod number i. What a template decides follows from variant: pods of
// one variant differ in their names alone. No scheduler takes them.
func newPod(i, variant int64) *corev1.Pod {
	random := rand.New(rand.NewPCG(uint64(variant), 0))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('a' + random.IntN(26))
		}
		return string(b)
	}
	app := fmt.Sprintf("load-%03d", i%templates)
	main := corev1.Container{
		Name: "main", Image: "registry.example/team/" + app + ":" + text(12),
		Command: []string{"/bin/serve", "--config=/etc/serve/config.yaml", "--listen=:8080"},
		Ports:   []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
		},
		ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("http")}}},
		VolumeMounts:   []corev1.VolumeMount{{Name: "config", MountPath: "/etc/serve"}, {Name: "scratch", MountPath: "/tmp"}},
	}
	for n := range 12 {
		main.Env = append(main.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", n), Value: text(40)})
	}
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(i), Namespace: "pods",
			Labels:      map[string]string{"app": app, "pod-template-hash": text(10)},
			Annotations: map[string]string{"bench.hansa.dev/checksum": text(64)},
		},
		Spec: corev1.PodSpec{
			SchedulerName: "bench.hansa.dev/nobody", AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{main, {Name: "proxy", Image: "registry.example/team/proxy:" + text(12), Args: []string{"--upstream=127.0.0.1:8080"}}},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: app}}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
			Tolerations: []corev1.Toleration{{Key: "team", Operator: corev1.TolerationOpEqual, Value: app, Effect: corev1.TaintEffectNoSchedule}},
		},
	}
	// What is missing becomes an argument, in two lengths: fields have headers.
	proxy := &pod.Spec.Containers[1]
	proxy.Args = append(proxy.Args, "")
	for range 3 {
		if missing := podSize - len(encodePod(pod)); missing != 0 {
			proxy.Args[1] += text(max(missing, 0))
			proxy.Args[1] = proxy.Args[1][:len(proxy.Args[1])+min(missing, 0)]
		}
	}
	return pod
}

var protobufCodec = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

func encodePod(pod *corev1.Pod) []byte {
	var b bytes.Buffer
	if err := protobufCodec.Encode(pod, &b); err != nil {
		panic(err) // the scheme knows pods
	}
	return b.Bytes()
}

// templatePod gives the body of pod i, of few templates. Each is encoded once:
// names have one length.
func templatePod() func(i int64) []byte {
	var bodies [templates][]byte
	for i := range bodies {
		bodies[i] = encodePod(newPod(int64(i), int64(i)))
	}
	return func(i int64) []byte {
		first := i % templates
		return bytes.Replace(bodies[first], []byte(podName(first)), []byte(podName(i)), 1)
	}
}

// distinctPod is a body that shares nothing with another.
func distinctPod(i int64) []byte { return encodePod(newPod(i, i)) }

// accept says what the answers to the load are to be.
func (l *load) accept(contentType string) {
	for _, c := range l.clients {
		c.Accept = contentType
	}
}

// admitted returns when pods can be created: the service account that they get
// is made a moment after its namespace.
func (l *load) admitted(ctx context.Context) error {
	c := l.target.Connect()
	defer c.Close()
	return rig.Watch(ctx, c, "/api/v1/namespaces/pods/serviceaccounts?watch=true&fieldSelector=metadata.name%3Ddefault", nil,
		func(rig.Event[metav1.PartialObjectMetadata]) (bool, error) { return true, nil })
}

func createPod(ctx context.Context, c *rig.Client, body []byte) error {
	_, err := c.Discard(ctx, http.MethodPost, podPath, runtime.ContentTypeProtobuf, body)
	return err
}

// pods measures creates and gets of pods in protobuf.
func (l *load) pods(ctx context.Context) error {
	if err := l.admitted(ctx); err != nil {
		return err
	}
	l.accept(runtime.ContentTypeProtobuf)
	defer l.accept("")
	body := templatePod()
	var made atomic.Int64
	if err := l.phase(ctx, "pods_create", func(ctx context.Context, c *rig.Client) (bool, error) {
		return true, createPod(ctx, c, body(made.Add(1)-1))
	}); err != nil {
		return err
	}
	return l.phase(ctx, "pods_get", func(ctx context.Context, c *rig.Client) (bool, error) {
		_, err := c.Discard(ctx, http.MethodGet, podPath+"/"+podName(rand.Int64N(made.Load())), "", nil)
		return true, err
	})
}

// manyPods creates as many pods as were asked for and prints what memory the
// server has then.
func (l *load) manyPods(ctx context.Context, name string, body func(i int64) []byte) error {
	if err := l.admitted(ctx); err != nil {
		return err
	}
	l.accept(runtime.ContentTypeProtobuf)
	defer l.accept("")
	if err := l.each(int64(*podCount), func(c *rig.Client, i int64) error { return createPod(ctx, c, body(i)) }); err != nil {
		return err
	}
	if !wanted("pods100k") {
		return nil
	}
	m, err := l.memory(ctx)
	if err != nil {
		return err
	}
	l.Figure(name, mib(m.Private-m.Database), "MiB")
	l.Figure(name+"_database", mib(m.Database), "MiB")
	return l.Profile(ctx, l.cluster, name, "heap", 0)
}

// distinctPods measures memory with many pods.
func distinctPods(ctx context.Context, l *load) error {
	return l.manyPods(ctx, "pods100k_distinct", distinctPod)
}

// templatePods measures memory with many pods of few templates, and how long it
// takes to start with them.
func templatePods(ctx context.Context, l *load) error {
	if err := l.manyPods(ctx, "pods100k_templates", templatePod()); err != nil || !wanted("start100k") {
		return err
	}
	if err := l.cluster.Stop(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := make(chan error, 1)
	began := time.Now()
	go func() {
		err := l.cluster.Up(ctx)
		if err != nil {
			cancel() // nobody need ask any longer
		}
		up <- err
	}()
	err := eventually(ctx, func() error { return l.havePods(ctx) })
	serving := time.Since(began)
	if err := errors.Join(<-up, err); err != nil {
		return err
	}
	l.Seconds("start100k", serving)
	l.Seconds("start100k_ready", l.cluster.Took)
	return nil
}

// havePods is an error until the server lists as many pods as were made.
func (l *load) havePods(ctx context.Context) error {
	c := l.target.Connect()
	defer c.Close()
	var list metav1.PartialObjectMetadataList
	if err := c.Call(ctx, http.MethodGet, podPath+"?limit=1", nil, &list); err != nil {
		return err
	}
	have := len(list.Items) + int(ptr.Deref(list.RemainingItemCount, 0))
	if have != *podCount {
		return fmt.Errorf("the server has %d pods of %d", have, *podCount)
	}
	return nil
}
