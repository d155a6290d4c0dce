package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/server"
	"hansa.dev/hansa/agent/work"
)

// Pauses before something that failed is tried again.
const (
	lookPause   = time.Second
	orphanPause = 10 * time.Second
)

// callsPause is how long a runtime may be at calls of an agent that has died: it
// gives up what was asked for, and clears each part of it away within 10 seconds.
const callsPause = time.Minute

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

// Run finds a run of a container; of the only one where container is empty.
func (n nodeView) Run(ctx context.Context, namespace, name string, uid types.UID, container string, previous bool) (server.Run, error) {
	w, err := n.worker(namespace, name, uid)
	if err != nil {
		return server.Run{}, err
	}
	if p := n.a.podOf(w.key); container == "" && p != nil {
		var names []string
		for i := range p.Spec.Containers {
			names = append(names, p.Spec.Containers[i].Name)
		}
		if container, err = only(name, names); err != nil {
			return server.Run{}, err
		}
	}
	r, err := w.FindRun(ctx, container, previous)
	if err != nil {
		return server.Run{}, &server.Error{Code: http.StatusBadRequest, Message: err.Error()}
	}
	return server.Run(r), nil
}

// only is the only container of a pod.
func only(pod string, containers []string) (string, error) {
	if len(containers) == 1 {
		return containers[0], nil
	}
	return "", &server.Error{Code: http.StatusBadRequest, Message: fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod, containers)}
}

// Gone lists pods whose logs are kept.
func (n nodeView) Gone(namespace string) []logs.Gone { return n.a.node.Logs.List(namespace) }

// GoneFiles finds the log of a pod that is gone.
func (n nodeView) GoneFiles(namespace, name string, uid types.UID, container string, previous bool) ([]string, error) {
	g, ok := n.a.node.Logs.Find(namespace, name, string(uid))
	if !ok {
		return nil, &server.Error{Code: http.StatusNotFound, Message: fmt.Sprintf("pod %q not found, and no log of it is kept", name)}
	}
	if container == "" {
		var err error
		if container, err = only(name, g.Containers); err != nil {
			return nil, err
		}
	}
	files, err := n.a.node.Logs.Files(g, container, previous)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &server.Error{Code: http.StatusBadRequest, Message: fmt.Sprintf("container %s is not valid for pod %s, which is gone; it had %v", container, name, g.Containers)}
	case err != nil:
		return nil, err
	case len(files) == 0 && previous:
		return nil, &server.Error{Code: http.StatusBadRequest, Message: fmt.Sprintf("previous terminated container %q in pod %q not found", container, name)}
	}
	return files, nil
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
