package daemon

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
)

// components answers for the ComponentStatuses of Kubernetes: its three other
// parts, which here are parts of the same process.
func components(l *lifecycle, etcd func() error) request.Computed {
	return func(context.Context) []api.Object {
		return []api.Object{
			componentStatus("controller-manager", l.running(loopPart)),
			componentStatus("etcd-0", etcd()),
			componentStatus("scheduler", l.running("scheduler")),
		}
	}
}

func componentStatus(name string, err error) *corev1.ComponentStatus {
	healthy := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if err != nil {
		healthy.Status, healthy.Message, healthy.Error = corev1.ConditionFalse, "", err.Error()
	}
	return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{healthy}}
}
