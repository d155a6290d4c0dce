package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/pki"
)

// flooders are the connections of the service account, heartbeatEvery is how
// often the node and the administrator ask for something meanwhile.
const (
	flooders       = 200
	heartbeatEvery = 20 * time.Millisecond
	floodNamespace = "flood"
	floodNode      = "bench-node"
)

// flood measures how long a node's lease and the administrator's gets take while
// 200 connections of one service account create, get and list as fast as they
// are answered. What is refused is tried again at once, which no client of
// Kubernetes does.
func (l *load) flood(ctx context.Context) error {
	admin := l.clients[0]
	token, err := floodAccount(ctx, admin)
	if err != nil {
		return fmt.Errorf("prepare the flood: %w", err)
	}
	node, err := l.node()
	if err != nil {
		return err
	}
	defer node.Close()
	ctx, cancel := context.WithTimeout(ctx, warm()+*phase)
	defer cancel()
	var answered, refused atomic.Int64
	errs := make(chan error, flooders+2)
	var all sync.WaitGroup
	bearer := rig.Target{URL: l.target.URL, TLS: l.target.TLS.Clone(), Token: token}
	bearer.TLS.Certificates, bearer.TLS.GetClientCertificate = nil, nil
	for i := range flooders {
		c := bearer.Connect()
		defer c.Close()
		all.Go(func() { errs <- rush(ctx, c, i, &answered, &refused) })
	}
	began := time.Now()
	heartbeats, gets := &series{from: began.Add(warm())}, &series{from: began.Add(warm())}
	all.Go(func() { errs <- heartbeats.keep(ctx, func() error { return renew(ctx, node) }) })
	all.Go(func() {
		errs <- gets.keep(ctx, func() error {
			_, err := admin.Discard(ctx, http.MethodGet, "/api/v1/namespaces/"+floodNamespace, "", nil)
			return err
		})
	})
	all.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}
	total := answered.Load() + refused.Load()
	l.Figure("flood", float64(answered.Load())/(warm()+*phase).Seconds(), "1/s")
	l.Figure("flood_refused", 100*float64(refused.Load())/float64(max(total, 1)), "%")
	l.Figure("heartbeat_p99", heartbeats.p99(), "ms")
	l.Figure("admin_p99", gets.p99(), "ms")
	return nil
}

// floodAccount makes a service account that may edit its namespace, and gives
// its token.
func floodAccount(ctx context.Context, admin *rig.Client) (string, error) {
	meta := metav1.ObjectMeta{Name: floodNamespace}
	in := "/namespaces/" + floodNamespace
	binding := rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: floodNamespace, Namespace: floodNamespace}},
	}
	for _, step := range []struct {
		path string
		obj  any
	}{
		{"/api/v1/namespaces", corev1.Namespace{ObjectMeta: meta}},
		{"/api/v1" + in + "/serviceaccounts", corev1.ServiceAccount{ObjectMeta: meta}},
		{"/apis/rbac.authorization.k8s.io/v1" + in + "/rolebindings", binding},
		{"/api/v1/nodes", corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: floodNode}}},
		{"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: floodNode}}},
	} {
		if err := admin.Call(ctx, http.MethodPost, step.path, step.obj, nil); err != nil {
			return "", err
		}
	}
	var token authenticationv1.TokenRequest
	err := admin.Call(ctx, http.MethodPost, "/api/v1"+in+"/serviceaccounts/"+floodNamespace+"/token", authenticationv1.TokenRequest{}, &token)
	return token.Status.Token, err
}

// node is a client with the certificate of a node.
func (l *load) node() (*rig.Client, error) {
	authority, err := pki.Open(filepath.Join(l.cluster.Dir, "pki"), pki.Options{})
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authorities: %w", err)
	}
	cert, err := authority.API.Issue(pki.NodeIdentity(floodNode))
	if err != nil {
		return nil, err
	}
	t := rig.Target{URL: l.target.URL, TLS: l.target.TLS.Clone()}
	t.TLS.Certificates, t.TLS.GetClientCertificate = append(t.TLS.Certificates[:0:0], *cert), nil
	return t.Connect(), nil
}

// rush asks for one thing after the other until the context ends.
func rush(ctx context.Context, c *rig.Client, who int, answered, refused *atomic.Int64) error {
	path := configMaps.collection(floodNamespace)
	for i := 0; ctx.Err() == nil; i++ {
		var err error
		switch name := fmt.Sprintf("cm-%d-%d", who, i/3); i % 3 {
		case 0:
			_, err = c.Discard(ctx, http.MethodPost, path, rig.JSON, fmt.Appendf(nil, `{"metadata":{"name":"%s"},"data":{"payload":"%s"}}`, name, payload))
		case 1:
			_, err = c.Discard(ctx, http.MethodGet, path+"?limit=100", "", nil)
		case 2:
			_, err = c.Discard(ctx, http.MethodDelete, path+"/"+name, "", nil)
		}
		switch {
		case err == nil:
			answered.Add(1)
		case rig.IsRefusal(err, http.StatusTooManyRequests):
			refused.Add(1)
		case ctx.Err() == nil && !rig.IsRefusal(err, http.StatusNotFound):
			return fmt.Errorf("flood: %w", err)
		}
	}
	return nil
}

// renew renews the node's lease as an agent does.
func renew(ctx context.Context, node *rig.Client) error {
	_, err := node.Discard(ctx, http.MethodPatch, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+floodNode,
		"application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro)))
	return err
}

// series is how long something took each time.
type series struct {
	from time.Time // what began before does not count
	took []time.Duration
}

// keep does something again and again until the context ends.
func (s *series) keep(ctx context.Context, do func() error) error {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		start := time.Now()
		if err := do(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("while flooded: %w", err)
		}
		if start.After(s.from) {
			s.took = append(s.took, time.Since(start))
		}
	}
}

func (s *series) p99() float64 {
	slices.Sort(s.took)
	return float64(rig.Quantile(s.took, 0.99)) / float64(time.Millisecond)
}
