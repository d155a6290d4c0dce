package statefulset

import (
	"encoding/json"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/controller"
)

// newPod is a pod of a set, of a revision and its template, with the identity of
// an ordinal (documentation: "StatefulSets", "Pod Identity").
func newPod(set *appsv1.StatefulSet, t *corev1.PodTemplateSpec, revision string, ordinal int) *corev1.Pod {
	p := controller.PodFromTemplate(t, set, kind)
	p.Name = podName(set, ordinal)
	for k, v := range identity(p.Name, ordinal) {
		p.Labels[k] = v
	}
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = revision
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	p.Spec.Volumes = volumes(set, p.Name, p.Spec.Volumes)
	return p
}

// identity are the labels that say which pod it is.
func identity(pod string, ordinal int) map[string]string {
	return map[string]string{appsv1.StatefulSetPodNameLabel: pod, appsv1.PodIndexLabel: strconv.Itoa(ordinal)}
}

// identityPatch gives a pod that was adopted the labels that it lacks; nil when
// it has them.
func identityPatch(m member) ([]byte, error) {
	want, same := identity(m.pod.Name, m.ordinal), true
	for k, v := range want {
		same = same && m.pod.Labels[k] == v
	}
	if same || going(m.pod) {
		return nil, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": m.pod.UID, "labels": want}})
	if err != nil {
		return nil, fmt.Errorf("patch for labels of pod %s/%s: %w", m.pod.Namespace, m.pod.Name, err)
	}
	return patch, nil
}
