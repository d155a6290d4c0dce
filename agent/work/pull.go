package work

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/image"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/client/events"
)

// pull makes sure that a container's image is there, and those of its volumes
// before. What is wrong with these is the container's, too.
func (w *Worker) pull(container string) step {
	p, c, hooks := w.state.Pod, w.state.Containers[container], w.hooks
	spec, report := c.Spec, w.reporter(container)
	return func(context.Context) (func(), error) {
		var found *cri.Image
		of, err := w.node.Volumes.PullImages(hooks, p, spec)
		if err == nil {
			found, err = w.node.Images.Ensure(hooks, image.Request{
				Image: spec.Image, Policy: spec.ImagePullPolicy, Secrets: w.node.pullSecrets(p), Pod: p, Sandbox: pullSandbox(p), Event: report,
			})
		}
		if err != nil {
			var failed *image.Error
			if errors.As(err, &failed) {
				if hooks.Err() == nil {
					report(v1.EventTypeWarning, "Failed", "Error: "+failed.Reason)
				}
				err = &pod.Failure{Reason: failed.Reason, Message: failed.Error(), Of: of}
			}
			return nil, err
		}
		return func() { c.Pull.Image = found }, nil
	}
}

// PullVolume makes sure that the image of a volume is there and answers with a
// name by which the runtime can mount it: unlike for containers, an ID will not
// do.
func (n *Node) PullVolume(ctx context.Context, p *v1.Pod, ref string, policy v1.PullPolicy) (string, error) {
	about := events.About(podKind, p, "")
	found, err := n.Images.Ensure(ctx, image.Request{
		Image: ref, Policy: policy, Secrets: n.pullSecrets(p), Pod: p, Sandbox: pullSandbox(p),
		Event: func(kind, reason, message string) { n.Events.Event(about, kind, reason, message) },
	})
	if err != nil {
		return "", err
	}
	for _, name := range append(found.RepoTags, found.RepoDigests...) {
		return name, nil
	}
	return found.Id, nil
}

// pullSandbox tells the runtime whom an image is for.
func pullSandbox(p *v1.Pod) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID)},
		Labels:   podLabels(p),
	}
}

func (n *Node) pullSecrets(p *v1.Pod) []*v1.Secret {
	var out []*v1.Secret
	for _, ref := range p.Spec.ImagePullSecrets {
		if s := n.Objects.Secret(p.Namespace, ref.Name); s != nil {
			out = append(out, s)
		} else {
			n.Events.Event(events.About(podKind, p, ""), v1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets ("+ref.Name+"); attempting to pull the image may not succeed.")
		}
	}
	return out
}
