package webhook

import (
	"fmt"
	"io"
	"net/http"

	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
)

// maxAnswer bounds, in bytes, what is read of a webhook's answer: a patch that
// replaces an object of the largest size (3 MiB), in base64, with room to spare.
// Kubernetes reads whatever comes.
const maxAnswer = 8 << 20

// limited has the clients of webhooks read no more than maxAnswer.
func limited(next webhookutil.AuthenticationInfoResolver) webhookutil.AuthenticationInfoResolver {
	limit := func(c *rest.Config, err error) (*rest.Config, error) {
		if err == nil {
			c = rest.CopyConfig(c)
			c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return limiter{rt} })
		}
		return c, err
	}
	return &webhookutil.AuthenticationInfoResolverDelegator{
		ClientConfigForFunc: func(hostPort string) (*rest.Config, error) { return limit(next.ClientConfigFor(hostPort)) },
		ClientConfigForServiceFunc: func(name, namespace string, port int) (*rest.Config, error) {
			return limit(next.ClientConfigForService(name, namespace, port))
		},
	}
}

type limiter struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limiter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err == nil {
		resp.Body = &body{resp.Body, maxAnswer}
	}
	return resp, err
}

type body struct {
	io.ReadCloser
	left int
}

// Read fails once there is more than may be.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	return n, err
}
