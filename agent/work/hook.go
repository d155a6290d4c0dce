package work

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/probe"
)

// hookTarget is the container that a hook is for.
type hookTarget struct {
	spec   *v1.Container
	ip, id string
}

// hook runs a lifecycle hook to its end.
func (w *Worker) hook(ctx context.Context, h *v1.LifecycleHandler, t hookTarget) error {
	switch {
	case h.Exec != nil:
		out, errOut, code, err := w.node.Runtime.ExecSync(ctx, t.id, h.Exec.Command, 0)
		if err != nil {
			return fmt.Errorf("exec hook %q: %w", strings.Join(h.Exec.Command, " "), err)
		}
		if code != 0 {
			return fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), code, append(errOut, out...))
		}
		return nil
	case h.HTTPGet != nil:
		return httpHook(ctx, h.HTTPGet, probe.Target{Container: t.spec, IP: t.ip})
	case h.Sleep != nil:
		timer := w.node.Clock.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the hook has no handler that this node can run: it has exec, httpGet and sleep")
}

// httpHook asks once; any answer will do, as with Kubernetes: a hook tells, it
// does not ask. A server that answers an https request in plain text is asked
// again without TLS.
func httpHook(ctx context.Context, get *v1.HTTPGetAction, t probe.Target) error {
	req, err := probe.Request(ctx, get, t, "kube-lifecycle/1.37")
	if err != nil {
		return err
	}
	resp, err := probe.Client.Do(req)
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && string(plain.RecordHeader[:]) == "HTTP/" {
		req = req.Clone(ctx)
		req.URL.Scheme = "http"
		req.Header.Del("Authorization")
		resp, err = probe.Client.Do(req)
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
