package aggregation

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// A probe is good when one of five attempts at once is, each with five seconds,
// as in Kubernetes.
const (
	attempts     = 5
	probeTimeout = 5 * time.Second
)

// Probe asks the server of a remote APIService for the one thing that it has to
// have, the discovery of its group-version: nil when that is there.
func (s *Server) Probe(ctx context.Context, a *apiregistrationv1.APIService) error {
	r := s.Remote(versionOf(a))
	if r == nil || !sameDoor(&r.service.Spec, &a.Spec) {
		r = s.newRemote(a, nil) // before Sync has seen it
		defer r.close()
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	results := make(chan error, attempts)
	for range attempts {
		go func() { results <- r.probe(ctx) }()
	}
	var err error
	for range attempts {
		if err = <-results; err == nil {
			return nil
		}
	}
	return err
}

func (r *Remote) probe(ctx context.Context) error {
	if r.broken != nil {
		return r.broken
	}
	got, err := r.get(ctx, prober, r.Discovery(), "*/*", "")
	if err != nil {
		r.close()
		return err
	}
	if got.code < http.StatusOK || got.code >= http.StatusMultipleChoices {
		at, _ := r.Location() //nolint:errcheck // it was there a moment ago; the text is all the same
		if at != nil {
			at.Path = r.Discovery()
		}
		return fmt.Errorf("bad status from %v: %d", at, got.code)
	}
	return nil
}
