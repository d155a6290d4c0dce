package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent"
	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/node"
	"hansa.dev/hansa/agent/server"
	"hansa.dev/hansa/agent/shutdown"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/ledger"
	"hansa.dev/hansa/internal/version"
	"hansa.dev/hansa/network/pod"
	"hansa.dev/hansa/pki"
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
func startAgent(l *lifecycle, c Config, listener net.Listener, a *pki.Authority, who authenticator.Request, z authorizer.UnconditionalAuthorizer, cl client.Interface, rt *nodeRuntime, tree *cgroup.Tree, book *ledger.Ledger, log *slog.Logger) (*agent.Agent, error) {
	serving := a.NodeServerTLS(c.NodeName, c.NodeIP.String())
	ag, err := agent.New(agent.Config{
		NodeName: c.NodeName, NodeIPs: []netip.Addr{c.NodeIP}, DataDir: c.DataDir,
		Client: cl, Runtime: rt.Client, Hung: rt.replace, Looked: rt.looked, SelfConfined: rt.ours, OnClockJump: onClockJump(log), Clock: clock.RealClock{}, Groups: tree, Ledger: book.Record,
		DNS: nodeDNS(c), Settings: c.Node, ImageDir: c.instance().path("containerd"),
		Host: node.Host{Root: "/", DataDir: c.DataDir}, PodCIDR: c.nodeRange().String(), Port: nodePort,
		Version: version.GitVersion, Labels: c.NodeLabels, Taints: c.NodeTaints,
		Pages: c.pages("kubelet", strings.TrimPrefix(version.Kubernetes, "v")),
		Certificate: func() (time.Time, error) {
			cert, err := serving.GetCertificate(nil)
			if err != nil {
				return time.Time{}, err
			}
			return cert.Leaf.NotAfter, nil
		},
		Authorize: authorizeNode(c.NodeName, z), GoneLogs: c.GoneLogs, Log: log,
		Bus: cmp.Or(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), shutdown.DefaultBus), Environ: os.Environ(),
	})
	if err != nil {
		return nil, err
	}
	api := &http.Server{Handler: authenticateNode(who, ag.Handler()), TLSConfig: serving, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	api.TLSConfig.NextProtos = []string{"http/1.1"} // streams upgrade
	l.run("node API", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { api.Close() })
		defer stop()
		return api.Serve(tls.NewListener(listener, api.TLSConfig))
	})
	l.run("agent", ag.Run)
	return ag, nil
}

// nodeDNS is how the node's pods resolve names: by the cluster's server, unless
// its settings say otherwise.
func nodeDNS(c Config) work.DNS {
	dns := work.DNS{Servers: []string{dnsAddress(c.ServiceCIDR).String()}, Domain: cmp.Or(c.Node.ClusterDomain, c.ClusterDomain)}
	if *c.Node.ResolverConfig != "" {
		dns.Host = func() (work.Resolver, error) { return hostResolver(*c.Node.ResolverConfig) }
	}
	if len(c.Node.ClusterDNS) > 0 {
		dns.Servers = c.Node.ClusterDNS
	}
	return dns
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
			var reason string
			asked := nodeAttributes(name, r)
			for _, one := range asked {
				one.User = u
				decision, why, err := z.Authorize(r.Context(), one)
				if err == nil && decision == authorizer.DecisionAllow {
					next.ServeHTTP(w, r)
					return
				}
				reason = why
			}
			var subs []string
			for _, one := range asked {
				subs = append(subs, one.Subresource)
			}
			http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=%s, subresource(s)=%v): %s", u.GetName(), asked[0].Verb, asked[0].Resource, subs, reason), http.StatusForbidden)
		})
	}
}

// nodeAttributes are what a request to a node's API asks for; one of them is
// enough. Logs of pods by our own path, of those that are gone above all, are for
// whoever may read the logs of the namespace's pods.
func nodeAttributes(node string, r *http.Request) []*authorizer.AttributesRecord {
	a := authorizer.AttributesRecord{Verb: nodeVerb(r.Method), APIVersion: "v1", ResourceRequest: true, Path: r.URL.Path}
	if rest, ok := strings.CutPrefix(r.URL.Path, server.LogsPath); ok {
		a.Resource, a.Subresource = "pods", "log"
		a.Namespace, a.Name, _ = strings.Cut(rest, "/")
		if a.Name == "" {
			a.Verb = "list"
		}
		return []*authorizer.AttributesRecord{&a}
	}
	a.Resource, a.Name = "nodes", node
	var out []*authorizer.AttributesRecord
	for _, sub := range nodeSubresources(r.URL.Path) {
		one := a
		one.Subresource = sub
		out = append(out, &one)
	}
	return out
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

// nodeSubresources are what a path of a node's API stands for: any of them
// suffices (Kubernetes documentation, "Kubelet authentication/authorization",
// "Fine-grained authorization").
func nodeSubresources(path string) []string {
	within := func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
	for prefix, sub := range map[string]string{"/stats": "stats", "/metrics": "metrics", "/logs": "log", "/checkpoint": "checkpoint", "/statusz": "statusz", "/flagz": "configz"} {
		if within(prefix) {
			return []string{sub}
		}
	}
	for prefix, sub := range map[string]string{"/pods": "pods", "/runningpods": "pods", "/healthz": "healthz", "/configz": "configz"} {
		if within(prefix) {
			return []string{sub, "proxy"}
		}
	}
	return []string{"proxy"}
}

// insecure accepts any certificate: pods that are proxied to show their own.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
