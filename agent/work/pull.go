package work

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/image"
	"hansa.dev/hansa/agent/pod"
)

// pull makes sure that a container's image is there.
func (w *Worker) pull(container string) step {
	p, c, hooks := w.state.Pod, w.state.Containers[container], w.hooks
	spec, report := c.Spec, w.reporter(container)
	return func(context.Context) (func(), error) {
		found, err := w.node.Images.Ensure(hooks, image.Request{
			Image:   spec.Image,
			Policy:  spec.ImagePullPolicy,
			Secrets: w.pullSecrets(p),
			Sandbox: &cri.PodSandboxConfig{
				Metadata: &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
				Labels:   podLabels(p),
			},
			Event: report,
		})
		if err != nil {
			var failed *image.Error
			if errors.As(err, &failed) {
				if hooks.Err() == nil && failed.Reason == pod.ErrImagePull {
					report(v1.EventTypeWarning, "Failed", "Error: ErrImagePull")
				}
				err = &pod.Failure{Reason: failed.Reason, Message: failed.Error()}
			}
			return nil, err
		}
		return func() { c.Pull.Image = found }, nil
	}
}

func (w *Worker) pullSecrets(p *v1.Pod) []*v1.Secret {
	var out []*v1.Secret
	for _, ref := range p.Spec.ImagePullSecrets {
		if s := w.node.Objects.Secret(p.Namespace, ref.Name); s != nil {
			out = append(out, s)
		} else {
			w.podEvent(p, v1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets ("+ref.Name+"); attempting to pull the image may not succeed.")
		}
	}
	return out
}
