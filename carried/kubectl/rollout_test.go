package main

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubectl/pkg/polymorphichelpers"
)

// Whoever waits for a rollout is told why it failed.
func TestRolloutStatusSaysWhy(t *testing.T) {
	condition := func(kind, status, reason, message string) any {
		return map[string]any{"type": kind, "status": status, "reason": reason, "message": message}
	}
	late := condition("Progressing", "False", "ProgressDeadlineExceeded", "pod web-1 crashed")
	const deadline, onDelete = `deployment "web" exceeded its progress deadline`, "rollout status is only available for RollingUpdate strategy type"
	for _, c := range []struct {
		name, kind string
		conditions []any
		want       string
	}{
		{"not monitored", "Deployment", []any{late}, deadline},
		{"not yet undone", "Deployment", []any{late, condition("RolledBack", "False", "Monitoring", "is monitored")}, deadline + ": pod web-1 crashed"},
		{"undone", "Deployment", []any{late, condition("RolledBack", "True", "Crashed", "Revision 2 failed")}, deadline + ": Revision 2 failed"},
		{"goes on", "Deployment", []any{condition("RolledBack", "False", "Monitoring", "is monitored")}, ""},
		{"paused", "StatefulSet", []any{condition("RolledBack", "False", "Paused", "Revision 2 failed, and the rollout is paused")}, onDelete + ": Revision 2 failed, and the rollout is paused"},
		{"undone", "DaemonSet", []any{condition("RolledBack", "True", "Crashed", "Revision 2 failed")}, onDelete + ": Revision 2 failed"},
		{"by hand", "DaemonSet", nil, onDelete},
	} {
		viewer, err := explained(polymorphichelpers.StatusViewerFn)(&meta.RESTMapping{GroupVersionKind: schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: c.kind}})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = viewer.Status(&unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{"name": "web"},
			"spec":     map[string]any{"replicas": int64(1), "updateStrategy": map[string]any{"type": "OnDelete"}},
			"status":   map[string]any{"conditions": c.conditions},
		}}, 0)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.kind, c.name, got, c.want)
		}
	}
	if _, err := explained(polymorphichelpers.StatusViewerFn)(&meta.RESTMapping{GroupVersionKind: schema.GroupVersionKind{Kind: "Pod"}}); err == nil {
		t.Error("pods are rolled out")
	}
}
