package daemon

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/pki"
)

// keys are what an API server proves itself with, and whom it believes.
type keys struct {
	clients   *x509.CertPool // of client certificates, beside Config.Auth's
	serving   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	signers   []crypto.Signer    // of tokens: the first signs, all verify
	verifiers []crypto.PublicKey // of tokens, beside those of signers
	nodes     *tls.Config        // towards the nodes' API
	clientCA  []byte             // the authorities of clients in PEM
	proxy     *proxyKeys         // nil: this is no front proxy
	etcd      *tls.Config        // towards an etcd elsewhere
}

// proxyKeys are what a front proxy proves itself with, and whom it believes to be one.
type proxyKeys struct {
	client func() *tls.Config // towards the servers behind it
	roots  *x509.CertPool
	pem    []byte // of the roots
}

// ownKeys are those of a cluster with an authority of its own.
func ownKeys(c Config, a *pki.Authority) (keys, error) {
	names := pki.APIServerNames(c.ClusterDomain, c.ServiceCIDR.Addr().Next(), c.NodeName, c.NodeIP.String(), c.AdvertiseAddress.String())
	k := keys{
		clients:  a.API.Pool(),
		serving:  a.ServerTLS(names).GetCertificate,
		signers:  a.TokenKeys(),
		nodes:    a.KubeletClientTLS(),
		clientCA: a.API.PEM(),
		proxy:    &proxyKeys{client: a.FrontProxyClientTLS, roots: a.FrontProxy.Pool(), pem: a.FrontProxy.PEM()},
		etcd:     a.EtcdClientTLS(),
	}
	if c.EtcdFiles == (EtcdFiles{}) {
		return k, nil
	}
	var err error
	k.etcd, err = c.EtcdFiles.tls()
	return k, err
}

// tls shows and believes what is in the files.
func (f EtcdFiles) tls() (*tls.Config, error) {
	info := transport.TLSInfo{TrustedCAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	config, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the certificates for etcd: %w", err)
	}
	return config, nil
}

// GivenKeys are the files in which an API server that runs alone is given its
// keys: by the flags of kube-apiserver that each is named after.
type GivenKeys struct {
	// The server's certificate (tls-cert-file, tls-private-key-file). With Make
	// both are made if neither is there (cert-dir).
	CertFile, KeyFile string
	Make              bool

	SigningKey  string   // service-account-signing-key-file
	VerifyKeys  []string // service-account-key-file
	KubeletCA   string   // kubelet-certificate-authority; "": nodes are not verified, as in Kubernetes
	KubeletCert string   // kubelet-client-certificate
	KubeletKey  string   // kubelet-client-key
}

// read reads all files. bind is the address that the server listens at.
func (g GivenKeys) read(c Config, bind netip.Addr) (keys, error) {
	k := keys{clients: x509.NewCertPool()}
	var err error
	if g.Make {
		if err := pki.EnsureSelfSigned(g.CertFile, g.KeyFile, g.names(c, bind), pki.Options{Clock: clock.RealClock{}}); err != nil {
			return k, fmt.Errorf("make a certificate of the API server: %w", err)
		}
	}
	cert, err := pki.ReadGiven(g.CertFile, g.KeyFile)
	if err != nil {
		return k, fmt.Errorf("read the certificate of the API server: %w", err)
	}
	k.serving = cert.ForServer
	if err := g.readTokenKeys(&k); err != nil {
		return k, err
	}
	k.nodes = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: g.KubeletCA == ""} //nolint:gosec // see KubeletCA
	if g.KubeletCA != "" {
		if k.nodes.RootCAs, err = pki.ReadPool(g.KubeletCA); err != nil {
			return k, fmt.Errorf("--kubelet-certificate-authority: %w", err)
		}
	}
	if g.KubeletCert != "" {
		client, err := pki.ReadGiven(g.KubeletCert, g.KubeletKey)
		if err != nil {
			return k, fmt.Errorf("--kubelet-client-certificate: %w", err)
		}
		k.nodes.GetClientCertificate = client.ForClient
	}
	k.etcd, err = c.EtcdFiles.tls()
	return k, err
}

// readTokenKeys reads the keys of service accounts' tokens. A file of public keys
// may hold certificates and private keys, too: Kubernetes takes their public half.
func (g GivenKeys) readTokenKeys(k *keys) error {
	key, err := keyutil.PrivateKeyFromFile(g.SigningKey)
	if err != nil {
		return fmt.Errorf("--service-account-signing-key-file: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return fmt.Errorf("--service-account-signing-key-file: a %T cannot sign", key)
	}
	k.signers = []crypto.Signer{signer}
	for _, path := range g.VerifyKeys {
		public, err := keyutil.PublicKeysFromFile(path)
		if err != nil {
			return fmt.Errorf("--service-account-key-file: %w", err)
		}
		for _, p := range public {
			k.verifiers = append(k.verifiers, p)
		}
	}
	return nil
}

// names are those that a certificate made here is good for: Kubernetes' own list,
// and all by which the server is reached on its machine.
func (g GivenKeys) names(c Config, bind netip.Addr) []string {
	names := []string{"kubernetes.default.svc", "kubernetes.default", "kubernetes", "localhost", c.ServiceCIDR.Addr().Next().String()}
	if bind.IsValid() && !bind.IsUnspecified() {
		names = append(names, bind.String())
	}
	if c.AdvertiseAddress.IsValid() {
		names = append(names, c.AdvertiseAddress.String())
	}
	if c.ExternalName != "" {
		names = append(names, c.ExternalName)
	}
	return names
}
