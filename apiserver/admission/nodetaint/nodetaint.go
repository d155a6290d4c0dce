// Package nodetaint taints new nodes as not ready, so that nothing is placed on
// one before the node loop has seen its first status.
package nodetaint

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
)

// Plugin is a mutator.
type Plugin struct{ nodes *api.Resource }

// New is the plugin.
func New(reg *api.Registry) *Plugin { return &Plugin{nodes: reg.Must("", "nodes")} }

// Admit implements admission.Mutator.
func (p *Plugin) Admit(_ context.Context, a *admission.Attributes) error {
	if a.Resource != p.nodes || a.Subresource != "" || a.Operation != admission.Create {
		return nil
	}
	node, ok := a.Object.(*corev1.Node)
	if !ok {
		return nil
	}
	notReady := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].MatchTaint(&notReady) {
			return nil
		}
	}
	node.Spec.Taints = append(node.Spec.Taints, notReady)
	return nil
}
