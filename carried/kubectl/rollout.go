package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubectl/pkg/polymorphichelpers"
)

// explained is upstream's viewer of rollouts, whose errors say why as well: by the
// condition RolledBack, which Hansa gives workloads that it monitors
// (design/rollback.md).
func explained(upstream func(*meta.RESTMapping) (polymorphichelpers.StatusViewer, error)) func(*meta.RESTMapping) (polymorphichelpers.StatusViewer, error) {
	return func(mapping *meta.RESTMapping) (polymorphichelpers.StatusViewer, error) {
		viewer, err := upstream(mapping)
		if err != nil {
			return nil, err
		}
		return explainer{viewer}, nil
	}
}

type explainer struct {
	polymorphichelpers.StatusViewer
}

func (e explainer) Status(obj runtime.Unstructured, revision int64) (string, bool, error) {
	text, done, err := e.StatusViewer.Status(obj, revision)
	if err != nil {
		if why := failure(obj); why != "" {
			err = fmt.Errorf("%w: %s", err, why)
		}
	}
	return text, done, err
}

// failure is why a revision failed, or empty. Until RolledBack says what was done
// about it, the condition Progressing of a Deployment does.
func failure(obj runtime.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(obj.UnstructuredContent(), "status", "conditions")
	monitored, failed, late := false, "", ""
	for _, c := range conditions {
		c, _ := c.(map[string]any)
		message, _ := c["message"].(string)
		switch c["type"] {
		case "RolledBack":
			monitored = true
			if c["status"] == "True" || c["reason"] == "Paused" || c["reason"] == "NoGoodRevision" {
				failed = message
			}
		case "Progressing":
			if c["reason"] == "ProgressDeadlineExceeded" {
				late = message
			}
		}
	}
	if failed == "" && monitored {
		return late
	}
	return failed
}
