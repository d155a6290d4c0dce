package agent

import (
	"context"
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/server"
	"hansa.dev/hansa/agent/work"
)

// Pauses before something that failed is tried again.
const (
	lookPause   = time.Second
	orphanPause = 10 * time.Second
)

// nodeView is the Agent as the node API shows it.
type nodeView struct{ a *Agent }

// Pods are those that have a worker.
func (n nodeView) Pods() []*v1.Pod { return n.a.pods() }

// Healthy asks the runtime.
func (n nodeView) Healthy(ctx context.Context) error { return n.a.Runtime.Ready(ctx) }

func (n nodeView) worker(namespace, name string, uid types.UID) (*entry, error) {
	a := n.a
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	for id, w := range a.workers {
		if w.key.Namespace != namespace || w.key.Name != name || uid != "" && uid != id && w.static == nil {
			continue
		}
		if a.current(id, w) != nil {
			return w, nil
		}
	}
	return nil, &server.Error{Code: http.StatusNotFound, Message: fmt.Sprintf("pod %q not found", name)}
}

// Run finds a run of a container.
func (n nodeView) Run(ctx context.Context, namespace, name string, uid types.UID, container string, previous bool) (server.Run, error) {
	w, err := n.worker(namespace, name, uid)
	if err != nil {
		return server.Run{}, err
	}
	r, err := w.FindRun(ctx, container, previous)
	if err != nil {
		return server.Run{}, &server.Error{Code: http.StatusBadRequest, Message: err.Error()}
	}
	return server.Run(r), nil
}

// Sandbox finds a pod's sandbox.
func (n nodeView) Sandbox(ctx context.Context, namespace, name string, uid types.UID) (string, error) {
	w, err := n.worker(namespace, name, uid)
	if err != nil {
		return "", err
	}
	id, err := w.FindSandbox(ctx)
	if err != nil {
		return "", &server.Error{Code: http.StatusBadRequest, Message: err.Error()}
	}
	return id, nil
}

var _ server.Node = nodeView{}
var _ work.Objects = (*objects)(nil)
