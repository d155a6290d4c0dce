package certificates

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// keepPodRequest is how long a PodCertificateRequest is kept: a node and a
// signer are done with it long before.
const keepPodRequest = 15 * time.Minute

// PodCleaner clears away PodCertificateRequests.
type PodCleaner struct {
	client   client.Interface
	requests *api.Resource
}

// NewPodCleaner makes the loop; it acts as the client's identity.
func NewPodCleaner(c client.Interface) *PodCleaner {
	return &PodCleaner{c, c.Registry().Must("certificates.k8s.io", "podcertificaterequests")}
}

// Name is the loop's identity.
func (l *PodCleaner) Name() string { return "podcertificaterequestcleaner" }

// Sources are the requests.
func (l *PodCleaner) Sources() []controller.Source {
	return []controller.Source{{Resource: l.requests}}
}

// Step removes a request that is old, or comes back when it will be.
func (l *PodCleaner) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	r := l.client.View().Get(l.requests, key)
	if r == nil || r.GetDeletionTimestamp() != nil {
		return 0, nil
	}
	if left := r.GetCreationTimestamp().Add(keepPodRequest).Sub(now); left > 0 {
		return left, nil
	}
	uid := r.GetUID()
	err := l.client.Delete(ctx, api.RefTo(l.requests, r), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("unable to delete PodCertificateRequest %q: %w", key, err)
	}
	return 0, nil
}
