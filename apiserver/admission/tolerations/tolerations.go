// Package tolerations lets pods stay for five minutes on a node that is not
// ready or not reachable, unless they say something else about that.
package tolerations

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
)

// seconds that a pod stays.
const seconds = int64(300)

// Plugin is a mutator.
type Plugin struct{ pods *api.Resource }

// New is the plugin.
func New(reg *api.Registry) *Plugin { return &Plugin{pods: reg.Must("", "pods")} }

// Admit implements admission.Mutator.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != p.pods || a.Subresource != "" {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !speaksOf(pod, taint) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key:               taint,
				Operator:          corev1.TolerationOpExists,
				Effect:            corev1.TaintEffectNoExecute,
				TolerationSeconds: ptr.To(seconds),
			})
		}
	}
	return nil
}

func speaksOf(pod *corev1.Pod, taint string) bool {
	for _, t := range pod.Spec.Tolerations {
		if (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}
