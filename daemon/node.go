package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent"
	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/node"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/ledger"
	"hansa.dev/hansa/internal/version"
	"hansa.dev/hansa/network/pod"
	"hansa.dev/hansa/pki"
	"hansa.dev/hansa/runtime"
)

// nodePort is where a node's own API is served.
const nodePort = 10250

// nodeRange is the part of the pods' addresses that the only node has: the
// first /24.
func (c Config) nodeRange() netip.Prefix { return netip.PrefixFrom(c.ClusterCIDR.Addr(), 24) }

// startPodNetwork connects pods.
func startPodNetwork(ctx context.Context, l *lifecycle, c Config, book *ledger.Ledger, log *slog.Logger) (*pod.Manager, error) {
	i := c.instance()
	m, err := pod.New(pod.Config{
		Instance: i.id, NodeCIDR: c.nodeRange(), ClusterCIDR: c.ClusterCIDR, ServiceCIDR: c.ServiceCIDR,
		Dir: i.attachedDir(), Socket: i.cniSocket(), Ledger: book.Record, Log: log, Clock: clock.RealClock{},
	})
	if err != nil {
		return nil, err
	}
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	l.cleanup("pod network", m.Close)
	return m, nil
}

// startAgent runs the node's pods and serves the node's own API.
func startAgent(l *lifecycle, c Config, listener net.Listener, a *pki.Authority, who authenticator.Request, z authorizer.UnconditionalAuthorizer, cl client.Interface, rt runtime.Runtime, tree *cgroup.Tree, book *ledger.Ledger, host work.Resolver, log *slog.Logger) (*agent.Agent, error) {
	ag, err := agent.New(agent.Config{
		NodeName: c.NodeName, NodeIPs: []netip.Addr{c.NodeIP}, DataDir: c.DataDir,
		Client: cl, Runtime: rt, Clock: clock.RealClock{}, Groups: tree, Ledger: book.Record,
		DNS:  work.DNS{Servers: []string{dnsAddress(c.ServiceCIDR).String()}, Domain: c.ClusterDomain, Host: host},
		Host: node.Host{Root: "/", DataDir: c.DataDir}, PodCIDR: c.nodeRange().String(), Port: nodePort,
		Version: version.GitVersion, Labels: c.NodeLabels, Taints: c.NodeTaints,
		Authorize: authorizeNode(c.NodeName, z), Log: log,
	})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: authenticateNode(who, ag.Handler()), TLSConfig: a.NodeServerTLS(c.NodeName, c.NodeIP.String()), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	server.TLSConfig.NextProtos = []string{"http/1.1"} // streams upgrade
	l.run("node API", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()
		return server.Serve(tls.NewListener(listener, server.TLSConfig))
	})
	l.run("agent", ag.Run)
	return ag, nil
}

// hostResolver is the host's resolver configuration.
func hostResolver(file string) (work.Resolver, error) {
	f, err := os.Open(file)
	if err != nil {
		return work.Resolver{}, fmt.Errorf("read the host's resolver configuration: %w", err)
	}
	defer f.Close()
	return work.ParseResolver(f)
}

// authenticateNode lets in those who prove who they are, by certificate or token,
// as to the API server (Kubernetes documentation, "Kubelet
// authentication/authorization").
func authenticateNode(who authenticator.Request, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, ok, err := who.AuthenticateRequest(r)
		if err != nil || !ok || resp.User.GetName() == user.Anonymous {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(apirequest.WithUser(r.Context(), resp.User)))
	})
}

// authorizeNode lets in those whom the cluster's roles allow it: the paths of a
// node's API stand for subresources of the node, as with the kubelet.
func authorizeNode(name string, z authorizer.UnconditionalAuthorizer) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, ok := apirequest.UserFrom(r.Context())
			if !ok {
				http.Error(w, "Unauthorized", http.StatusUnauthorized)
				return
			}
			decision, reason, err := z.Authorize(r.Context(), &authorizer.AttributesRecord{
				User: u, Verb: nodeVerb(r.Method), APIVersion: "v1", Resource: "nodes", Subresource: nodeSubresource(r.URL.Path),
				Name: name, ResourceRequest: true, Path: r.URL.Path,
			})
			if err != nil || decision != authorizer.DecisionAllow {
				http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource=%s): %s", u.GetName(), nodeVerb(r.Method), nodeSubresource(r.URL.Path), reason), http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func nodeVerb(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "get"
}

// nodeSubresource is what a path of a node's API stands for (Kubernetes
// documentation, "Kubelet authentication/authorization").
func nodeSubresource(path string) string {
	for prefix, sub := range map[string]string{"/stats": "stats", "/metrics": "metrics", "/logs": "log", "/checkpoint": "checkpoint"} {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return sub
		}
	}
	return "proxy"
}

// insecure accepts any certificate: pods that are proxied to show their own.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
