package pki

import (
	"crypto/tls"
	"net/netip"
)

// Identities that the certificates of a cluster name.
const (
	// AdminName is whom the administrator's kubeconfig names, a member of
	// MastersGroup.
	AdminName    = "hansa-admin"
	MastersGroup = "system:masters"
	// NodesGroup and NodePrefix make a node's identity.
	NodesGroup = "system:nodes"
	NodePrefix = "system:node:"
	// KubeletClientName is the API server as a client of its nodes.
	KubeletClientName = "kube-apiserver-kubelet-client"
	// FrontProxyName is the API server as a client of servers behind it.
	FrontProxyName = "front-proxy-client"
)

// AdminIdentity is the administrator's.
func AdminIdentity() Identity {
	return Identity{CommonName: AdminName, Organizations: []string{MastersGroup}, Client: true}
}

// NodeIdentity is that of a node as a client of the API.
func NodeIdentity(node string) Identity {
	return Identity{CommonName: NodePrefix + node, Organizations: []string{NodesGroup}, Client: true}
}

// APIServerNames are the names under which the API server is reached:
// from pods, from its own machine, and by whatever is given as others (the
// advertised address, node names).
func APIServerNames(domain string, service netip.Addr, others ...string) []string {
	names := []string{
		"kubernetes",
		"kubernetes.default",
		"kubernetes.default.svc",
		"kubernetes.default.svc." + domain,
		"localhost",
		"127.0.0.1",
		"::1",
		service.String(),
	}
	return append(names, others...)
}

// ServerTLS serves the API under the given names. It asks clients for a
// certificate but does not judge it: a bad one is answered with 401, by the
// authenticator, and not by a broken connection.
func (a *Authority) ServerTLS(names []string) *tls.Config {
	leaf := a.API.Leaf(Identity{CommonName: "kube-apiserver", Names: names, Server: true})
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: leaf.ForServer,
		ClientAuth:     tls.RequestClientCert,
		ClientCAs:      a.API.Pool(),
	}
}

// NodeServerTLS serves a node's own API (port 10250). names are the node's
// name and addresses. A client's certificate has to be of the API authority; who
// shows none proves itself by a token, which is the node API's to look at.
func (a *Authority) NodeServerTLS(node string, names ...string) *tls.Config {
	leaf := a.API.Leaf(Identity{
		CommonName:    NodePrefix + node,
		Organizations: []string{NodesGroup},
		Names:         append([]string{node, "localhost", "127.0.0.1", "::1"}, names...),
		Server:        true,
	})
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: leaf.ForServer,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      a.API.Pool(),
		Time:           a.clock.Now,
	}
}

// ClientTLS is for a client of the API server, or of a node's API, as the
// given identity.
func (a *Authority) ClientTLS(id Identity) *tls.Config { return clientTLS(a.API, id, a) }

// KubeletClientTLS is for the API server's connections to its nodes.
func (a *Authority) KubeletClientTLS() *tls.Config {
	return a.ClientTLS(Identity{CommonName: KubeletClientName, Client: true})
}

// FrontProxyClientTLS shows the front proxy's certificate; the servers behind
// the proxy have authorities of their own, which the caller sets as RootCAs.
func (a *Authority) FrontProxyClientTLS() *tls.Config {
	c := clientTLS(a.FrontProxy, Identity{CommonName: FrontProxyName, Client: true}, a)
	c.RootCAs = nil
	return c
}

// EtcdServerTLS is for an etcd member, towards clients and other members: both
// must have a certificate of the etcd authority.
func (a *Authority) EtcdServerTLS(member string, names ...string) *tls.Config {
	leaf := a.Etcd.Leaf(Identity{
		CommonName: member,
		Names:      append([]string{"localhost", "127.0.0.1", "::1"}, names...),
		Server:     true,
		Client:     true,
	})
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		GetCertificate:       leaf.ForServer,
		GetClientCertificate: leaf.ForClient,
		RootCAs:              a.Etcd.Pool(),
		ClientAuth:           tls.RequireAndVerifyClientCert,
		ClientCAs:            a.Etcd.Pool(),
		Time:                 a.clock.Now,
	}
}

// EtcdClientTLS is for the store's connection to etcd.
func (a *Authority) EtcdClientTLS() *tls.Config {
	return clientTLS(a.Etcd, Identity{CommonName: "kube-apiserver-etcd-client", Client: true}, a)
}

func clientTLS(ca *CA, id Identity, a *Authority) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS12,
		RootCAs:              ca.Pool(),
		GetClientCertificate: ca.Leaf(id).ForClient,
		Time:                 a.clock.Now,
	}
}
