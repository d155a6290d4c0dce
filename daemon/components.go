package daemon

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
)

// components answers for the ComponentStatuses of Kubernetes: its three other
// parts, which here are parts of the same process.
func components(l *lifecycle, etcd func(context.Context) error) request.Computed {
	return func(ctx context.Context, key api.Key) ([]api.Object, error) {
		var list []api.Object
		for name, err := range map[string]error{"controller-manager": l.running(loopPart), "etcd-0": etcd(ctx), "scheduler": l.running("scheduler")} {
			if key.Name == "" || key.Name == name {
				list = append(list, componentStatus(name, err))
			}
		}
		if key.Name != "" && len(list) == 0 { // in the singular, as Kubernetes has it
			return nil, apierrors.NewNotFound(corev1.Resource("componentstatus"), key.Name)
		}
		slices.SortFunc(list, func(a, b api.Object) int { return strings.Compare(a.GetName(), b.GetName()) })
		return list, nil
	}
}

func componentStatus(name string, err error) *corev1.ComponentStatus {
	healthy := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if err != nil {
		healthy.Status, healthy.Message, healthy.Error = corev1.ConditionFalse, "", err.Error()
	}
	return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{healthy}}
}
