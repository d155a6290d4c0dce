package request_test

import (
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

func BenchmarkUpdatePodStatus(b *testing.B) {
	st, err := store.Open(b.Context(), memory.New(memory.Options{}), kinds.Registry(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	h := requesttest.Handler(b, func(c *request.Config) { c.Store = st })
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"a": "b"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}, Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}}}
	out, err := h.Create(b.Context(), requesttest.Info("create", "v1", "pods", "default", ""), request.Body{Object: pod}, &metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := out.(*corev1.Pod).DeepCopy()
		next.Status.Phase = corev1.PodRunning
		next.Status.Message = fmt.Sprint(i)
		next.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}}
		info := requesttest.Info("update", "v1", "pods", "default", "p")
		info.Subresource = "status"
		if out, _, err = h.Update(b.Context(), info, request.Body{Object: next}, &metav1.UpdateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTrack is what managed fields cost in writes, beside what they would
// cost by the library.
func BenchmarkTrack(b *testing.B) {
	h := requesttest.Handler(b, nil)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a", "pod-template-hash": "h"}, Annotations: map[string]string{"example.com/checksum": "c"}},
		Spec: corev1.PodSpec{
			SchedulerName: "s", RestartPolicy: "Always", DNSPolicy: "ClusterFirst", TerminationGracePeriodSeconds: ptr.To(int64(30)),
			SecurityContext: &corev1.PodSecurityContext{},
			Volumes:         []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			Tolerations:     []corev1.Toleration{{Key: "team"}},
		},
	}
	for _, name := range []string{"main", "proxy"} {
		c := corev1.Container{
			Name: name, Image: "i", Command: []string{"serve"}, ImagePullPolicy: "Always", TerminationMessagePath: "/dev/t", TerminationMessagePolicy: "File",
			Ports:        []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}},
			Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("1Gi")}},
			VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc"}},
			ReadinessProbe: &corev1.Probe{
				ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("http"), Scheme: "HTTP"}},
				TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
			},
		}
		for i := range 12 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("SETTING_", i), Value: "v"})
		}
		pod.Spec.Containers = append(pod.Spec.Containers, c)
	}
	running := pod.DeepCopy()
	running.Status = corev1.PodStatus{Phase: "Running", PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, HostIP: "10.1.0.1", StartTime: &metav1.Time{Time: time.Unix(1e9, 0)}}
	for _, c := range []corev1.PodConditionType{"PodScheduled", "Initialized", "ContainersReady", "Ready"} {
		running.Status.Conditions = append(running.Status.Conditions, corev1.PodCondition{Type: c, Status: "True"})
	}
	data := requesttest.ConfigMap("c", "k", "v", "patched", "1")
	patched := requesttest.ConfigMap("c", "k", "v", "patched", "2")
	lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("n"), LeaseDurationSeconds: ptr.To(int32(40)), RenewTime: &metav1.MicroTime{Time: time.Unix(1e9, 0)}}}
	renewed := lease.DeepCopy()
	renewed.Spec.RenewTime = &metav1.MicroTime{Time: time.Unix(1e9+10, 0)}
	for _, w := range []struct {
		name      string
		info      *request.Info
		live, obj api.Object
	}{
		{"CreatePod", requesttest.Info("create", "v1", "pods", "", ""), nil, pod},
		{"PodStatus", requesttest.Info("update", "v1", "pods", "", ""), pod, running},
		{"CreateConfigMap", requesttest.Info("create", "v1", "configmaps", "", ""), nil, data},
		{"PatchConfigMap", requesttest.Info("patch", "v1", "configmaps", "", ""), data, patched},
		{"RenewLease", requesttest.Info("update", "coordination.k8s.io/v1", "leases", "", ""), lease, renewed},
	} {
		library, err := h.Library(w.info)
		if err != nil {
			b.Fatal(err)
		}
		empty := w.info.Served.Resource.New()
		live := empty
		if w.live != nil {
			if live = w.live; len(live.GetManagedFields()) == 0 {
				library.UpdateNoErrors(empty, live, "kubectl")
			}
			live.SetUID("u")
			w.obj.SetUID("u")
			if w.obj == running {
				w.info.Subresource = "status"
			}
		}
		library, err = h.Library(w.info)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(w.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.obj.SetManagedFields(nil)
				if alone, err := h.Tracked(w.info, w.obj, live, "kubelet"); err != nil || !alone {
					b.Fatal(alone, err)
				}
			}
		})
		b.Run(w.name+"ByLibrary", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.obj.SetManagedFields(nil)
				library.UpdateNoErrors(live, w.obj, "kubelet")
			}
		})
	}
}
