package work

import (
	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/client/events"
)

var podKind = v1.SchemeGroupVersion.WithKind("Pod")

// podEvent reports something about the pod as a whole.
func (w *Worker) podEvent(p *v1.Pod, kind, reason, message string) {
	w.node.Events.Event(events.About(podKind, p, ""), kind, reason, message)
}

// containerEvent reports something about a container. It may be called from the
// worker's goroutine only; steps use what reporter gives them.
func (w *Worker) containerEvent(container, kind, reason, message string) {
	w.reporter(container)(kind, reason, message)
}

// reporter reports about one container, from any goroutine.
func (w *Worker) reporter(container string) func(kind, reason, message string) {
	about := events.About(podKind, w.state.Pod, fieldPath(w.state.Containers[container]))
	return func(kind, reason, message string) { w.node.Events.Event(about, kind, reason, message) }
}

func fieldPath(c *pod.Container) string {
	if c == nil {
		return ""
	}
	list := "containers"
	switch c.Kind {
	case pod.Init, pod.Sidecar:
		list = "initContainers"
	case pod.Ephemeral:
		list = "ephemeralContainers"
	}
	return "spec." + list + "{" + c.Name + "}"
}
