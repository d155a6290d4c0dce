package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/soheilhy/cmux"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// ServerOptions of Serve, by the names of etcd's flags. Of Options, Quota counts
// as etcd counts it, and 0 is etcd's default.
type ServerOptions struct {
	Options
	Name            string
	ListenClient    []url.URL // http, https or unix
	AdvertiseClient []url.URL
	ListenPeer      []url.URL
	AdvertisePeer   []url.URL
	ClusterToken    string
	TLS             *tls.Config // for https
	UnsafeNoFsync   bool
	// Tick is the heartbeat interval, and the election timeout ElectionTicks of
	// them. They serve to notice that others are dead, and are most of the time
	// that a start takes.
	Tick            time.Duration
	ElectionTicks   int
	SnapshotEntries uint64
	MaxRequestBytes uint
	MaxTxnOps       uint
}

// Serve runs etcd as a server for others, on the network, until the context ends:
// a cluster of one member. ready is called once it serves.
func Serve(ctx context.Context, o ServerOptions, ready func()) (err error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	cfg, err := serverConfig(o.Options)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	cfg.Name, cfg.InitialClusterToken = o.Name, o.ClusterToken
	cfg.ClientURLs, cfg.PeerURLs = o.AdvertiseClient, o.AdvertisePeer
	cfg.InitialPeerURLsMap = types.URLsMap{o.Name: o.AdvertisePeer}
	cfg.QuotaBackendBytes, cfg.UnsafeNoFsync = o.Quota, o.UnsafeNoFsync
	cfg.TickMs, cfg.ElectionTicks = uint(o.Tick.Milliseconds()), o.ElectionTicks
	cfg.SnapshotCount, cfg.MaxRequestBytes, cfg.MaxTxnOps = o.SnapshotEntries, o.MaxRequestBytes, o.MaxTxnOps
	cfg.MaxConcurrentStreams = maxStreams

	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close() //nolint:errcheck // who served there has closed it
		}
	}()
	var clients, peers []net.Listener
	for _, list := range []struct {
		urls []url.URL
		to   *[]net.Listener
	}{{o.ListenClient, &clients}, {o.ListenPeer, &peers}} {
		for _, u := range list.urls {
			l, err := listen(u, o.TLS)
			if err != nil {
				return fmt.Errorf("start etcd: %w", err)
			}
			open = append(open, l)
			*list.to = append(*list.to, l)
		}
	}
	server, err := etcdserver.NewServer(cfg)
	if err != nil {
		return fmt.Errorf("start etcd in %s: %w", o.Dir, err)
	}
	server.Start()
	defer server.HardStop()
	select {
	case <-server.ReadyNotify():
	case <-server.StopNotify():
		return fmt.Errorf("start etcd in %s: it stopped by itself", o.Dir)
	case <-ctx.Done():
		return nil
	}
	return answer(ctx, server, clients, peers, ready)
}

// maxStreams is etcd's own limit of concurrent streams of a connection: none.
const maxStreams = 1<<32 - 1

// listen listens where a URL says. tlsConfig is for https.
func listen(u url.URL, tlsConfig *tls.Config) (net.Listener, error) {
	network, address := "tcp", u.Host
	switch {
	case u.Scheme == "unix":
		network, address = "unix", u.Host+u.Path
	case u.Scheme == "https" && tlsConfig == nil:
		return nil, fmt.Errorf("listen on %s: it needs a certificate and a key", u.String())
	}
	l, err := net.Listen(network, address)
	if err == nil && u.Scheme == "https" {
		l = tls.NewListener(l, tlsConfig)
	}
	return l, err
}

// answer serves gRPC and, on the same listeners, health, version and metrics;
// to peers, of whom there are none, who the members are.
func answer(ctx context.Context, server *etcdserver.EtcdServer, clients, peers []net.Listener, ready func()) error {
	rpc := v3rpc.Server(server, nil, nil, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: mostPings}))
	mux := http.NewServeMux()
	etcdhttp.HandleHealth(server.Logger(), mux, server)
	etcdhttp.HandleMetrics(mux)
	etcdhttp.HandleVersion(mux, server)
	plain := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	toPeers := &http.Server{Handler: etcdhttp.NewPeerHandler(server.Logger(), server), ReadHeaderTimeout: headerTimeout}

	g, life := errgroup.WithContext(ctx)
	serve := func(what string, f func() error) {
		g.Go(func() error {
			err := f()
			if life.Err() != nil || errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve %s of etcd: %w", what, err)
		})
	}
	for _, l := range clients {
		m := cmux.New(l)
		http2, http1 := m.Match(cmux.HTTP2()), m.Match(cmux.Any())
		serve("gRPC", func() error { return rpc.Serve(http2) })
		serve("health", func() error { return plain.Serve(http1) })
		serve("clients", m.Serve)
	}
	for _, l := range peers {
		serve("peers", func() error { return toPeers.Serve(l) })
	}
	g.Go(func() error {
		select {
		case <-life.Done():
		case <-server.StopNotify():
			return errors.New("etcd stopped by itself")
		}
		rpc.Stop()
		// The listener that gRPC has closed may be the other's, too.
		if err := plain.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return toPeers.Close()
	})
	ready()
	return g.Wait()
}

// mostPings is how often a client may ask whether the server is still there:
// etcd's own limit, where gRPC's is five minutes.
const mostPings = 5 * time.Second

// headerTimeout bounds how long a client may take to say what it wants.
const headerTimeout = 5 * time.Second
