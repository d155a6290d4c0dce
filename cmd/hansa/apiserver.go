package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"hansa.dev/hansa/apiserver/auth/authz"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/daemon"
	"hansa.dev/hansa/internal/version"
)

// apiserverFlags are those of `hansa apiserver`: kube-apiserver's, by its names
// and with its defaults. Neither environment nor file speaks for them.
type apiserverFlags struct {
	settings
	given daemon.GivenKeys

	etcdServers  []string
	bind         string
	port         int
	certDir      string
	serviceCIDR  string
	nodePorts    utilnet.PortRange
	endpoints    string
	issuers      []string
	tokenLimit   time.Duration
	jwksURI      string
	externalName string
	privileged   bool
	verbosity    int
	version      bool
}

func newAPIServer() *cobra.Command {
	var s apiserverFlags
	cmd := &cobra.Command{
		Use:   "apiserver",
		Short: "The API alone, with kube-apiserver's flags, for operators' tests",
		Long: `The API alone, with kube-apiserver's flags, for operators' tests.

Its state is in an etcd elsewhere and its keys are in files. No controllers run
but those that are parts of kube-apiserver, no scheduler and no node.
"hansa envtest DIR" lays it out for envtest.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.version {
				fmt.Fprintln(cmd.OutOrStdout(), "Kubernetes", version.GitVersion)
				return nil
			}
			s.kubeDefaults(cmd.Flags())
			c, err := s.daemonConfig()
			if err != nil {
				return err
			}
			c.Flags = values(cmd.Flags())
			return daemon.APIServer(cmd.Context(), c, s.given, os.Stderr)
		},
	}
	s.flags(cmd.Flags())
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && slices.Contains(kubeFlags(), unknown.GetSpecifiedName()) {
			return usageError{fmt.Errorf("--%s is a flag of kube-apiserver that %s does not have; leave it out", unknown.GetSpecifiedName(), cmd.CommandPath())}
		}
		return flagError(cmd, err)
	})
	return cmd
}

func (s *apiserverFlags) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&s.etcdServers, "etcd-servers", nil, "where etcd is, as URLs; required")
	s.etcdFlags(f)
	s.apiFlags(f)
	f.StringVar(&s.bind, "bind-address", "0.0.0.0", "address to listen at")
	f.IntVar(&s.port, "secure-port", 6443, "port to listen at")
	f.StringVar(&s.certDir, "cert-dir", "/var/run/kubernetes", "where the certificate apiserver.crt and key apiserver.key are, or are made; not used with --tls-cert-file")
	f.StringVar(&s.given.CertFile, "tls-cert-file", "", "certificate to serve with, followed by those of its authorities")
	f.StringVar(&s.given.KeyFile, "tls-private-key-file", "", "key of --tls-cert-file")
	f.StringVar(&s.advertiseAddress, "advertise-address", "", "address at which others reach the API (default: the bound one, or else the host's)")
	f.StringVar(&s.externalName, "external-hostname", "", "name by which others reach the API (default: the advertised address)")
	f.StringVar(&s.endpoints, "endpoint-reconciler-type", "lease", "who keeps the endpoints of the service kubernetes: lease (this server) or none")
	f.StringVar(&s.given.KubeletCert, "kubelet-client-certificate", "", "certificate to show to nodes")
	f.StringVar(&s.given.KubeletKey, "kubelet-client-key", "", "key of --kubelet-client-certificate")
	f.StringVar(&s.given.KubeletCA, "kubelet-certificate-authority", "", "certificates of the authorities that nodes are to have their own of")
	f.StringSliceVar(&s.issuers, "service-account-issuer", nil, "who signs the tokens of service accounts; may be repeated: of the others tokens are taken; required")
	f.StringSliceVar(&s.given.VerifyKeys, "service-account-key-file", nil, "public keys, certificates or private keys that verify tokens of service accounts; may be repeated; required")
	f.StringVar(&s.given.SigningKey, "service-account-signing-key-file", "", "private key that signs tokens of service accounts; required")
	f.DurationVar(&s.tokenLimit, "service-account-max-token-expiration", 0, "longest life of such a token; 0 is any")
	f.StringVar(&s.jwksURI, "service-account-jwks-uri", "", "where the keys of tokens are said to be (default: at this server)")
	f.StringVar(&s.serviceCIDR, "service-cluster-ip-range", "10.0.0.0/24", "addresses of services")
	s.nodePorts = utilnet.PortRange{Base: int(alloc.DefaultPorts.First), Size: int(alloc.DefaultPorts.Last-alloc.DefaultPorts.First) + 1}
	f.Var(&s.nodePorts, "service-node-port-range", "ports of nodes for services, FIRST-LAST")
	f.BoolVar(&s.privileged, "allow-privileged", false, "allow privileged containers")
	f.IntVarP(&s.verbosity, "v", "v", 0, "how much is logged: from 2 on what happens, from 4 on details")
	f.BoolVar(&s.version, "version", false, "print the version and exit")
}

// daemonConfig checks every flag; the first wrong one is named.
func (s *apiserverFlags) daemonConfig() (daemon.Config, error) {
	c := daemon.Config{ClusterDomain: "cluster.local", NoEndpoints: s.endpoints == "none", ExternalName: s.externalName, ForbidPrivileged: !s.privileged}
	fail := func(err error) (daemon.Config, error) { return daemon.Config{}, err }
	if len(s.etcdServers) == 0 {
		return fail(badFlag("etcd-servers", "must be specified"))
	}
	if err := s.etcdConfig(&c, "etcd-servers", s.etcdServers); err != nil {
		return fail(err)
	}
	if err := s.tokens(&c); err != nil {
		return fail(err)
	}
	if err := s.apiConfig(&c); err != nil {
		return fail(err)
	}
	if err := s.addresses(&c); err != nil {
		return fail(err)
	}
	if err := s.certificates(); err != nil {
		return fail(err)
	}
	switch {
	case s.endpoints != "lease" && s.endpoints != "none":
		return fail(badFlag("endpoint-reconciler-type", "%q is not lease or none", s.endpoints))
	case s.verbosity < 2:
		c.LogLevel = slog.LevelWarn
	case s.verbosity < 4:
		c.LogLevel = slog.LevelInfo
	default:
		c.LogLevel = slog.LevelDebug
	}
	return c, nil
}

// kubeDefaults sets Kubernetes' own defaults of what decides who is let in and who
// may do what, where `hansa up` has others.
func (s *apiserverFlags) kubeDefaults(f *pflag.FlagSet) {
	s.auth.open = true
	if f.Changed("authorization-mode") || s.auth.given("authorization-config") {
		return
	}
	if err := f.Set("authorization-mode", authz.AlwaysAllow); err != nil {
		panic(err) // the flag is not what it was
	}
}

// addresses checks where the server listens, and the ranges of services.
func (s *apiserverFlags) addresses(c *daemon.Config) error {
	bind := s.bind
	if bind == "" {
		bind = "0.0.0.0"
	}
	if _, err := netip.ParseAddr(bind); err != nil {
		return badFlag("bind-address", "%q is not an address", s.bind)
	}
	if s.port < 1 || s.port > 65535 {
		return badFlag("secure-port", "%d must be between 1 and 65535, inclusive. It cannot be turned off with 0", s.port)
	}
	c.Listen = net.JoinHostPort(bind, strconv.Itoa(s.port))
	var err error
	if s.advertiseAddress != "" {
		c.AdvertiseAddress, err = netip.ParseAddr(s.advertiseAddress)
		if err != nil || c.AdvertiseAddress.IsUnspecified() {
			return badFlag("advertise-address", "%q is not an address at which others reach this server", s.advertiseAddress)
		}
		if c.AdvertiseAddress.IsLoopback() {
			// No endpoint may have it: the server is for this host alone.
			c.NoEndpoints = true
		}
	}
	if c.ServiceCIDR, err = netip.ParsePrefix(s.serviceCIDR); err != nil || !c.ServiceCIDR.Addr().Is4() {
		return badFlag("service-cluster-ip-range", "%q is not an IPv4 range such as 10.0.0.0/24", s.serviceCIDR)
	}
	c.ServiceCIDR = c.ServiceCIDR.Masked()
	if c.ServiceCIDR.Bits() > 28 {
		return badFlag("service-cluster-ip-range", "the service cluster IP range must be at least 8 IP addresses: use a /28 or larger") //nolint:revive // Kubernetes' sentence
	}
	last := s.nodePorts.Base + s.nodePorts.Size - 1
	if s.nodePorts.Size < 1 || s.nodePorts.Base < 1 || last > 65535 {
		return badFlag("service-node-port-range", "%s is not a range of ports such as %s", s.nodePorts.String(), alloc.DefaultPorts)
	}
	c.NodePorts = alloc.PortRange{First: int32(s.nodePorts.Base), Last: int32(last)}
	return nil
}

// certificates checks which files the server's certificate is in.
func (s *apiserverFlags) certificates() error {
	switch {
	case (s.given.CertFile == "") != (s.given.KeyFile == ""):
		return badFlag("tls-cert-file", "it and --tls-private-key-file are given together or not at all")
	case (s.given.KubeletCert == "") != (s.given.KubeletKey == ""):
		return badFlag("kubelet-client-certificate", "it and --kubelet-client-key are given together or not at all")
	case s.given.CertFile == "" && s.certDir == "":
		return badFlag("cert-dir", "without it --tls-cert-file must be given")
	case s.given.CertFile == "":
		s.given.CertFile, s.given.KeyFile = filepath.Join(s.certDir, "apiserver.crt"), filepath.Join(s.certDir, "apiserver.key")
		s.given.Make = true
	}
	return nil
}

// tokens checks who signs the tokens of service accounts, and how.
func (s *apiserverFlags) tokens(c *daemon.Config) error {
	switch {
	case len(s.issuers) == 0:
		return badFlag("service-account-issuer", "is a required flag")
	case s.given.SigningKey == "":
		return badFlag("service-account-signing-key-file", "is a required flag")
	case len(s.given.VerifyKeys) == 0:
		return badFlag("service-account-key-file", "must be set")
	case s.tokenLimit != 0 && (s.tokenLimit < time.Hour || s.tokenLimit > 1<<32*time.Second):
		return badFlag("service-account-max-token-expiration", "must be between 1 hour and 2^32 seconds")
	}
	seen := map[string]bool{}
	for _, issuer := range s.issuers {
		if _, err := url.Parse(issuer); issuer == "" || err != nil {
			return badFlag("service-account-issuer", "%q contained a ':' but was not a valid URL", issuer)
		}
		if seen[issuer] {
			return badFlag("service-account-issuer", "%q is already specified", issuer)
		}
		seen[issuer] = true
	}
	if u, err := url.Parse(s.jwksURI); s.jwksURI != "" && (err != nil || u.Scheme != "https") {
		return badFlag("service-account-jwks-uri", "requires https scheme, parsed as: %s", s.jwksURI)
	}
	c.Tokens = daemon.Tokens{Issuer: s.issuers[0], OtherIssuers: s.issuers[1:], MaxLifetime: s.tokenLimit, JWKSURI: s.jwksURI}
	return nil
}
