package request_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
