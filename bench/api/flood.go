package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
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
	floodListed    = "flood-listed" // the namespace of the 5,000 objects
	floodNode      = "bench-node"
)

// flood measures how long a node's lease and what the administrator does take while
// 200 connections of one service account ask as fast as they are answered: of
// all sorts, then of each sort that is heavy in its own way. What is refused is
// tried again at once, which no client of Kubernetes does.
func (l *load) flood(ctx context.Context) error {
	token, err := floodAccount(ctx, l.clients[0])
	if err != nil {
		return fmt.Errorf("prepare the flood: %w", err)
	}
	if err := l.fill(ctx, floodListed, 5000); err != nil {
		return err
	}
	node, err := l.node()
	if err != nil {
		return err
	}
	defer node.Close()
	for _, sort := range floodSorts {
		if err := l.floodOf(ctx, sort, token, node); err != nil {
			return fmt.Errorf("flood of %s: %w", sort, err)
		}
	}
	return nil
}

// floodOf is a flood of one sort. The flooders are a process of their own, as
// its scheduler must not hold up those who are measured.
func (l *load) floodOf(ctx context.Context, sort, token string, node *rig.Client) error {
	ctx, cancel := context.WithTimeout(ctx, warm()+*phase)
	defer cancel()
	var all sync.WaitGroup
	began := time.Now()
	stop, err := startFlooders(l.cluster.Dir, sort, token)
	if err != nil {
		return err
	}
	others := l.others(node)
	for i := range others {
		o := &others[i]
		o.from = began.Add(warm())
		all.Go(func() { o.err = o.keep(ctx) })
	}
	profile := make(chan error, 1)
	go func() { profile <- l.Profile(ctx, l.cluster, "flood_"+sort, "cpu", *phase*3/4) }()
	all.Wait()
	took := time.Since(began)
	answered, refused, err := stop()
	err = errors.Join(err, <-profile)
	for _, o := range others {
		err = errors.Join(err, o.err)
	}
	if err != nil {
		return err
	}
	name := floodName(sort)
	l.Figure(name, float64(answered)/took.Seconds(), "1/s")
	l.Figure(name+"_refused", 100*float64(refused)/float64(max(answered+refused, 1)), "%")
	for _, o := range others {
		l.Figure(name+"_"+o.name+"_p99", o.p99(), "ms")
	}
	return nil
}

// floodName begins the names of the figures of a sort.
func floodName(sort string) string {
	if sort == floodSorts[0] {
		return "flood"
	}
	return "flood_" + sort
}

// others are those who are measured, each on a connection of its own: the node, and
// the administrator who gets, lists, watches and writes.
func (l *load) others(node *rig.Client) []series {
	const namespaces = "/api/v1/namespaces"
	asks := func(admin int, method, path, contentType, body string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := l.clients[admin].Discard(ctx, method, path, contentType, []byte(body))
			return err
		}
	}
	return []series{
		{name: "heartbeat", do: func(ctx context.Context) error { return renew(ctx, node) }},
		{name: "admin", do: asks(0, http.MethodGet, namespaces+"/"+floodNamespace, "", "")},
		{name: "admin_list", do: asks(1, http.MethodGet, namespaces, "", "")},
		{name: "admin_watch", do: func(ctx context.Context) error { return firstOf(ctx, l.clients[2], namespaces) }},
		{name: "admin_write", do: asks(3, http.MethodPost, namespaces+"/default/configmaps", rig.JSON, `{"metadata":{"generateName":"flood-"}}`)},
	}
}

// firstOf begins a watch and reads what comes first.
func firstOf(ctx context.Context, c *rig.Client, path string) error {
	answer, err := c.Open(ctx, http.MethodGet, path+"?watch=true&resourceVersion=0", "", nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	_, err = answer.Read(make([]byte, 1<<10))
	return err
}

// floodAccount makes a service account that may edit its namespace and the one
// with the lists, and gives its token.
func floodAccount(ctx context.Context, admin *rig.Client) (string, error) {
	meta := metav1.ObjectMeta{Name: floodNamespace}
	in := "/namespaces/" + floodNamespace
	binding := rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: floodNamespace, Namespace: floodNamespace}},
	}
	const rbac = "/apis/rbac.authorization.k8s.io/v1"
	for _, step := range []struct {
		path string
		obj  any
	}{
		{"/api/v1/namespaces", corev1.Namespace{ObjectMeta: meta}},
		{"/api/v1" + in + "/serviceaccounts", corev1.ServiceAccount{ObjectMeta: meta}},
		{rbac + in + "/rolebindings", binding},
		{"/api/v1/namespaces", corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: floodListed}}},
		{rbac + "/namespaces/" + floodListed + "/rolebindings", binding},
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

// renew renews the node's lease as an agent does.
func renew(ctx context.Context, node *rig.Client) error {
	_, err := node.Discard(ctx, http.MethodPatch, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+floodNode,
		"application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro)))
	return err
}

// series is how long something takes each time.
type series struct {
	name string
	do   func(context.Context) error
	from time.Time // what began before does not count
	took []time.Duration
	err  error
}

// keep does it again and again until the context ends.
func (s *series) keep(ctx context.Context) error {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		start := time.Now()
		if err := s.do(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s, while flooded: %w", s.name, err)
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
