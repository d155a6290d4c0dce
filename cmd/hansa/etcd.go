package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	etcdversion "go.etcd.io/etcd/api/v3/version"

	"hansa.dev/hansa/daemon"
	"hansa.dev/hansa/pki"
	"hansa.dev/hansa/store/etcd"
)

// etcdServer are the flags of `hansa etcd`: those of etcd by its names, as far as
// they are about a single member.
type etcdServer struct {
	etcd.ServerOptions

	listenClient, advertiseClient, listenPeer, advertisePeer, cluster []string

	state             string
	heartbeat         int // milliseconds
	election          int
	certFile, keyFile string
	trustedCA         string
	clientCerts       bool
	logLevel          string
	version           bool
}

func newEtcd() *cobra.Command {
	var s etcdServer
	cmd := &cobra.Command{
		Use:   "etcd",
		Short: "etcd with a single member, for operators' tests",
		Long: `etcd with a single member, by etcd's own flags, for operators' tests.

It answers the whole gRPC interface, /health, /version and /metrics.
"hansa envtest DIR" lays it out for envtest.`,
		Hidden: true,
		Args:   exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.version {
				fmt.Fprintf(cmd.OutOrStdout(), "etcd Version: %s\n", etcdversion.Version)
				return nil
			}
			level, err := s.complete()
			if err != nil {
				return err
			}
			return daemon.Etcd(cmd.Context(), s.ServerOptions, level, os.Stderr)
		},
	}
	s.flags(cmd.Flags())
	return cmd
}

func (s *etcdServer) flags(f *pflag.FlagSet) {
	const local = "http://localhost:"
	f.StringVar(&s.Name, "name", "default", "name of the member")
	f.StringVar(&s.Dir, "data-dir", "", "where the data is kept (default: NAME.etcd)")
	f.StringSliceVar(&s.listenClient, "listen-client-urls", []string{local + "2379"}, "where to listen for clients")
	f.StringSliceVar(&s.advertiseClient, "advertise-client-urls", []string{local + "2379"}, "where clients are told to find this member")
	f.StringSliceVar(&s.listenPeer, "listen-peer-urls", []string{local + "2380"}, "where to listen for other members")
	f.StringSliceVar(&s.advertisePeer, "initial-advertise-peer-urls", []string{local + "2380"}, "where other members are told to find this one")
	f.StringSliceVar(&s.cluster, "initial-cluster", nil, "the member, NAME=URL; there can be only one")
	f.StringVar(&s.state, "initial-cluster-state", "new", "new; a member of an existing cluster cannot be made")
	f.StringVar(&s.ClusterToken, "initial-cluster-token", "etcd-cluster", "what tells this cluster from others")
	f.BoolVar(&s.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk: what was answered may be lost")
	f.IntVar(&s.heartbeat, "heartbeat-interval", 10, "milliseconds between heartbeats")
	f.IntVar(&s.election, "election-timeout", 50, "milliseconds after which a new leader is looked for")
	f.Int64Var(&s.Quota, "quota-backend-bytes", 0, "most that the data may take, in bytes; 0 is 2 GiB, less is any")
	f.Uint64Var(&s.SnapshotEntries, "snapshot-count", 10000, "transactions after which the log is cut")
	f.UintVar(&s.MaxRequestBytes, "max-request-bytes", 1.5*1024*1024, "size of the largest request, in bytes")
	f.UintVar(&s.MaxTxnOps, "max-txn-ops", 128, "most operations of one transaction")
	f.StringVar(&s.certFile, "cert-file", "", "certificate for clients by https")
	f.StringVar(&s.keyFile, "key-file", "", "key of --cert-file")
	f.StringVar(&s.trustedCA, "trusted-ca-file", "", "certificates of the authorities that clients are to have their own of")
	f.BoolVar(&s.clientCerts, "client-cert-auth", false, "demand certificates of clients")
	f.StringVar(&s.logLevel, "log-level", "warn", "debug, info, warn or error")
	f.BoolVar(&s.version, "version", false, "print the version and exit")
}

// complete checks the flags; the first wrong one is named.
func (s *etcdServer) complete() (slog.Level, error) {
	var level slog.Level
	for _, list := range []struct {
		flag string
		from []string
		to   *[]url.URL
	}{
		{"listen-client-urls", s.listenClient, &s.ListenClient}, {"advertise-client-urls", s.advertiseClient, &s.AdvertiseClient},
		{"listen-peer-urls", s.listenPeer, &s.ListenPeer}, {"initial-advertise-peer-urls", s.advertisePeer, &s.AdvertisePeer},
	} {
		for _, text := range list.from {
			u, err := url.Parse(text)
			if err != nil || !slices.Contains([]string{"http", "https", "unix"}, u.Scheme) || u.Host+u.Path == "" {
				return level, badFlag(list.flag, "%q is not a URL such as http://127.0.0.1:2379", text)
			}
			*list.to = append(*list.to, *u)
		}
	}
	if s.Dir == "" {
		s.Dir = s.Name + ".etcd"
	}
	if err := s.alone(); err != nil {
		return level, err
	}
	if s.heartbeat < 1 || s.election < 5*s.heartbeat {
		return level, badFlag("election-timeout", "%d ms should be at least five times --heartbeat-interval, %d ms", s.election, s.heartbeat)
	}
	s.Tick, s.ElectionTicks = time.Duration(s.heartbeat)*time.Millisecond, s.election/s.heartbeat
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return level, badFlag("log-level", "%q is not debug, info, warn or error", s.logLevel)
	}
	return level, s.certificates()
}

// alone refuses what is about other members.
func (s *etcdServer) alone() error {
	switch {
	case len(s.cluster) > 1:
		return badFlag("initial-cluster", "this etcd has a single member; for more use etcd itself")
	case s.state != "new":
		return badFlag("initial-cluster-state", "%q: this etcd has a single member, and begins a new cluster", s.state)
	case len(s.cluster) == 1:
		name, address, _ := strings.Cut(s.cluster[0], "=")
		if name != s.Name || !slices.Contains(s.advertisePeer, address) {
			return badFlag("initial-cluster", "%s is not this member, %s=%s", s.cluster[0], s.Name, strings.Join(s.advertisePeer, ","))
		}
	}
	return nil
}

// certificates reads those for https.
func (s *etcdServer) certificates() error {
	if (s.certFile == "") != (s.keyFile == "") {
		return badFlag("cert-file", "it and --key-file are given together or not at all")
	}
	if s.certFile == "" {
		if s.clientCerts || s.trustedCA != "" {
			return badFlag("trusted-ca-file", "there is no --cert-file for connections that it could be for")
		}
		return nil
	}
	cert, err := pki.ReadGiven(s.certFile, s.keyFile)
	if err != nil {
		return fmt.Errorf("--cert-file: %w", err)
	}
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.ForServer, NextProtos: []string{"h2", "http/1.1"}}
	if s.trustedCA != "" {
		if s.TLS.ClientCAs, err = pki.ReadPool(s.trustedCA); err != nil {
			return fmt.Errorf("--trusted-ca-file: %w", err)
		}
		s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	} else if s.clientCerts {
		return usageError{errors.New("--client-cert-auth: it needs --trusted-ca-file")}
	}
	return nil
}
